# SPDX-License-Identifier: Apache-2.0
"""The null workload: numbers that are to come back as they went, to try the harness without a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from septet.engines.engine import LoadEngine
from septet.errors import DataError
from septet.score import Score, share
from septet.tensor import Tensors
from septet.workloads.card import Card, Counts
from septet.workloads.predictor import EnginePredictor, Predictor
from septet.workloads.workload import Asked, Size, Workload

SAMPLES = 1_024


class NullWorkload(Workload):
    """Sample i is the number i; the metric is the share that comes back unchanged, in %."""

    name: ClassVar[str] = "null"
    card: ClassVar[Card] = Card(Counts(0, 0.0, "a number"), Counts(0, 0.0, "a number"), (), "nothing")
    origin = "trained"
    model = None
    data = "indices"

    def __init__(self, size: Size) -> None:
        self.size = size

    @classmethod
    def open(cls, size: Size, asked: Asked) -> NullWorkload:
        return cls(size)

    def __len__(self) -> int:
        return SAMPLES

    def sample(self, index: int) -> Tensors:
        """``x``, int64 [1]."""
        return {"x": np.array([index], np.int64)}

    def predictor(self, load: LoadEngine) -> Predictor:
        """``y`` as it came, int64 [N, 1]."""
        return EnginePredictor(load(self.model), lambda outputs: outputs["y"])

    @property
    def scored(self) -> bool:
        return True

    def score(self, responses: Mapping[int, bytes]) -> Score:
        """The share echoed, in %."""
        if len(responses) != SAMPLES:
            raise DataError(f"{len(responses)} of {SAMPLES} samples have an answer")
        right = np.array([responses[index] == np.int64(index).tobytes() for index in range(SAMPLES)], np.float64)
        return share("echoed", right)
