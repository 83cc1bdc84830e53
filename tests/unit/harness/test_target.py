# SPDX-License-Identifier: Apache-2.0
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from septet.harness.library import Library
from septet.harness.target import QueuedTarget
from septet.tensor import Array, Tensors
from septet.workloads.null import NullWorkload
from septet.workloads.predictor import Predictor, Rows


class Ragged(NullWorkload):
    """Sample i is i ones, padded with zeros in a batch."""

    def sample(self, index: int) -> Tensors:
        return {"x": np.ones(index, np.int64)}

    def length(self, sample: Tensors) -> int:
        return len(sample["x"])

    def collate(self, samples: Sequence[Tensors]) -> Tensors:
        rows = [sample["x"] for sample in samples]
        return {"x": np.stack([np.pad(row, (0, max(map(len, rows)) - len(row))) for row in rows])}


class Counter(Predictor):
    """Answers how many ones each row has; begins when `go` is set, and keeps the shapes that it saw."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, batch: Tensors) -> Rows:
        self.go.wait(10)
        self.shapes.append(batch["x"].shape)
        counts: Array = batch["x"].sum(axis=1, keepdims=True)
        return counts

    def close(self) -> None: ...


@pytest.fixture
def counter() -> Counter:
    return Counter()


def answered(counter: Counter, queries: list[list[int]], batch: int) -> dict[int, int]:
    """What a target of one worker answers to `queries` of samples, by query id; all wait before it begins."""
    library = Library(Ragged("mini"))
    library.load(sorted({index for query in queries for index in query}))
    answers: dict[int, int] = {}
    failures: list[BaseException] = []

    def complete(ids: Sequence[int], rows: Array | Sequence[Array]) -> None:
        answers.update((id_, int(row[0])) for id_, row in zip(ids, rows, strict=True))

    target = QueuedTarget(counter, library, complete, workers=1, batch=batch, fail=failures.append)
    first = 0
    for query in queries:
        target.issue(range(first, first + len(query)), query)
        first += len(query)
    counter.go.set()
    target.close()
    assert not failures
    return answers


def test_a_query_is_sorted_so_that_little_is_padded(counter: Counter) -> None:
    samples = [200, 10, 100, 199, 11, 99]
    assert answered(counter, [samples], 2) == dict(enumerate(samples))
    assert counter.shapes == [(2, 200), (2, 100), (2, 11)]


def test_queries_of_like_length_are_answered_together(counter: Counter) -> None:
    samples = [50, 200, 51, 199, 50, 201]
    assert answered(counter, [[one] for one in samples], 4) == dict(enumerate(samples))
    assert (3, 201) in counter.shapes  # the first batch may have begun before the others came: it is of 50s
    assert sum(rows for rows, longest in counter.shapes if longest <= 51) == 3


class Gate(Predictor):
    """Notes which thread answers, and answers once `go` is released."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.threads: list[int] = []

    def __call__(self, batch: Tensors) -> Rows:
        self.threads.append(threading.get_ident())
        self.begun.release()
        assert self.go.acquire(timeout=10)
        return batch["x"]

    def close(self) -> None: ...


def test_of_idle_workers_the_one_that_was_busy_last_is_woken() -> None:
    gate, library = Gate(), Library(NullWorkload("mini"))
    library.load(range(8))
    done = threading.Semaphore(0)
    failures: list[BaseException] = []
    target = QueuedTarget(
        gate, library, lambda ids, rows: done.release(), workers=4, batch=1, fail=failures.append
    )
    for number in range(4):
        target.issue([number], [number])
    assert all(gate.begun.acquire(timeout=10) for _ in range(4))
    assert len(set(gate.threads)) == 4
    gate.go.release(4)
    assert all(done.acquire(timeout=10) for _ in range(4))
    for number in range(4, 8):
        time.sleep(0.05)  # the worker that has completed waits again
        target.issue([number], [number])
        gate.go.release()
        assert done.acquire(timeout=10)
    target.close()
    assert not failures
    assert len(set(gate.threads[4:])) == 1
