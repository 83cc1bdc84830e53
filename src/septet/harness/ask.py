# SPDX-License-Identifier: Apache-2.0
"""Ask: what to run and where to leave it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from septet.engines.engine import is_address
from septet.harness.rules import Category
from septet.workloads.workload import Size


@dataclass(frozen=True)
class Ask:
    """One network on one engine. ``None`` means: choose what is best for this machine.

    `official` asks for v0.7's durations and counts, `padded` for sequences that are all as long as the longest.
    `mode` says whether to run performance, accuracy, or both.
    `file` is run in the place of the network's own: an optimised form of it, as the reference never is.
    `notes` are lines that every output must show.
    """

    network: str
    folder: Path
    size: Size = "mini"
    weights: str = "auto"
    data: Path | None = None
    padded: bool = False
    engine: str = "openvino"
    precision: str = "f32"
    file: Path | None = None
    threads: int | None = None
    streams: int | None = None
    batch: int | None = None
    category: Category | None = None
    official: bool = False
    mode: Literal["both", "performance", "accuracy"] = "both"
    command: str = ""
    notes: tuple[str, ...] = ()

    @property
    def remote(self) -> bool:
        """Whether the engine is a model on a server, over the wire."""
        return is_address(self.engine)

    @property
    def title(self) -> str:
        """The name of its folder, and of itself in progress lines."""
        return re.sub(r"[^\w.+]+", "-", f"{self.network}-{self.size}-{self.engine}-{self.precision}")


@dataclass(frozen=True)
class Layout:
    """How an engine is laid out for one scenario: calls side by side, and the largest batch of each."""

    streams: int
    batch: int
