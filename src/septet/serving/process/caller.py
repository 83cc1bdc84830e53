# SPDX-License-Identifier: Apache-2.0
"""In a model's process: questions and calls to the server that owns it."""

from __future__ import annotations

import itertools
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TypeAlias

from septet.serving.process.channel import Channel, ChannelClosed
from septet.serving.process.messages import Asked, Call, Called, FromCaller, Given, Question, Reply, ToCaller

Make: TypeAlias = Callable[[int], FromCaller]


class Caller:
    """Asks from any thread; one thread, started with the first question, gives the answers out."""

    def __init__(self, sock: socket.socket) -> None:
        self._channel: Channel[FromCaller, ToCaller] = Channel(sock, ToCaller)
        self._numbers = itertools.count()
        self._waiting: dict[int, queue.SimpleQueue[ToCaller | None]] = {}
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None

    def call(self, request: Asked) -> Iterator[Given]:
        """All responses of another model. Raises ChannelClosed."""
        number, answers = self._ask(lambda number: Call(number, request))
        try:
            while True:
                answer = answers.get()
                if not isinstance(answer, Called):
                    raise ChannelClosed("the server is gone")
                if answer.response.outputs or answer.response.error is not None or not answer.final:
                    yield answer.response
                if answer.final:
                    return
        finally:
            self._waiting.pop(number, None)

    def cancelled(self, request: int) -> bool:
        """Whether nobody waits for that request any more."""
        return self._question(lambda number: Question(number, request))

    def ready(self, model: str, version: str) -> bool:
        """Whether another model is ready."""
        return self._question(lambda number: Question(number, model=model, version=version))

    def _question(self, make: Make) -> bool:
        number, answers = self._ask(make)
        try:
            answer = answers.get()
            return isinstance(answer, Reply) and answer.yes
        finally:
            self._waiting.pop(number, None)

    def _ask(self, make: Make) -> tuple[int, queue.SimpleQueue[ToCaller | None]]:
        answers: queue.SimpleQueue[ToCaller | None] = queue.SimpleQueue()
        number = next(self._numbers)
        with self._lock:
            self._waiting[number] = answers
            if self._reader is None:
                self._reader = threading.Thread(target=self._read, name="septet-answers", daemon=True)
                self._reader.start()
        self._channel.send(make(number))
        return number, answers

    def _read(self) -> None:
        try:
            while True:
                answer = self._channel.receive()
                if waiting := self._waiting.get(answer.call):
                    waiting.put(answer)
        except ChannelClosed:
            for waiting in list(self._waiting.values()):
                waiting.put(None)
