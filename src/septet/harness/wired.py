# SPDX-License-Identifier: Apache-2.0
"""Queries over the wire, many under way at once."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Sequence

from septet.engines.remote import Asked, RemoteEngine
from septet.harness.library import Library
from septet.harness.target import Complete, Target
from septet.harness.waiting import Waiting
from septet.tensor import Tensors
from septet.workloads.predictor import AskedOnce

LOOK_SECONDS = 1.0
"""How often somebody looks for answers that do not come, while none do."""


class WiredTarget(Target):
    """Asks a server, with at most so many `calls` of at most `batch` samples under way.

    What waits is sent by whoever issues it while a connection is free, and else by the one thread that takes the
    answers. With a thread for each call these hand Python's lock around more often than they work, and a fast
    server waits for its client. `fail` is called, from that thread, with whatever exception ends it.
    """

    def __init__(
        self,
        predictor: AskedOnce,
        library: Library,
        complete: Complete,
        *,
        calls: int,
        batch: int,
        fail: Callable[[BaseException], None],
    ) -> None:
        assert isinstance(predictor.engine, RemoteEngine)
        self._predictor, self._engine = predictor, predictor.engine
        self._library = library
        self._complete = complete
        self._calls = self._free = calls
        self._batch = batch
        self._fail = fail
        self._waiting = Waiting()
        self._lock = threading.Lock()
        self._asked: dict[int, tuple[Asked, Sequence[int], Tensors]] = {}
        """By the descriptor of the connection: what is asked, the query ids, and their batch."""
        self._closed = False
        self._ear = select.epoll()
        self._bell, self._rope = os.pipe()
        self._ear.register(self._bell, select.EPOLLIN)
        self._listener = threading.Thread(target=self._listen, name="target-ear", daemon=True)
        self._listener.start()

    def issue(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        lengths = self._library.lengths(indices)
        with self._lock:
            self._waiting.add(ids, indices, lengths)
        while (taken := self._take()) is not None:
            self._ask(*taken)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._ring_if_over()
        self._listener.join()
        self._ear.close()
        os.close(self._bell)
        os.close(self._rope)

    def _take(self) -> tuple[list[int], list[int]] | None:
        """What is next, if a connection is free for it."""
        with self._lock:
            if not (self._free and self._waiting):
                return None
            self._free -= 1
            return self._waiting.take(self._batch)

    def _ask(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        """Send a batch, and have its answer listened for."""
        batch = self._library.gather(indices)
        asked = self._engine.begin(self._predictor.feeds(batch))
        connection = asked.fileno()
        self._asked[connection] = asked, ids, batch
        answered_once = select.EPOLLIN | select.EPOLLONESHOT
        try:
            self._ear.modify(connection, answered_once)
        except FileNotFoundError:  # the first time, or made anew: closing one takes it out
            self._ear.register(connection, answered_once)

    def _listen(self) -> None:
        try:
            while True:
                ready = self._ear.poll(LOOK_SECONDS)
                for connection, _ in ready:
                    if connection == self._bell:
                        return
                    self._answer(connection)
                if not ready:
                    self._look()
        except BaseException as error:
            self._fail(error)

    def _answer(self, connection: int) -> None:
        """Take the answer that has come, and ask what is next."""
        asked, ids, batch = self._asked.pop(connection)
        self._complete(ids, self._predictor.answers(batch, asked.finish()))
        with self._lock:
            self._free += 1
            self._ring_if_over()
        taken = self._take()
        if taken is not None:
            self._ask(*taken)

    def _look(self) -> None:
        """Have what waits for too long fail."""
        for connection, (asked, _, _) in list(self._asked.items()):
            if asked.overdue:
                self._answer(connection)

    def _ring_if_over(self) -> None:
        """End the listening where nothing is asked any more, nor will be."""
        if self._closed and self._free == self._calls and not self._waiting:
            os.write(self._rope, b"!")
