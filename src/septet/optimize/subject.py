# SPDX-License-Identifier: Apache-2.0
"""Subject: what is optimised. The promise behind which the optimiser sees any network and its score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal, get_args

from septet.engines.engine import LoadEngine
from septet.optimize.recorder import Recorder
from septet.score import Score
from septet.tensor import Tensors

Part = Literal["calibration", "search", "final"]
"""Three sets of samples, no sample in two: for scales, for choosing, and for the last word."""

PARTS: tuple[Part, ...] = get_args(Part)

Judged = Literal["accuracy", "agreement", "speed"]
"""By what candidates are judged: the task's own metric; how far outputs agree with FP32's, where there is none; or
nothing, where weights are noise."""


class Subject(ABC):
    """A network with its samples and its score."""

    name: str
    model: Path
    """The FP32 ONNX file."""
    judged: Judged
    data: str
    """The samples in words."""
    identity: str = ""
    """What tells it from another with the same name, model and words."""
    notes: tuple[str, ...] = ()
    """Lines that every output must show."""
    reads: frozenset[str] | None = None
    """The outputs that the task reads; None where that is all of them."""
    largest_only: bool = False
    """Whether of an output only the largest entry of its second dimension counts."""
    batches: tuple[int, ...] = (1, 8)
    """The numbers of samples a call that are timed."""
    joins: bool = True
    """Whether samples can share a call: every output has a row for each."""

    @abstractmethod
    def count(self, part: Part) -> int:
        """How many samples that part has."""

    def most(self, part: Part) -> int:
        """How many it can have at most, where samples can be drawn without end."""
        return self.count(part)

    @abstractmethod
    def run(self, part: Part, load: LoadEngine, count: int, batch: int) -> None:
        """Run the first `count` samples of a part through the network, `batch` at a time."""

    @abstractmethod
    def exam(self, part: Part, load: LoadEngine, count: int) -> Score:
        """The score of the network as `load` loads it, over the first `count` samples of a part."""

    def feeds(self, part: Part, load: LoadEngine, count: int, batch: int) -> list[Tensors]:
        """What the engine gets when the first `count` samples of a part are run, call by call."""
        with Recorder(load(self.model)) as recorder:
            self.run(part, lambda _: recorder, count, batch)
            return recorder.feeds
