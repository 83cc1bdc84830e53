# SPDX-License-Identifier: Apache-2.0
"""A pool of slots: as many calls side by side as there are slots, and a close that waits for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from septet.errors import EngineClosed

Slot = TypeVar("Slot")


class Pool(Generic[Slot]):
    """Lends each of `slots` to one call at a time: first each once, and from then on the one that was used last,
    whose memory is still in the caches. So as many calls as there are slots touch them all."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._count = len(slots)
        self._untouched = list(reversed(slots))
        self._free: list[Slot] = []
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0
        self._closing = threading.Lock()
        self._closed = False

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """A free slot, waited for. Raises EngineClosed."""
        taken = self.take()
        try:
            yield taken
        finally:
            self.give(taken)

    def give(self, slot: Slot) -> None:
        """Give back what was taken."""
        with self._lock:
            self._free.append(slot)
            if self._waiting:
                self._changed.notify()

    def close(self) -> None:
        """Wait for the calls in progress, then let no more in. Closing twice is harmless."""
        with self._closing:
            if not self._closed:
                for _ in range(self._count):
                    self.take()
                with self._lock:
                    self._closed = True
                    self._changed.notify_all()

    def take(self) -> Slot:
        """A free slot, waited for, that is to be given back. Raises EngineClosed."""
        with self._lock:
            while not (self._untouched or self._free or self._closed):
                self._waiting += 1
                self._changed.wait()
                self._waiting -= 1
            if self._closed:
                raise EngineClosed("the engine is closed")
            return (self._untouched or self._free).pop()
