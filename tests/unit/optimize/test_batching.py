# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from septet.config import EngineConfig
from septet.devices.device import Partition
from septet.engines.engine import Engine
from septet.optimize.batching import LARGEST, Batching, batching_of
from septet.tensor import Tensors


class Clocked(Engine):
    """A call costs `call` seconds and every row `row` more, on a clock of its own; `compiling` is what the first
    call of each size costs beside."""

    def __init__(self, call: float, row: float, compiling: float = 0.0) -> None:
        self._call, self._row, self._compiling = call, row, compiling
        self.now = 0.0
        self.sizes: list[int] = []

    @classmethod
    def version(cls) -> str:
        return ""

    @classmethod
    def load(cls, path: Path | None, config: EngineConfig, partition: Partition) -> Self:
        raise NotImplementedError

    def infer(self, batch: Tensors) -> Tensors:
        size = len(batch["x"])
        self.now += self._call + self._row * size + (0.0 if size in self.sizes else self._compiling)
        self.sizes.append(size)
        return {}

    def close(self) -> None:
        pass


def found(engine: Clocked, rows: int = 1, *, single: bool = False) -> Batching:
    return batching_of(engine, {"x": np.zeros((rows, 3), np.float32)}, 4, single=single, clock=lambda: engine.now)


@pytest.mark.parametrize(
    ("call", "row", "wanted"),
    [
        (0.0, 1e-3, Batching(4, 1)),  # a batch gains nothing
        (1e-4, 1e-3, Batching(4, 8)),  # of 2: 1.05 times as fast; of 8: 1.04 times that; of 32: 1.01 times that
        (1e-3, 1e-4, Batching(4, LARGEST)),
        (0.0, 2e-2, Batching(1, 1)),  # too long a call for one core
        (2e-3, 4e-3, Batching(1, 16)),
        (0.0, 3.0, Batching(1, 1)),
    ],
)
def test_batches_as_large_as_they_gain_and_an_instance_a_core_for_short_calls(
    call: float, row: float, wanted: Batching
) -> None:
    assert found(Clocked(call, row)) == wanted


def test_what_the_first_call_of_a_size_costs_does_not_count() -> None:
    assert found(Clocked(0.0, 1e-3, compiling=0.05)) == found(Clocked(0.0, 1e-3))


def test_a_network_whose_batch_is_not_free_is_called_as_it_is() -> None:
    engine = Clocked(1e-3, 1e-6)
    assert found(engine, rows=3, single=True) == Batching(4, 1)
    assert set(engine.sizes) == {3}


def test_a_long_call_is_not_repeated_and_no_larger_one_tried() -> None:
    engine = Clocked(0.0, 10.0)
    assert found(engine) == Batching(1, 1)
    assert engine.sizes == [1, 1]


def test_a_sample_of_several_rows_is_a_batch_already() -> None:
    engine = Clocked(1e-3, 1e-6)
    assert found(engine, rows=100) == Batching(4, 0)
    assert set(engine.sizes) == {100}
