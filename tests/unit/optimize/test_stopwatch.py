# SPDX-License-Identifier: Apache-2.0
import time
from typing import ClassVar

import numpy as np
import pytest

from septet.optimize import stopwatch
from septet.optimize.stopwatch import Timing, interleaved
from septet.tensor import Tensors


class Clocked:
    """An engine that costs `cost` seconds a call for each place of a sample, and a quarter of it for each sample
    after the first."""

    now: ClassVar[float] = 0.0
    order: ClassVar[list[float]] = []

    def __init__(self, cost: float) -> None:
        self.cost = cost

    def infer(self, batch: Tensors) -> Tensors:
        Clocked.order.append(self.cost)
        samples, places = batch["x"].shape
        Clocked.now += self.cost * places * (1 + 0.25 * (samples - 1))
        return {}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    Clocked.now, Clocked.order = 0.0, []
    monkeypatch.setattr(time, "process_time", lambda: Clocked.now)


def test_each_is_timed_in_every_round_and_batches_are_compared() -> None:
    feeds = {batch: [{"x": np.zeros((batch, 1))}] for batch in (1, 8)}
    slow, fast = interleaved([Clocked(0.04), Clocked(0.02)], feeds)  # type: ignore[list-item]
    assert slow.latency == pytest.approx(40)
    assert fast.latency == pytest.approx(20)
    assert fast.each == pytest.approx(20 * (1 + 0.25 * 7) / 8)
    assert (fast.batch, fast.rounds) == (8, stopwatch.ROUNDS)
    rounds = Clocked.order[-4 * stopwatch.ROUNDS :]
    assert rounds == [0.04, 0.04, 0.02, 0.02] * stopwatch.ROUNDS


def test_samples_of_unlike_length_are_timed_as_often_as_each_other() -> None:
    """However fast an engine is: a slow one would be timed on the first alone, a fast one on all."""
    feeds = {1: [{"x": np.zeros((1, places))} for places in (1, 2, 9)]}
    slow, fast = interleaved([Clocked(0.04), Clocked(0.004)], feeds)  # type: ignore[list-item]
    assert slow.latency == pytest.approx(160)
    assert fast.latency == pytest.approx(16)


def test_slow_networks_are_timed_in_few_rounds() -> None:
    (found,) = interleaved([Clocked(50.0)], {1: [{"x": np.zeros((1, 1))}]})  # type: ignore[list-item]
    assert found.rounds == 3


def test_throughput_is_of_the_best_batch() -> None:
    assert Timing(latency=4, each=2, batch=8, rounds=3).throughput == 500
