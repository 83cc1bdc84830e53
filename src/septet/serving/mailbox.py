# SPDX-License-Identifier: Apache-2.0
"""Answers from engine threads to the event loop: one wake-up brings many."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from septet.request import Response
from septet.serving.failure import told

Taker = Callable[[Response], None]


class Mailbox:
    """`post` may be called from any thread; the taker is called on the loop's.

    Waking a loop costs a system call, so only the first answer after the loop has looked wakes it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._letters: deque[tuple[Taker, Response]] = deque()
        self._woken = False
        self.after: list[Callable[[], None]] = []
        """Called once when all letters of a wake-up are delivered."""

    def post(self, taker: Taker, response: Response) -> None:
        """Have `taker` called with `response` on the loop."""
        self._letters.append((taker, response))
        if not self._woken:
            self._woken = True
            self._wake()

    def _wake(self) -> None:
        if threading.get_ident() == self._thread:
            self._loop.call_soon(self._deliver)
            return
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # the loop has ended: so has everybody who waited
            self._letters.clear()

    def _deliver(self) -> None:
        self._woken = False  # before the letters are taken: whoever posts from here on wakes the loop again
        letters = self._letters
        for _ in range(len(letters)):
            taker, response = letters.popleft()
            try:
                taker(response)
            except Exception as error:  # one connection's fault is not the others'
                told(error)
        for last in self.after:
            last()
