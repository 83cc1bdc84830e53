# SPDX-License-Identifier: Apache-2.0
"""Triton's generate extension: flat JSON in, flat JSON or a stream of events out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np

from septet.errors import RequestInvalid
from septet.request import Request, Response
from septet.serving.exchange import JSON, Exchange
from septet.serving.failure import told
from septet.serving.lane import Lane, Step
from septet.serving.mailbox import Mailbox
from septet.serving.plane import Plane
from septet.tensor import KSERVE_NAMES, Array, Buffer
from septet.wire.head import AT_ONCE, LARGEST_HEAD, MOST_PARAMETERS, Draft, Head, Input, check_request, dtype_of
from septet.wire.lists import BINARY_ONLY, count_in, length_of, read_list, write_elements

_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode
_parameter = msgspec.json.Decoder(str | bool | int | float).decode
_parameters = msgspec.json.Decoder(dict[str, str | bool | int | float]).decode
Decoded = TypeVar("Decoded")
EVENTS = "text/event-stream"


class Generation:
    """One generate request on its way."""

    def __init__(
        self, exchange: Exchange, plane: Plane, mailbox: Mailbox, executor: Executor, *, stream: bool
    ) -> None:
        self._exchange = exchange
        self._plane = plane
        self._mailbox = mailbox
        self._executor = executor
        self._stream = stream
        self._answers: list[Response] = []
        self._lane: Lane | None = None

    def read(self, model: str, version: str) -> Draft:
        """The request in the body: fields named like inputs are tensors, others are parameters. May block."""
        text = bytes(self._exchange.body)
        if len(text) > LARGEST_HEAD and count_in(text, b":") > MOST_PARAMETERS:
            raise RequestInvalid(f"failed to parse the request JSON: more than {MOST_PARAMETERS} fields")
        document = _decoded(_fields, text)
        id_ = _decoded(_text, document.pop("id", b'""'))
        parameters = _decoded(_parameters, document.pop("parameters", b"{}"))
        inputs = [
            _tensor(document.pop(one["name"]), one["datatype"], one["name"], one["shape"])
            for one in self._plane.model_metadata(model, version)["inputs"]
            if one["name"] in document
        ]
        parameters |= {name: _decoded(_parameter, value) for name, value in document.items()}
        check_request((), parameters)
        return Draft(Head(model, version, id_, inputs, (), parameters), [])

    def submit(self, exchange: Exchange, request: Request) -> None:
        """On the loop, with the request that was read."""
        exchange.request = request
        exchange.body = b""
        self._mailbox.ask(request, self._answer)

    def _answer(self, response: Response) -> None:
        """On the loop, with one of the model's answers."""
        if response.final:
            self._exchange.request = None
        if self._exchange.answered:
            return
        try:
            if self._stream:
                self._write(response, self._event)
            else:
                self._collect(response)
        except Exception as error:
            self._fail(error)

    def _write(self, response: Response, then: Callable[[bool, bytes], None]) -> None:
        """Write an answer, a long one beside the loop, and send it as `then` does, in its turn."""
        long = sum(array.nbytes for array in response.outputs.values()) > AT_ONCE
        step = Step(partial(_flat, response), partial(then, response.final), long)
        if long and self._lane is None:
            self._lane = Lane(asyncio.get_running_loop(), self._executor, self._fail, lambda: None)
        if self._lane is None:
            step.then(step.work())
        else:
            self._lane.run(step)

    def _event(self, final: bool, text: bytes) -> None:
        if (text or final) and not self._exchange.streaming:
            self._exchange.begin_stream(EVENTS)
        if text:
            self._exchange.stream(b"data: " + text + b"\n\n")
        if final:
            self._exchange.end_stream()

    def _collect(self, response: Response) -> None:
        if response.error is not None:
            raise response.error
        if response.outputs:
            self._answers.append(response)
        if not response.final:
            return
        answers, self._answers = self._answers, []
        if len(answers) != 1:
            raise RequestInvalid(
                f"generate expects model to produce exactly 1 response, not {len(answers)}: "
                "use generate_stream for a model that may produce another number"
            )
        self._write(answers[0], self._whole)

    def _whole(self, final: bool, text: bytes) -> None:
        self._exchange.answer(200, [text], JSON)

    def _fail(self, error: BaseException) -> None:
        if self._exchange.request is not None:
            self._exchange.request.cancel()
            self._exchange.request = None
        seen = told(error)
        text = _encode({"error": str(seen)})
        if self._exchange.streaming:
            self._exchange.stream(b"data: " + text + b"\n\n")
            self._exchange.end_stream()
        else:
            self._exchange.answer(seen.status.http, [text])


def _decoded(decode: Callable[[Buffer], Decoded], text: Buffer) -> Decoded:
    try:
        return decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestInvalid(f"failed to parse the request JSON: {error}") from None


def _tensor(text: msgspec.Raw, datatype: str, name: str, dims: Sequence[int]) -> Input:
    """A scalar, or a list of scalars, as an input of `dims`, which are less than 0 where they are free."""
    length, dtype = length_of(text), dtype_of(datatype, name)
    count = 1 if length is None else length
    shape = _filled(dims, count, name)
    return Input(
        name,
        dtype,
        shape,
        elements=partial(_elements, text, dtype, shape, () if length is None else (count,), name),
    )


def _filled(dims: Sequence[int], count: int, name: str) -> tuple[int, ...]:
    """The shape of `count` elements: as in Triton the last free dimension takes what is left, others are 1."""
    free = [place for place, dim in enumerate(dims) if dim < 0]
    left, over = divmod(count, math.prod(dim for dim in dims if dim > 0))
    if over or (left != 1 and not free):
        raise RequestInvalid(f"input '{name}': {count} elements do not make a shape of {list(dims)}")
    shape = [max(dim, 1) for dim in dims]
    if free:
        shape[free[-1]] = left
    return tuple(shape)


def _elements(
    text: msgspec.Raw, dtype: np.dtype[Any], shape: tuple[int, ...], said: tuple[int, ...], name: str
) -> Array:
    """The tensor of `shape` in `text`, where it has the shape `said`."""
    wide = np.dtype(np.float32) if KSERVE_NAMES[dtype] in BINARY_ONLY else dtype
    return read_list(text, wide, said, name).astype(dtype, copy=False).reshape(shape)


def _flat(response: Response) -> bytes:
    """An answer as one JSON object; empty where it has no outputs. Raises the error that it stands for."""
    if response.error is not None:
        raise response.error
    if not response.outputs:
        return b""
    about = {"model_name": response.model, "model_version": response.version}
    if response.id:
        about["id"] = response.id
    fields = [_encode(about)[1:-1]]
    for name, array in response.outputs.items():
        if KSERVE_NAMES[array.dtype] in BINARY_ONLY:
            array = array.astype(np.float32)
        elements = write_elements(name, array, "replace")
        fields.append(b"%b:%b" % (_encode(name), elements if array.size == 1 else b"[%b]" % elements))
    return b"{%b}" % b",".join(fields)
