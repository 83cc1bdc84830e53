# SPDX-License-Identifier: Apache-2.0
"""What a client asks of a server, in the words of HTTP and of gRPC."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from septet.request import Request, Response
from septet.stubs import service_pb2
from septet.tensor import Buffer
from septet.wire import json, proto
from septet.wire.configuration import config_document
from septet.wire.head import Placed
from septet.wire.shm import Regions

T = TypeVar("T")
Document = dict[str, Any]


@dataclass(slots=True)
class Answered:
    """An answer as it came: for HTTP the length of its JSON part too."""

    body: Buffer
    length: int


@dataclass(slots=True, eq=False)
class Call(Generic[T]):
    """One thing asked: `target` and `chunks` go over the wire, `decode` makes the result of the answer.

    It may be sent a second time where the server cannot have begun it, and where it is `idempotent` and its
    connection was lost (RFC 9110, section 9.2.2; gRPC's transparent retries).
    """

    verb: str
    target: str
    chunks: Sequence[Buffer]
    decode: Callable[[Answered], T]
    length: int | None = None
    idempotent: bool = True
    """Whether asking twice comes to the same as asking once."""
    timeout: float | None = None
    """Seconds, which a server that is told of them keeps, too."""
    answer: Answered | None = None
    failure: Exception | None = None
    unbegun: bool = False
    """Whether the server said that it had not begun the call when it let it fall."""
    lost: bool = False
    """Whether the connection ended under it."""

    @property
    def repeatable(self) -> bool:
        """Whether it failed so that it may be sent once more."""
        return self.unbegun or (self.lost and self.idempotent)

    def anew(self) -> Call[T]:
        """The same call, as if it had not been sent."""
        self.answer, self.failure, self.unbegun, self.lost = None, None, False, False
        return self

    @property
    def done(self) -> bool:
        """Whether an answer has come, or never will."""
        return self.answer is not None or self.failure is not None

    def result(self) -> T:
        """What was asked for; raises `Refused` with the server's words, TimeoutError where it kept `timeout`."""
        if self.failure is not None:
            raise self.failure
        assert self.answer is not None
        return self.decode(self.answer)


class Asks(Protocol):
    """What can be asked, in the words of one protocol."""

    def infer(self, request: Request, placed: Mapping[str, Placed], regions: Regions) -> Call[Response]:
        """An inference."""

    def live(self) -> Call[bool]:
        """Whether the server runs."""

    def ready(self, model: str) -> Call[bool]:
        """Whether the server, or a model, can answer."""

    def metadata(self, model: str) -> Call[Document]:
        """What the server says of itself, or of a model."""

    def config(self, model: str) -> Call[Document]:
        """A model's configuration."""

    def statistics(self, model: str) -> Call[Document]:
        """Triton's statistics."""

    def register(self, name: str, key: str, offset: int, size: int) -> Call[None]:
        """Take up a region of shared memory."""

    def unregister(self, name: str) -> Call[None]:
        """Forget one."""


class HttpAsks:
    """KServe v2 over HTTP."""

    def infer(self, request: Request, placed: Mapping[str, Placed], regions: Regions) -> Call[Response]:
        body = json.write_request(request, placed)
        reader = json.ResponseReader(regions, request.wanted)
        version = f"/versions/{quote(request.version, safe='')}" if request.version else ""
        path = f"/v2/models/{quote(request.model, safe='')}{version}/infer"

        def read(got: Answered) -> Response:
            return reader.read(got.body, got.length)

        return Call("POST", path, body.chunks, read, body.length, idempotent=False)

    def live(self) -> Call[bool]:
        return Call("GET", "/v2/health/live", (), _true)

    def ready(self, model: str) -> Call[bool]:
        return Call("GET", f"{_model(model)}/ready" if model else "/v2/health/ready", (), _true)

    def metadata(self, model: str) -> Call[Document]:
        return Call("GET", _model(model) if model else "/v2", (), _document)

    def config(self, model: str) -> Call[Document]:
        return Call("GET", f"{_model(model)}/config", (), _document)

    def statistics(self, model: str) -> Call[Document]:
        return Call("GET", f"{_model(model) if model else '/v2/models'}/stats", (), _document)

    def register(self, name: str, key: str, offset: int, size: int) -> Call[None]:
        body = msgspec.json.encode({"key": key, "offset": offset, "byte_size": size})
        path = f"/v2/systemsharedmemory/region/{quote(name, safe='')}/register"
        return Call("POST", path, (body,), _none, idempotent=False)

    def unregister(self, name: str) -> Call[None]:
        return Call("POST", f"/v2/systemsharedmemory/region/{quote(name, safe='')}/unregister", (), _none)


def _model(name: str) -> str:
    return f"/v2/models/{quote(name, safe='')}"


def _true(got: Answered) -> bool:
    return True


def _none(got: Answered) -> None:
    return None


def _document(got: Answered) -> Document:
    found: Document = msgspec.json.decode(got.body)
    return found


class GrpcAsks:
    """KServe v2 over gRPC."""

    def infer(self, request: Request, placed: Mapping[str, Placed], regions: Regions) -> Call[Response]:
        chunks = proto.write_request(request, placed)

        def read(got: Answered) -> Response:
            return proto.read_response(got.body, regions, request.wanted)

        return Call("POST", "ModelInfer", chunks, read, idempotent=False)

    def live(self) -> Call[bool]:
        return self._call("ServerLive", lambda found: bool(found.live))

    def ready(self, model: str) -> Call[bool]:
        if model:
            return self._call("ModelReady", lambda found: bool(found.ready), name=model)
        return self._call("ServerReady", lambda found: bool(found.ready))

    def metadata(self, model: str) -> Call[Document]:
        if model:
            return self._call("ModelMetadata", config_document, name=model)
        return self._call("ServerMetadata", config_document)

    def config(self, model: str) -> Call[Document]:
        return self._call("ModelConfig", lambda found: config_document(found.config), name=model)

    def statistics(self, model: str) -> Call[Document]:
        return self._call("ModelStatistics", config_document, name=model)

    def register(self, name: str, key: str, offset: int, size: int) -> Call[None]:
        about = {"name": name, "key": key, "offset": offset, "byte_size": size}
        call = self._call("SystemSharedMemoryRegister", lambda found: None, **about)
        call.idempotent = False
        return call

    def unregister(self, name: str) -> Call[None]:
        return self._call("SystemSharedMemoryUnregister", lambda found: None, name=name)

    def _call(self, method: str, read: Callable[[Any], T], **fields: object) -> Call[T]:
        message = getattr(service_pb2, f"{method}Request")(**fields).SerializeToString()
        answer = getattr(service_pb2, f"{method}Response")
        return Call("POST", method, [message], lambda got: read(answer.FromString(bytes(got.body))))
