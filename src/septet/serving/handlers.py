# SPDX-License-Identifier: Apache-2.0
"""Whatever is asked of a server over HTTP but inference: documents, one handler for each route and method."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import msgspec

from septet.errors import RequestInvalid, SeptetError, TooLarge, Unsupported
from septet.serving.plane import Document, Plane
from septet.serving.rpc import statistics_of
from septet.tensor import Buffer
from septet.wire.configuration import config_document

LARGEST_DOCUMENT = 1 << 20
"""Bytes of a request that is no inference; files that a load brings with it do not count."""

MOST_QUOTES = 64 << 10
"""In a longer document: what has so many is no files."""


class _Parameters(msgspec.Struct):
    """The parameters of a load, none of them decoded yet."""

    parameters: dict[str, msgspec.Raw] = {}


encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_parameters_alone = msgspec.json.Decoder(_Parameters).decode

Names = dict[str, str]
Handler = Callable[[Plane, Names, Any], Any]
"""What answers a request that is no inference: plane, names in the path, JSON body -> JSON document or None."""


class NotYet(SeptetError):
    """Not live or not ready: an answer with a document of its own, and no error text."""

    def __init__(self, document: dict[str, bool], http: int = 400) -> None:
        super().__init__("not ready")
        self.document = document
        self.http = http


def require_brief(handler: Handler, body: Buffer) -> None:
    """Raise TooLarge for a document that is none; a load may bring files with it."""
    if len(body) > LARGEST_DOCUMENT and handler is not load:
        raise TooLarge(f"the document has {len(body)} bytes: at most {LARGEST_DOCUMENT} are taken")


def handled(handler: Handler, plane: Plane, names: Names, body: Buffer) -> bytes:
    """The answer's body; on a thread of its own, since it may take long."""
    document: Any = {}
    if len(body) > LARGEST_DOCUMENT:
        document = _with_files(body)
    elif (text := bytes(body)).strip():
        document = _parsed(_decode, text)
        if not isinstance(document, dict):
            raise RequestInvalid("failed to parse the request JSON: it is no object")
    answer = handler(plane, names, document)
    return b"" if answer is None else encode(answer)


def _with_files(body: Buffer) -> Document:
    """The document of a load that brings files with it: apart from these it is as small as any other."""
    text = bytes(body)
    parts = _parsed(_parameters_alone, text).parameters if text.count(b'"') <= MOST_QUOTES else {}
    files = {name: value for name, value in parts.items() if name.startswith("file:")}
    if len(text) - sum(len(value) for value in files.values()) > LARGEST_DOCUMENT:
        raise TooLarge(f"beside files the document has more than {LARGEST_DOCUMENT} bytes")
    return {"parameters": {name: _parsed(_decode, value) for name, value in parts.items()}}


def _parsed(decode: Callable[[Buffer], Any], text: Buffer) -> Any:
    try:
        return decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestInvalid(f"failed to parse the request JSON: {error}") from None


# Handlers, one a route and method


def live(plane: Plane, names: Names, body: Any) -> Any:
    """Whether the server runs."""
    return _health({"live": plane.live()})


def ready(plane: Plane, names: Names, body: Any) -> Any:
    """Whether all models can answer."""
    return _health({"live": True, "ready": plane.ready()})


def _health(document: dict[str, bool]) -> Any:
    if not all(document.values()):
        raise NotYet(document)
    return document


def model_ready(plane: Plane, names: Names, body: Any) -> Any:
    """Whether one model can."""
    try:
        there = plane.model_ready(names["model"], names["version"])
    except SeptetError as error:
        raise RequestInvalid(str(error)) from None  # Triton answers 400 here, and 404 for metadata
    return _health({"name": names["model"], "ready": there})  # type: ignore[dict-item]


def server(plane: Plane, names: Names, body: Any) -> Any:
    """What the server says of itself."""
    return plane.server_metadata()


def metadata(plane: Plane, names: Names, body: Any) -> Any:
    """What a model takes and gives."""
    return plane.model_metadata(names["model"], names["version"])


def config(plane: Plane, names: Names, body: Any) -> Any:
    """A model's configuration."""
    return config_document(plane.model_config(names["model"], names["version"]))


def statistics(plane: Plane, names: Names, body: Any) -> Any:
    """Of a model, or of all."""
    return {"model_stats": statistics_of(plane, names.get("model", ""), names.get("version", ""))}


def index(plane: Plane, names: Names, body: Any) -> Any:
    """The models that there are."""
    return plane.index(body.get("ready") is True)


def load(plane: Plane, names: Names, body: Any) -> Any:
    """Load a model, or load it anew."""
    parameters = _parameters(body)
    for name, value in parameters.items():
        if name.startswith("file:"):
            try:
                parameters[name] = base64.b64decode(str(value), validate=True)
            except (binascii.Error, ValueError):
                raise RequestInvalid(f"parameter '{name[:64]}' is no base64") from None
    plane.load(names["model"], parameters)


def unload(plane: Plane, names: Names, body: Any) -> Any:
    """Let a model end."""
    plane.unload(names["model"], _parameters(body).get("unload_dependents") is True)


def _parameters(body: Any) -> dict[str, Any]:
    parameters = body.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestInvalid("parameters are an object")
    return dict(parameters)


def region_status(plane: Plane, names: Names, body: Any) -> Any:
    """The regions of shared memory that are known."""
    return [
        {"name": one.name, "key": one.key, "offset": one.offset, "byte_size": one.size}
        for one in plane.regions.status(names.get("region", ""))
    ]


def register(plane: Plane, names: Names, body: Any) -> Any:
    """Take up a region of shared memory."""
    key, offset, size = body.get("key"), body.get("offset", 0), body.get("byte_size")
    if not isinstance(key, str) or type(offset) is not int or type(size) is not int:
        raise RequestInvalid("a region has a key, an offset and a byte_size")
    plane.regions.register(names["region"], key, offset, size)


def unregister(plane: Plane, names: Names, body: Any) -> Any:
    """Forget one, or all."""
    plane.regions.unregister(names.get("region", ""))


def no_device(plane: Plane, names: Names, body: Any) -> Any:
    """A region of a GPU."""
    raise Unsupported("shared memory of a GPU needs a GPU")


def no_regions(plane: Plane, names: Names, body: Any) -> Any:
    """The regions of a GPU: none."""
    return []


def nothing(plane: Plane, names: Names, body: Any) -> Any:
    """Forget regions of a GPU, of which there are none."""
    return None


def trace(plane: Plane, names: Names, body: Any) -> Any:
    """The trace settings."""
    return plane.trace_settings(names.get("model", ""), None)


def set_trace(plane: Plane, names: Names, body: Any) -> Any:
    """Change them."""
    updates: dict[str, list[str] | None] = {}
    for name, value in body.items():
        values = value if isinstance(value, list) else [value]
        if value is not None and not all(isinstance(one, str | int) for one in values):
            raise RequestInvalid(f"trace setting '{name[:64]}' is text, or a list of texts")
        updates[name] = None if value is None else [str(one) for one in values]
    return plane.trace_settings(names.get("model", ""), updates)


def logging(plane: Plane, names: Names, body: Any) -> Any:
    """The log settings."""
    return plane.log_settings(None)


def set_logging(plane: Plane, names: Names, body: Any) -> Any:
    """Change them."""
    return plane.log_settings(body)


QUICK = {live, ready, model_ready}
"""Answered at once on the loop: however busy the threads are with loading, health is told."""

LOADS = {load, unload}
"""What takes as long as a model does to load or to end."""
