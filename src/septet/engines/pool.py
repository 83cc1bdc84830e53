# SPDX-License-Identifier: Apache-2.0
"""A pool of slots: as many calls side by side as there are slots, and a close that waits for them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from septet.errors import EngineClosed

Slot = TypeVar("Slot")


class Pool(Generic[Slot]):
    """Lends each of `slots` to one call at a time, in turn: as many calls as there are slots touch them all."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._count = len(slots)
        self._free: queue.SimpleQueue[Slot | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        for slot in slots:
            self._free.put(slot)

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """A free slot, waited for. Raises EngineClosed."""
        taken = self._free.get()
        try:
            if taken is None:
                raise EngineClosed("the engine is closed")
            yield taken
        finally:
            self._free.put(taken)

    def close(self) -> None:
        """Wait for the calls in progress, then let no more in. Closing twice is harmless."""
        with self._closing:
            if not self._closed:
                for _ in range(self._count):
                    self._free.get()
                self._free.put(None)
                self._closed = True
