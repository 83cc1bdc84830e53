# SPDX-License-Identifier: Apache-2.0
"""Triton's generate extension: flat JSON in, flat JSON or a stream of events out."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import numpy as np

from septet.errors import RequestInvalid, SeptetError
from septet.request import Request, Response
from septet.serving.failure import told
from septet.serving.http import JSON, Exchange
from septet.serving.mailbox import Mailbox
from septet.serving.plane import Plane
from septet.tensor import Array, objects
from septet.wire.head import check_request, dtype_of

_encode = msgspec.json.Encoder().encode
EVENTS = "text/event-stream"


class Generation:
    """One generate request on its way."""

    def __init__(self, exchange: Exchange, plane: Plane, mailbox: Mailbox, *, stream: bool) -> None:
        self._exchange = exchange
        self._plane = plane
        self._mailbox = mailbox
        self._stream = stream
        self._answers: list[Response] = []

    def read(self, model: str, version: str) -> Request:
        """The request in the body: fields named like inputs are tensors, others are parameters. May block."""
        try:
            document = msgspec.json.decode(bytes(self._exchange.body))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RequestInvalid(f"failed to parse the request JSON: {error}") from None
        if not isinstance(document, dict):
            raise RequestInvalid("failed to parse the request JSON: it is no object")
        batched = self._plane.model_config(model, version).max_batch_size > 0
        datatypes = {one["name"]: one["datatype"] for one in self._plane.model_metadata(model, version)["inputs"]}
        id_, parameters = document.pop("id", ""), document.pop("parameters", {})
        if not isinstance(id_, str) or not isinstance(parameters, dict):
            raise RequestInvalid("id is text, and parameters are an object")
        inputs = {
            name: _tensor(document.pop(name), datatype, name, batched)
            for name, datatype in datatypes.items()
            if name in document
        }
        parameters |= document
        if not all(isinstance(value, str | int | float | bool) for value in parameters.values()):
            raise RequestInvalid("a parameter is text, a number, or true or false")
        check_request((), parameters)
        return Request(model, inputs, version, id_, parameters=parameters)

    def submit(self, task: asyncio.Future[Request]) -> None:
        """On the loop, with what `read` gave."""
        try:
            request = task.result()
        except Exception as error:
            self._fail(error)
            return
        if self._exchange.answered:
            return
        self._exchange.request = request
        self._mailbox.ask(request, self._answer)

    def _answer(self, response: Response) -> None:
        if response.final:
            self._exchange.request = None
        if response.error is not None:
            self._fail(response.error)
            return
        try:
            if self._stream:
                self._event(response)
            else:
                self._collect(response)
        except SeptetError as error:
            self._fail(error)

    def _event(self, response: Response) -> None:
        if response.outputs:
            text = _encode(_flat(response))
            if not self._exchange.streaming:
                self._exchange.begin_stream(EVENTS)
            self._exchange.stream(b"data: " + text + b"\n\n")
        if response.final:
            if not self._exchange.streaming:
                self._exchange.begin_stream(EVENTS)
            self._exchange.end_stream()

    def _collect(self, response: Response) -> None:
        if response.outputs:
            self._answers.append(response)
        if response.final:
            if len(self._answers) != 1:
                raise RequestInvalid(
                    f"generate expects model to produce exactly 1 response, not {len(self._answers)}: "
                    "use generate_stream for a model that may produce another number"
                )
            self._exchange.answer(200, [_encode(_flat(self._answers[0]))], JSON)

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


def _tensor(value: Any, datatype: str, name: str, batched: bool) -> Array:
    """A scalar as [1], a list as [n]; with a batch of one before that where the model has batches."""
    flat = value if isinstance(value, list) else [value]
    shape = (1, len(flat)) if batched else (len(flat),)
    dtype = dtype_of(datatype, name)
    if dtype.kind == "O":
        if not all(isinstance(one, str) for one in flat):
            raise RequestInvalid(f"input '{name}' is text, or a list of texts")
        return objects([one.encode() for one in flat], shape)
    wanted = {"b": (bool,), "i": (int,), "u": (int,)}.get(dtype.kind, (int, float))
    if not all(isinstance(one, wanted) and (dtype.kind == "b" or not isinstance(one, bool)) for one in flat):
        raise RequestInvalid(f"input '{name}' has an element that is no {datatype}")
    try:
        return np.array(flat, dtype).reshape(shape)
    except OverflowError:
        raise RequestInvalid(f"input '{name}' has an element that does not fit {datatype}") from None


def _flat(response: Response) -> dict[str, Any]:
    found: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        found["id"] = response.id
    for name, array in response.outputs.items():
        if array.dtype.kind not in "OSU" and not np.isfinite(array.astype(np.float64)).all():
            raise RequestInvalid(f"output '{name}' has NaN or infinity, which is no JSON")
        values = [_json(one) for one in array.reshape(-1).tolist()]
        found[name] = values[0] if len(values) == 1 else values
    return found


def _json(element: Any) -> Any:
    return element.decode("utf-8", "replace") if isinstance(element, bytes) else element
