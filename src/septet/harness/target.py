# SPDX-License-Identifier: Apache-2.0
"""A Target: whatever answers queries. `InlineTarget` and `QueuedTarget` ask a predictor in this process."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from septet.harness.library import Library
from septet.harness.waiting import Waiting
from septet.workloads.predictor import Predictor, Rows

Complete = Callable[[Sequence[int], Rows], None]
"""Takes query ids and their answers; the answers need to live only until it returns."""


class Target(ABC):
    """Answers the queries that it is issued by calling `complete`, exactly once for each id."""

    @abstractmethod
    def issue(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        """Answer the samples `indices` under the query ids `ids`, now or later."""

    @abstractmethod
    def close(self) -> None:
        """Answer what is still queued, then stop."""


class PredictorTarget(Target):
    """Answers from a predictor in this process: gather, predict, complete."""

    def __init__(self, predictor: Predictor, library: Library, complete: Complete) -> None:
        self._predictor = predictor
        self._library = library
        self._complete = complete

    def answer(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        """Run one batch."""
        self._complete(ids, self._predictor(self._library.gather(indices)))


class InlineTarget(PredictorTarget):
    """Answers on the thread that asks: the shortest way for one query at a time."""

    def issue(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        self.answer(ids, indices)

    def close(self) -> None:
        """Nothing is ever queued."""


class QueuedTarget(PredictorTarget):
    """Queues samples for `workers` threads, each of which takes what is waiting, at most `batch` at a time.

    A batch is formed only when a worker is free to run it, so that it grows exactly while it waits. Where samples
    have lengths, those of like length are taken together, and a query of many is taken longest first.
    `fail` is called, from the worker, with whatever exception ends one.
    """

    def __init__(
        self,
        predictor: Predictor,
        library: Library,
        complete: Complete,
        *,
        workers: int,
        batch: int,
        fail: Callable[[BaseException], None],
    ) -> None:
        super().__init__(predictor, library, complete)
        self._batch = batch
        self._fail = fail
        self._waiting = Waiting()
        self._lock = threading.Lock()
        self._idle: list[threading.Lock] = []
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f"target-{n}") for n in range(workers)]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def issue(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        lengths = self._library.lengths(indices)
        with self._lock:
            self._waiting.add(ids, indices, lengths)
            self._wake(1 if len(ids) <= self._batch else len(self._threads))

    def _wake(self, most: int) -> None:
        """Wake the `most` workers, if so many are idle, that were busy last: theirs is still in the caches."""
        for bell in self._idle[-most:]:
            bell.release()
        del self._idle[-most:]

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._wake(len(self._threads))
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        bell = threading.Lock()
        bell.acquire()
        try:
            while taken := self._take(bell):
                self.answer(*taken)
        except BaseException as error:
            self._fail(error)

    def _take(self, bell: threading.Lock) -> tuple[list[int], list[int]] | None:
        """What is next, waited for until `bell` is rung; ``None`` at the end."""
        while True:
            with self._lock:
                if self._waiting:
                    return self._waiting.take(self._batch)
                if self._closed:
                    return None
                self._idle.append(bell)
            bell.acquire()
