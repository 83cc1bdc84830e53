# SPDX-License-Identifier: Apache-2.0
"""How many bytes of requests a server holds at once, whoever sent them.

Limits of single bodies bound what one client can make the server hold; this bounds what all of them can together.
Whoever would exceed it is refused at once, and may come again: waiting for room would let a few slow senders, each
with half a body, stop everybody for good.
"""

from __future__ import annotations

from collections import deque

from septet.errors import Overloaded

SHARE = 0.25
"""Of the machine's memory, for requests that are being received, wait, or run."""

FREE = 64 << 10
"""Bytes; a body of so many is not counted."""


class Budget:
    """`limit` bytes. Taken on one thread alone, the event loop's; given back from any."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._back: deque[int] = deque()

    @property
    def held(self) -> int:
        """Bytes that are taken and not given back; may be asked from any thread."""
        return self._held - sum(list(self._back))

    def take(self, size: int) -> None:
        """Raises Overloaded where so many bytes are not left."""
        while self._back:
            self._held -= self._back.popleft()
        if self._held + size > self._limit:
            raise Overloaded(f"the server holds {self._limit} bytes of requests already, and takes no more now")
        self._held += size

    def give_back(self, size: int) -> None:
        """May be called wherever an object dies: it takes no lock."""
        self._back.append(size)


class Charge:
    """The bytes of one request: given back when the last who refers to this lets it go."""

    __slots__ = ("_budget", "_size")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._size = 0

    def grow(self, size: int) -> None:
        """Let it be `size` bytes, or what it is if that is more. Raises Overloaded."""
        if size > self._size:
            self._budget.take(size - self._size)
            self._size = size

    def __del__(self) -> None:
        self._budget.give_back(self._size)
