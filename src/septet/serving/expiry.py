# SPDX-License-Identifier: Apache-2.0
"""One clock for everything that may wait too long: a thread that calls back when the next time comes."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from time import monotonic_ns
from weakref import WeakMethod

_LOG = logging.getLogger("septet.serving")

LONGEST = 3600.0
"""Seconds that the thread sleeps at most: a client may ask for more than a lock can wait."""


class Expiry:
    """Calls each callback at its time (ns of the monotonic clock). The thread exists only once there is work."""

    def __init__(self) -> None:
        self._times: list[tuple[int, int, WeakMethod[Callable[[], None]]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def watch(self, when: int, call: Callable[[], None]) -> None:
        """Call the method `call` at `when`, if what it belongs to is still there: a model that was replaced is not
        kept until its last client's timeout."""
        with self._changed:
            if self._closed:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="septet-expiry", daemon=True)
                self._thread.start()
            heapq.heappush(self._times, (when, next(self._numbers), WeakMethod(call)))
            if self._times[0][0] == when:
                self._changed.notify()

    def close(self) -> None:
        """End the thread; nothing is called any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while (due := self._next()) is not None:
            _call(due)

    def _next(self) -> WeakMethod[Callable[[], None]] | None:
        with self._changed:
            while not self._closed:
                wait = self._times[0][0] - monotonic_ns() if self._times else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._times)[2]
                self._changed.wait(None if wait is None else min(wait / 1e9, LONGEST))
        return None


def _call(due: WeakMethod[Callable[[], None]]) -> None:
    call = due()
    if call is None:
        return
    try:
        call()
    except Exception:
        _LOG.exception("a timeout could not be told")
