# SPDX-License-Identifier: Apache-2.0
"""A Partition: the share of a device that one engine may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Partition:
    """A set of CPU cores, by the numbers that the operating system gives them."""

    name: str
    cores: tuple[int, ...]
