# SPDX-License-Identifier: Apache-2.0
"""Answers in the order of their requests, whichever instance is done first."""

from __future__ import annotations

import threading
from collections import deque

from septet.request import Answer, Response


class _Turn:
    __slots__ = ("answer", "ended", "kept")

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.kept: list[Response] = []
        self.ended = False


class Ordering:
    """Holds answers back until all requests that came earlier have had theirs."""

    def __init__(self) -> None:
        self._turns: deque[_Turn] = deque()
        self._lock = threading.Lock()

    def admit(self, answer: Answer) -> Answer:
        """A stand-in for `answer`, whose turn comes after all those admitted before."""
        turn = _Turn(answer)
        with self._lock:
            self._turns.append(turn)

        def give(response: Response) -> None:
            with self._lock:
                turn.kept.append(response)
                turn.ended = response.final
                self._flush()

        return give

    def _flush(self) -> None:
        # The lock is held while answering, or two threads could overtake each other between turn and answer
        while self._turns:
            first = self._turns[0]
            kept, first.kept = first.kept, []
            for response in kept:
                first.answer(response)
            if not first.ended:
                return
            self._turns.popleft()
