# SPDX-License-Identifier: Apache-2.0
"""A fault in a configuration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """What is wrong, and the field it is wrong with: ``input[1].dims``."""

    field: str
    text: str
