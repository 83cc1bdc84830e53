# SPDX-License-Identifier: Apache-2.0
"""``pb_utils``: requests, those that a model gets and those that it makes, and the senders of many responses."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic_ns
from typing import Any, Protocol, Self

from septet.serving.process.caller import Caller
from septet.serving.process.channel import ChannelClosed
from septet.serving.process.messages import Asked, Given, pack, readable, unpack
from septet.serving.process.tensors import (
    InferenceResponse,
    PreferredMemory,
    Tensor,
    TritonError,
    TritonModelException,
)

TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2
TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1

Send = Callable[[int, InferenceResponse | None, bool], None]


class Host(Protocol):
    """The process that a model runs in."""

    caller: Caller
    loading: str
    """The model of this process, until it is initialised; then empty."""


HOST: list[Host] = []
"""The one host of this process, once it is set up."""


class InferenceRequest:
    """A request: one that ``execute`` is given, or one that a model makes to ask another model."""

    def __init__(
        self,
        inputs: Sequence[Tensor] = (),
        requested_output_names: Sequence[str] = (),
        model_name: str = "",
        model_version: int = -1,
        request_id: str = "",
        correlation_id: int | str = 0,
        flags: int = 0,
        timeout: int = 0,
        preferred_memory: PreferredMemory | None = None,
        trace: Any = None,
        parameters: Mapping[str, Any] | str | None = None,
    ) -> None:
        self._inputs = list(inputs)
        self._wanted = list(requested_output_names)
        self._model, self._version = model_name, model_version
        self._id, self._correlation, self._flags, self._timeout = request_id, correlation_id, flags, timeout
        self._memory, self._trace = preferred_memory, trace
        self._parameters = json.loads(parameters) if isinstance(parameters, str) else dict(parameters or {})
        self._number = -1
        self._send: Send | None = None
        self._sender: InferenceResponseSender | None = None

    def came(self, number: int, send: Send) -> None:
        """It came from the server, as request `number`; `send` is for its responses."""
        self._number, self._send = number, send

    @property
    def has_sender(self) -> bool:
        """Whether the model took the response sender, and so may still answer."""
        return self._sender is not None

    def returned(self) -> None:
        """What ``execute`` returned, or raised, is the answer: the response sender has nothing to say any more."""
        if self._sender is not None:
            self._sender.close()

    def inputs(self) -> list[Tensor]:
        """The input tensors."""
        return self._inputs

    def request_id(self) -> str:
        """The client's id, or empty."""
        return self._id

    def correlation_id(self) -> int | str:
        """The id of the sequence it belongs to; 0 for none."""
        return self._correlation

    def requested_output_names(self) -> list[str]:
        """The outputs that are asked for."""
        return self._wanted

    def model_name(self) -> str:
        """The model that is asked."""
        return self._model

    def flags(self) -> int:
        """Whether a sequence starts or ends."""
        return self._flags

    def set_flags(self, flags: int) -> None:
        """Say whether a sequence starts or ends."""
        self._flags = flags

    def timeout(self) -> int:
        """How long it may wait, in µs; 0 is for ever."""
        return self._timeout

    def preferred_memory(self) -> PreferredMemory | None:
        """Where the outputs should be."""
        return self._memory

    def trace(self) -> Any:
        """The trace it belongs to."""
        return self._trace

    def parameters(self) -> str:
        """The request's parameters as JSON."""
        return json.dumps(self._parameters)

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the response any more."""
        return self._number >= 0 and _is_cancelled(self._number)

    def get_response_sender(self) -> InferenceResponseSender:
        """What sends this request's responses. Raises TritonModelException for a request of one's own."""
        if self._send is None:
            raise TritonModelException("only a request that came from the server has a response sender")
        if self._sender is None:
            # not this request's method: a circle would keep both until the next collection
            self._sender = InferenceResponseSender(self._number, self._send, partial(_is_cancelled, self._number))
        return self._sender

    def exec(self, decoupled: bool = False, execution_timeout: int = -1) -> Any:
        """Ask the model and wait: its response, or with `decoupled` an iterator of all, once the first is there.

        The last of these may be empty. What takes longer than `execution_timeout`, in ns (-1 is for ever), is an
        error; so is a model that may answer many times, where one response is waited for.
        """
        deadline = None if execution_timeout < 0 else monotonic_ns() + int(execution_timeout)
        answers = self._ask(deadline, once=not decoupled)
        if not decoupled:
            return next(answers)
        answers.wait()
        return answers

    async def async_exec(self, decoupled: bool = False, execution_timeout: int = -1) -> Any:
        """The same without holding up other coroutines."""
        return await asyncio.to_thread(self.exec, decoupled, execution_timeout)

    def _ask(self, deadline: int | None, *, once: bool) -> ResponseIterator:
        parameters = dict(self._parameters)
        if self._correlation:
            parameters["sequence_id"] = self._correlation
            parameters["sequence_start"] = bool(self._flags & TRITONSERVER_REQUEST_FLAG_SEQUENCE_START)
            parameters["sequence_end"] = bool(self._flags & TRITONSERVER_REQUEST_FLAG_SEQUENCE_END)
        asked = Asked(
            -1,
            self._model,
            "" if self._version < 0 else str(self._version),
            self._id,
            [],
            self._wanted,
            parameters,
            self._timeout,
            deadline,
            once,
        )
        try:
            asked = readable(asked)
        except (TypeError, ValueError, OverflowError) as error:
            raise TritonModelException(f"the request cannot be sent: {error}") from error
        asked.inputs = [pack(each.name(), each.as_numpy(), None) for each in self._inputs]
        try:
            number, answers = HOST[0].caller.call(asked)
        except ChannelClosed as error:
            raise TritonModelException("the server is gone") from error
        return ResponseIterator(number, answers)


def _is_cancelled(number: int) -> bool:
    return HOST[0].caller.cancelled(number)


class ResponseIterator:
    """The responses to a request of a model's own, as they come. Raises TritonModelException while it waits."""

    def __init__(self, number: int, answers: Iterator[Given]) -> None:
        self._number = number
        self._answers = answers
        self._first: InferenceResponse | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> InferenceResponse:
        first, self._first = self._first, None
        return first or self._next()

    def wait(self) -> None:
        """Wait for the first one."""
        self._first = self._first or self._next()

    def cancel(self) -> None:
        """Say that nobody waits for the rest: the other model may stop, or not; what it gives still comes."""
        HOST[0].caller.cancel(self._number)

    def _next(self) -> InferenceResponse:
        try:
            return response_of(next(self._answers))
        except ChannelClosed as error:
            raise TritonModelException("the server is gone") from error


def response_of(given: Given) -> InferenceResponse:
    """Another model's answer."""
    if given.error is not None:
        return InferenceResponse(error=TritonError(given.error, given.code))
    return InferenceResponse(
        [Tensor(each.name, unpack(each, None)) for each in given.outputs], None, given.parameters
    )


class InferenceResponseSender:
    """Sends any number of responses to one request, the last with ``TRITONSERVER_RESPONSE_COMPLETE_FINAL``.

    One that the model drops before, as a thread does that an exception ends, says so: nobody waits for ever.
    """

    def __init__(self, number: int, send: Send, cancelled: Callable[[], bool]) -> None:
        self._number, self._send, self._cancelled = number, send, cancelled
        self._closed = False
        self._lock = threading.Lock()

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """Send a response, the final flag, or both. Raises TritonModelException after the final one."""
        if flags not in (0, TRITONSERVER_RESPONSE_COMPLETE_FINAL):
            raise TritonModelException(f"there is no flag {flags}")
        if response is None and not flags:
            raise TritonModelException("a response or the final flag must be sent")
        with self._lock:
            if self._closed:
                raise TritonModelException("the response sender is closed: the final flag was sent")
            self._closed = bool(flags)
            self._send(self._number, response, bool(flags))

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the responses any more."""
        return self._cancelled()

    def close(self) -> None:
        """Send nothing any more."""
        self._closed = True

    def __del__(self) -> None:
        if not self._closed:
            with suppress(ChannelClosed):
                self._send(self._number, InferenceResponse(error=_DROPPED), True)


_DROPPED = TritonError("the model dropped the request's response sender before the final response")
