# SPDX-License-Identifier: Apache-2.0
"""Which batches a loop sends to a model's process itself."""

from __future__ import annotations

import numpy as np

from septet.request import Request
from septet.serving.brevity import FIRST, SHORT
from septet.serving.pending import Pending
from septet.serving.process.flight import LARGEST, MOST_TEXTS, Fitness
from septet.tensor import Array, objects


def batch(*inputs: Array) -> list[Pending]:
    return [Pending(Request("m", {"x": array}), lambda response: None, "1", 1) for array in inputs]


def proven(size: int, count: int = 1) -> Fitness:
    """After as many short batches of requests of `size` bytes as prove it."""
    fitness = Fitness()
    for _ in range(FIRST):
        assert not fitness
        fitness.saw(count * SHORT, count, size)
    return fitness


def test_requests_are_judged_one_by_one_however_many_come_together() -> None:
    assert proven(16)
    assert proven(16, count=40)
    fitness = proven(16)
    fitness.saw(40 * SHORT, 2, 16)
    assert not fitness


def test_no_request_is_larger_than_those_that_were_short() -> None:
    fitness, small, large = proven(16), np.zeros(4, np.float32), np.zeros(5, np.float32)
    assert fitness.admits(batch(small, small))
    assert not fitness.admits(batch(small, large))
    assert not fitness.admits(batch(large, small))


def test_many_requests_of_one_likeness_are_measured_by_the_first() -> None:
    fitness, pendings = proven(16), batch(*[np.zeros(4, np.float32)] * 3)
    likeness = object()
    for pending in pendings:
        pending.request.likeness = likeness
    assert fitness.admits(pendings)
    assert not proven(15).admits(pendings)
    pendings += batch(np.zeros(5, np.float32))
    assert not fitness.admits(pendings)
    pendings[-1].request.likeness = object()
    assert not fitness.admits(pendings)


def test_a_batch_has_a_bound_of_its_own() -> None:
    size = LARGEST // 4
    fitness, request = proven(size), np.zeros(size, np.uint8)
    assert fitness.admits(batch(*[request] * 4))
    assert not fitness.admits(batch(*[request] * 5))


def test_texts_count_by_their_lengths() -> None:
    fitness = proven(100)
    assert fitness.admits(batch(objects([b"x" * 50, b"y" * 50], (2,))))
    assert not fitness.admits(batch(objects([b"x" * 50, b"y" * 51], (2,))))
    assert not proven(LARGEST).admits(batch(objects([b""] * (MOST_TEXTS + 1), (MOST_TEXTS + 1,))))
