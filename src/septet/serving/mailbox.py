# SPDX-License-Identifier: Apache-2.0
"""Answers from engine threads to the event loop: one wake-up brings many."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from septet.request import Answer, Request, Response
from septet.serving.failure import told
from septet.serving.plane import Plane

Taker = Callable[[Response], object]


class Mailbox:
    """`post` may be called from any thread; the taker is called on the loop's.

    Waking a loop costs a system call, so only the first answer after the loop has looked wakes it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, plane: Plane) -> None:
        self._plane = plane
        self._asked: list[tuple[Request, Answer]] = []
        self._loop = loop
        self._thread = threading.get_ident()
        self._letters: deque[tuple[Taker, Response]] = deque()
        self._woken = False
        self.after: list[Callable[[], None]] = []
        """Called once when all letters of a wake-up are delivered."""

    def ask(self, request: Request, taker: Taker) -> None:
        """Submit `request` with all others of this turn of the loop; `taker` is called with each answer."""
        self._asked.append((request, partial(self.post, taker)))
        if len(self._asked) == 1:
            self._loop.call_soon(self._submit)

    def _submit(self) -> None:
        asked, self._asked = self._asked, []
        self._woken = True  # what is answered meanwhile need not wake the loop: it is delivered here
        self._plane.submit_all(asked)
        self._deliver()

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
