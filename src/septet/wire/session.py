# SPDX-License-Identifier: Apache-2.0
"""The connections that carry calls: HTTP/1.1 and gRPC, without sockets."""

from __future__ import annotations

import math
from typing import Any, Protocol

import httptools
import msgspec

from septet.errors import Refused, RequestInvalid, Status
from septet.stubs import SERVICE
from septet.tensor import Buffer
from septet.wire import json
from septet.wire.call import Answered, Call
from septet.wire.events import ConnectionEnded, DataReceived, Event, GoingAway, HeadersReceived, StreamEnded
from septet.wire.frames import Code
from septet.wire.headers import write_headers
from septet.wire.http2 import Connection
from septet.wire.messages import MessageReader, enveloped, error_text

LARGEST = (1 << 31) - 1
"""A client takes what it asked for, however large."""

HTTP_STATUSES = {
    status.http: status
    for status in (
        Status.INVALID_ARG, Status.NOT_FOUND, Status.UNAVAILABLE, Status.UNSUPPORTED, Status.FORBIDDEN,
        Status.TOO_LARGE, Status.DEADLINE, Status.INTERNAL,
    )
}  # fmt: skip
GRPC_STATUSES = {str(status.grpc): status for status in Status}


class Session(Protocol):
    """One connection as a machine over bytes."""

    @property
    def room(self) -> int:
        """How many more calls it takes now."""

    @property
    def usable(self) -> bool:
        """Whether it takes calls at all."""

    def begin(self, call: Call[Any]) -> None:
        """Send `call`."""

    def receive(self, data: bytes) -> list[Call[Any]]:
        """Take bytes; the calls that are done now."""

    def take(self) -> list[Buffer]:
        """What is to be sent."""

    def forget(self, call: Call[Any]) -> None:
        """Nobody waits for `call` any more."""

    def end(self, failure: Exception) -> list[Call[Any]]:
        """The connection is gone: what was under way has failed."""


class HttpSession:
    """HTTP/1.1: one call at a time."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._out: list[Buffer] = []
        self._call: Call[Any] | None = None
        self._done: list[Call[Any]] = []
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._length: bytes | None = None
        self._usable = True

    @property
    def room(self) -> int:
        return 1 if self._call is None and self._usable else 0

    @property
    def usable(self) -> bool:
        return self._usable

    def begin(self, call: Call[Any]) -> None:
        self._call = call
        size = sum(map(len, call.chunks))
        length = "" if call.length is None else f"Inference-Header-Content-Length: {call.length}\r\n"
        body = f"Content-Length: {size}\r\n" if call.verb == "POST" else ""
        head = f"{call.verb} {call.target} HTTP/1.1\r\nHost: {self._address}\r\n{length}{body}\r\n"
        self._out += head.encode(), *call.chunks

    def receive(self, data: bytes) -> list[Call[Any]]:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._usable = False
            if error.__context__ is not None and not isinstance(error.__context__, Exception):
                raise error.__context__ from None  # an interrupt, which the parser took for a fault of ours
            return self._ended() + self.end(RequestInvalid(f"{self._address} does not speak HTTP/1.1"))
        return self._ended()

    def _ended(self) -> list[Call[Any]]:
        done, self._done = self._done, []
        return done

    def on_message_begin(self) -> None:
        self._parts, self._length = [], None

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"inference-header-content-length":
            self._length = value

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return
        call = self._call
        self._usable = self._parser.should_keep_alive()
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if call is None:
            self._usable = False
            return
        if status == 200:
            call.answer = Answered(body, json.header_length(self._length, len(body)))
        else:
            call.failure = Refused(_words(body), HTTP_STATUSES.get(status, Status.UNKNOWN))
        self._call = None
        self._done.append(call)

    def take(self) -> list[Buffer]:
        out, self._out = self._out, []
        return out

    def forget(self, call: Call[Any]) -> None:
        """HTTP/1.1 knows no way to take a request back, but to hang up."""
        if self._call is call:
            self._usable = False

    def end(self, failure: Exception) -> list[Call[Any]]:
        self._usable = False
        call, self._call = self._call, None
        if call is None:
            return []
        call.failure, call.lost = failure, True
        return [call]


def _words(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body)["error"])
    except (msgspec.MsgspecError, KeyError, TypeError, UnicodeDecodeError):
        return body[:200].decode("utf-8", "replace") or "refused without a word"


class GrpcSession:
    """gRPC: many calls side by side."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._http = Connection(client=True)
        self._calls: dict[int, Call[Any]] = {}
        self._readers: dict[int, MessageReader] = {}
        self._heads: dict[str, bytes] = {}
        self._going = False

    @property
    def room(self) -> int:
        return max(0, min(self._http.peer_streams, 1024) - len(self._calls)) if self.usable else 0

    @property
    def usable(self) -> bool:
        return not self._going and not self._http.ended

    def begin(self, call: Call[Any]) -> None:
        number = self._http.request(self._head(call))
        self._calls[number] = call
        self._readers[number] = MessageReader(LARGEST)
        self._http.send_data(number, enveloped(call.chunks or [b""]), end=True)

    def _head(self, call: Call[Any]) -> bytes:
        block = self._heads.get(call.target)
        if block is None:
            block = self._heads[call.target] = write_headers(
                [
                    (":method", "POST"), (":scheme", "http"), (":path", f"/{SERVICE}/{call.target}"),
                    (":authority", self._address), ("content-type", "application/grpc"), ("te", "trailers"),
                ]
            )  # fmt: skip
        if call.timeout is None:
            return block
        return block + write_headers([("grpc-timeout", _timeout(call.timeout))])

    def receive(self, data: bytes) -> list[Call[Any]]:
        done: list[Call[Any]] = []
        for event in self._http.receive(data):
            self._take(event, done)
        return done

    def _take(self, event: Event, done: list[Call[Any]]) -> None:
        if isinstance(event, DataReceived):
            self._http.acknowledge(event.stream, len(event.data))
            call = self._calls.get(event.stream)
            if call is not None:
                for _, message in self._readers[event.stream].feed(event.data):
                    call.answer = Answered(message, len(message))
        elif isinstance(event, HeadersReceived):
            if event.ended:
                self._finish(event.stream, dict(event.headers), done)
        elif isinstance(event, StreamEnded):
            call = self._calls.get(event.stream)
            if call is not None:
                call.unbegun = event.code == Code.REFUSED_STREAM
            self._fail(event.stream, Refused(f"the stream was reset: code {event.code}", Status.UNAVAILABLE), done)
        elif isinstance(event, GoingAway):
            self._going = True
        elif isinstance(event, ConnectionEnded):
            done += self.end(RequestInvalid(f"{self._address} does not speak HTTP/2: {event.why}"))

    def _finish(self, number: int, fields: dict[str, str], done: list[Call[Any]]) -> None:
        code = fields.get("grpc-status", "2")
        call = self._calls.get(number)
        if code == "0" and call is not None and call.answer is not None:
            del self._calls[number], self._readers[number]
            done.append(call)
            return
        words = (
            error_text(fields.get("grpc-message", "")) or f"refused without a word, HTTP {fields.get(':status')}"
        )
        status = GRPC_STATUSES.get(code, Status.UNKNOWN)
        late = status is Status.DEADLINE and call is not None and call.timeout is not None
        self._fail(number, TimeoutError() if late else Refused(words, status), done)

    def _fail(self, number: int, failure: Exception, done: list[Call[Any]]) -> None:
        call = self._calls.pop(number, None)
        self._readers.pop(number, None)
        if call is not None:
            call.answer, call.failure = None, failure
            done.append(call)

    def take(self) -> list[Buffer]:
        return self._http.take()

    def forget(self, call: Call[Any]) -> None:
        for number, one in self._calls.items():
            if one is call:
                self._http.reset(number)
                del self._calls[number], self._readers[number]
                return

    def end(self, failure: Exception) -> list[Call[Any]]:
        self._going = True
        done: list[Call[Any]] = []
        for number in list(self._calls):
            self._calls[number].lost = True
            self._fail(number, failure, done)
        return done


def _timeout(seconds: float) -> str:
    """`seconds`, up to a million, as gRPC writes them: in at most eight digits and a unit."""
    return f"{math.ceil(seconds * 1000)}m" if seconds < 10_000 else f"{math.ceil(seconds)}S"
