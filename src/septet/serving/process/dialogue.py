# SPDX-License-Identifier: Apache-2.0
"""The requests that a model's process has, from the message that asks them to their answers."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import monotonic_ns

from septet.errors import InferenceFailed, ModelFailed, SeptetError
from septet.request import Response
from septet.serving.executor import fail
from septet.serving.pending import Pending
from septet.serving.process.arena import Arena
from septet.serving.process.messages import Asked, Done, Failed, Given, Sent, pack
from septet.serving.process.responses import Responses
from septet.serving.signature import Signature
from septet.serving.statistics import Phases, Statistics

_LOG = logging.getLogger("septet.serving")


class Nonsense(Exception):
    """The process gave an answer that fits no question."""


@dataclass(slots=True)
class _Open:
    """A request that the process has; `last` is what is to be answered once it says that was all."""

    pending: Pending
    statistics: Statistics
    begin: int
    infer: int
    last: Given | None = None


class Dialogue:
    """What a process was asked and has not answered for good; large tensors lie in `inputs` and `outputs`."""

    def __init__(self, signature: Signature, inputs: Arena, outputs: Arena, *, decoupled: bool) -> None:
        self._inputs, self._outputs = inputs, outputs
        self._decoupled = decoupled
        self._responses = Responses(signature)
        self._every = list(signature.outputs)
        self._numbers = itertools.count()
        self._open: dict[int, _Open] = {}

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, batch: Sequence[Pending], statistics: Statistics, begin: int) -> list[Asked]:
        """The requests of `batch`, which began at `begin`, as they are sent."""
        self._inputs.clear()
        asked = [self._asked(pending) for pending in batch]
        infer = monotonic_ns()
        for pending, each in zip(batch, asked, strict=True):
            self._open[each.number] = _Open(pending, statistics, begin, infer)
        return asked

    def finish(self, end: Done | Failed, asked: Sequence[Asked]) -> None:
        """Answer with what ``execute`` returned. Raises Nonsense, before anybody is answered."""
        if isinstance(end, Failed):
            self.fail(asked, ModelFailed(end.text))
            return
        if len(end.responses) != len(asked):
            raise Nonsense
        output = monotonic_ns()
        good: list[_Open] = []
        for each, given in zip(asked, end.responses, strict=True):
            if given is None or each.number not in self._open:
                continue
            opened = self._open.pop(each.number)
            if self._answer(opened, given, self._outputs):
                good.append(opened)
        if good:
            first = good[0]
            phases = Phases(first.begin, first.infer, output, monotonic_ns())
            first.statistics.executed([opened.pending for opened in good], phases)

    def _answer(self, opened: _Open, given: Given, arena: Arena | None) -> bool:
        """Answer a request for good; whether with success."""
        pending = opened.pending
        try:
            outputs = self._responses.outputs(given, pending, arena)
        except Exception as error:
            fail([pending], _told(error), opened.statistics)
            return False
        if given.parameters:
            pending.send(
                Response(pending.request.model, pending.version, pending.request.id, outputs, given.parameters)
            )
        else:
            pending.succeed(outputs)
        return True

    def take(self, sent: Sent) -> None:
        """Answer with one of several responses."""
        opened = self._open.get(sent.number)
        if opened is None:
            return
        if not self._decoupled:
            opened.last = opened.last or sent.response  # a second one is none that anybody waits for
            if sent.final:
                self._open.pop(sent.number)
                none = Given([], {}, "the model sent no response")
                if self._answer(opened, opened.last or none, None):
                    self._count(opened)
            return
        self._stream(opened, sent)
        if sent.final:
            self._open.pop(sent.number)

    def _stream(self, opened: _Open, sent: Sent) -> None:
        pending, given = opened.pending, sent.response
        response = Response(pending.request.model, pending.version, pending.request.id, final=sent.final)
        try:
            if given is not None:
                response.outputs = self._responses.outputs(given, pending, None)
                response.parameters = dict(given.parameters)
        except Exception as error:
            response.error = _told(error)
            opened.statistics.failed(pending, response.error)
        pending.send(response)
        if sent.final and response.error is None:
            self._count(opened)

    def _count(self, opened: _Open) -> None:
        now = monotonic_ns()
        opened.statistics.executed([opened.pending], Phases(opened.begin, opened.infer, now, now))

    def fail(self, asked: Iterable[Asked], error: SeptetError) -> None:
        """Answer what is open of `asked` with `error`."""
        self._fail([each.number for each in asked], error)

    def fail_all(self, error: SeptetError) -> None:
        """Answer all that is open with `error`."""
        self._fail(list(self._open), error)

    def forget(self, asked: Iterable[Asked]) -> None:
        """Leave whoever is open of `asked` to the caller."""
        for each in asked:
            self._open.pop(each.number, None)

    def forget_all(self) -> None:
        """The same for all that is open."""
        self._open.clear()

    def has(self, asked: Iterable[Asked]) -> bool:
        """Whether any of `asked` is open."""
        return any(each.number in self._open for each in asked)

    def cancelled(self, number: int) -> bool:
        """Whether nobody waits for the answer to a request any more."""
        opened = self._open.get(number)
        return opened is None or opened.pending.request.cancelled

    def _fail(self, numbers: Iterable[int], error: SeptetError) -> None:
        for number in numbers:
            if (opened := self._open.pop(number, None)) is not None:
                fail([opened.pending], error, opened.statistics)

    def _asked(self, pending: Pending) -> Asked:
        request = pending.request
        timeout = request.parameters.get("timeout", 0)
        return Asked(
            next(self._numbers),
            request.model,
            pending.version,
            request.id,
            [pack(name, array, self._inputs) for name, array in request.inputs.items()],
            [wanted.name for wanted in request.wanted] if request.wanted else self._every,
            request.parameters,
            timeout if isinstance(timeout, int) else 0,
        )


def _told(error: Exception) -> SeptetError:
    """What a client is told of a response that cannot be read; for want of memory, for one."""
    if isinstance(error, SeptetError):
        return error
    _LOG.error("a response was not read", exc_info=error)
    return InferenceFailed(f"the model failed: {type(error).__name__}")
