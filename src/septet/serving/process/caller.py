# SPDX-License-Identifier: Apache-2.0
"""In a model's process: questions and calls to the server that owns it."""

from __future__ import annotations

import itertools
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic_ns
from typing import TypeAlias

import msgspec

from septet.serving.process.channel import Channel, ChannelClosed
from septet.serving.process.messages import (
    Asked,
    Call,
    Called,
    Cancel,
    FromCaller,
    Given,
    Load,
    NewMetric,
    Question,
    ReadMetric,
    Reply,
    ToCaller,
    Told,
    Unload,
)

Make: TypeAlias = Callable[[int], FromCaller]


class Caller:
    """Asks from any thread; one thread, started with the first question, gives the answers out."""

    def __init__(self, sock: socket.socket) -> None:
        self._channel: Channel[FromCaller, ToCaller] = Channel(sock, ToCaller)
        self._numbers = itertools.count()
        self._waiting: dict[int, queue.SimpleQueue[ToCaller | None]] = {}
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None

    def call(self, request: Asked) -> tuple[int, Iterator[Given]]:
        """The call's number, and all responses of another model, the last an error where they take longer than the
        request's deadline.

        As in Triton the last is empty where the model ends with the final flag alone. Raises ChannelClosed, also
        while they come.
        """
        number, answers = self._ask(lambda number: Call(number, request))
        return number, self._given(number, answers, request)

    def _given(self, number: int, answers: queue.SimpleQueue[ToCaller | None], request: Asked) -> Iterator[Given]:
        over = False
        try:
            while not over:
                answer = answers.get(timeout=_left(request))
                if not isinstance(answer, Called):
                    raise ChannelClosed("the server is gone")
                over = answer.final
                yield answer.response
        except queue.Empty:
            yield Given([], {}, f"'{request.model}' did not answer within the execution timeout", "CANCELLED")
        finally:
            self._waiting.pop(number, None)
            if not over:
                self.cancel(number)

    def cancel(self, number: int) -> None:
        """Say that nobody waits for the answers to a call any more."""
        with suppress(ChannelClosed):
            self._channel.send(Cancel(number))

    def define(self, metric: NewMetric) -> str:
        """Have the server show a metric; why it does not, or empty. Raises ChannelClosed."""
        return self._error(lambda number: msgspec.structs.replace(metric, call=number))

    def load(self, model: str, config: str, files: dict[str, bytes]) -> str:
        """Have the server load a model; once it has, empty, or why it has not. Raises ChannelClosed."""
        return self._error(lambda number: Load(number, model, config, files))

    def unload(self, model: str, dependents: bool) -> str:
        """Have the server unload a model; empty, or why it does not. Raises ChannelClosed."""
        return self._error(lambda number: Unload(number, model, dependents))

    def metric(self, metric: int) -> float:
        """The value of a metric that the server shows."""
        answer = self._answer(lambda number: ReadMetric(number, metric))
        return answer.value if isinstance(answer, Told) else 0.0

    def send(self, message: FromCaller) -> None:
        """Say what needs no answer. Raises ChannelClosed."""
        self._channel.send(message)

    def cancelled(self, request: int) -> bool:
        """Whether nobody waits for that request any more."""
        return self._question(lambda number: Question(number, request))

    def ready(self, model: str, version: str) -> bool:
        """Whether another model is ready."""
        return self._question(lambda number: Question(number, model=model, version=version))

    def close(self) -> None:
        """Hang up: whoever waits for an answer is told."""
        self._channel.close()

    def _error(self, make: Make) -> str:
        answer = self._answer(make)
        if not isinstance(answer, Told):
            raise ChannelClosed("the server is gone")
        return answer.error

    def _question(self, make: Make) -> bool:
        answer = self._answer(make)
        return isinstance(answer, Reply) and answer.yes

    def _answer(self, make: Make) -> ToCaller | None:
        number, answers = self._ask(make)
        try:
            return answers.get()
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


def _left(request: Asked) -> float | None:
    """Seconds until a request's deadline."""
    return None if request.deadline is None else max(0.0, (request.deadline - monotonic_ns()) / 1e9)
