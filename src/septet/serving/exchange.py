# SPDX-License-Identifier: Apache-2.0
"""One request over HTTP/1.1, and the answer it waits for."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Protocol

from septet.request import Request
from septet.serving.budget import FREE, Budget, Charge
from septet.tensor import Buffer
from septet.wire.memory import Memory

JSON, BINARY, TEXT = "application/json", "application/octet-stream", "text/plain"

REASONS = {status.value: status.phrase for status in HTTPStatus}


class Carrier(Protocol):
    """The connection that an exchange goes over."""

    budget: Budget

    def flush(self) -> None:
        """Write what is ready."""


class Exchange:
    """One request and the answer it waits for."""

    __slots__ = (
        "answered",
        "body",
        "charge",
        "chunks",
        "connection",
        "headers",
        "keep",
        "method",
        "request",
        "streaming",
        "url",
    )

    def __init__(self, connection: Carrier) -> None:
        self.connection = connection
        self.url = b""
        self.method = "GET"
        self.headers: dict[bytes, bytes] = {}
        self.body: Buffer = b""
        self.keep = True
        self.request: Request | None = None
        """What is to be cancelled when the client goes."""
        self.answered = False
        self.streaming = False
        self.chunks: list[Buffer] = []
        self.charge: Charge | None = None

    def hold(self, size: int) -> None:
        """Count the body as `size` bytes that the server holds. Raises Overloaded."""
        if size > FREE:
            if self.charge is None:
                self.charge = Charge(self.connection.budget)
            self.charge.grow(size)

    def header(self, name: bytes) -> str | None:
        """A header's value; `name` is in lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def answer(self, status: int, chunks: Sequence[Buffer], kind: str = JSON, extra: str = "") -> None:
        """Answer in whole; `extra` are more header lines. A second answer is let fall."""
        if self.answered or self.streaming:
            return
        self.chunks.append(opening(status, kind, extra, sum(map(len, chunks)), keep=self.keep))
        if self.method != "HEAD":
            self.chunks += chunks
        self.finish()

    def answer_known(self, chunks: list[Buffer]) -> None:
        """Answer with `chunks`, of which the first begins with an `opening`."""
        self.chunks = chunks
        self.finish()

    def begin_stream(self, kind: str) -> None:
        """Answer with 200 and a body in chunks of unknown number."""
        if self.answered:
            return
        self.streaming = True
        close = "" if self.keep else "Connection: close\r\n"
        self.chunks.append(
            f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{close}Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        self.connection.flush()

    def stream(self, data: bytes) -> None:
        """One chunk of a streamed body."""
        if data and not self.answered:
            self.chunks.append(b"%x\r\n%b\r\n" % (len(data), data))
            self.connection.flush()

    def end_stream(self) -> None:
        """The end of a streamed body."""
        if not self.answered:
            self.chunks.append(b"0\r\n\r\n")
            self.finish()

    def finish(self) -> None:
        """All that is to be said has been."""
        self.answered = True
        self.body = b""  # whoever still knows of the exchange needs no body any more
        self.connection.flush()


_heads = Memory()


def opening(status: int, kind: str, extra: str, size: int, *, keep: bool = True) -> bytes:
    """An answer's head, of a body of `size` bytes."""
    about = (status, kind, extra, size, keep)
    head: bytes | None = _heads.get(about)
    if head is None:
        head = _opening(*about)
        _heads.keep(about, head)
    return head


def _opening(status: int, kind: str, extra: str, size: int, keep: bool) -> bytes:
    close = "" if keep else "Connection: close\r\n"
    return (
        f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: {kind}\r\n{extra}{close}"
        f"Content-Length: {size}\r\n\r\n"
    ).encode("latin-1")
