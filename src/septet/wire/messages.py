# SPDX-License-Identifier: Apache-2.0
"""gRPC over HTTP/2 (its own specification: PROTOCOL-HTTP2.md): messages in DATA frames, statuses, timeouts."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from urllib.parse import quote, unquote

import numpy as np

from septet.errors import RequestInvalid, TooLarge
from septet.tensor import Buffer
from septet.wire.headers import write_headers

PREFIX = struct.Struct(">BL")
"""Compressed or not, and the length, before each message."""

Message = tuple[bool, memoryview]
"""Whether it is compressed, and its bytes."""

RESPONSE_HEAD = write_headers([(":status", "200"), ("content-type", "application/grpc")])
OK_TAIL = write_headers([("grpc-status", "0")])

LONGEST_TEXT = 4096
PLAIN = " !#$&'()*+,/:;=?@[]~"
"""Beside letters, digits and ``_.-``: what a grpc-message has unencoded."""

UNITS = {"H": 3_600_000_000_000, "M": 60_000_000_000, "S": 1_000_000_000, "m": 1_000_000, "u": 1_000, "n": 1}


class MessageReader:
    """Puts the messages of one stream together again."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._prefix = b""
        self._message: memoryview | None = None
        self._filled = 0
        self._compressed = False

    def feed(self, data: memoryview) -> list[Message]:
        """The messages that `data` completes; raises `TooLarge` once a longer one is announced.

        A message that is the whole of `data` is a view of it, unless others may write there.
        """
        if self.empty and len(data) >= PREFIX.size:
            compressed, length = PREFIX.unpack_from(data)
            if length + PREFIX.size == len(data):
                self._check(compressed, length)
                message = data[PREFIX.size :]
                return [(compressed == 1, message if message.readonly else memoryview(bytes(message)))]
        found: list[Message] = []
        while data:
            if self._message is None:
                data = self._begin(data)
            if self._message is None:
                break
            size = min(len(self._message) - self._filled, len(data))
            self._message[self._filled : self._filled + size] = data[:size]
            self._filled += size
            data = data[size:]
            if self._filled == len(self._message):
                found.append((self._compressed, self._message))
                self._message, self._prefix = None, b""
        return found

    def _begin(self, data: memoryview) -> memoryview:
        """Take what is missing of a prefix; once that is whole, there is a message to be filled."""
        missing = PREFIX.size - len(self._prefix)
        self._prefix += data[:missing]
        if len(self._prefix) == PREFIX.size:
            compressed, length = PREFIX.unpack(self._prefix)
            self._check(compressed, length)
            self._compressed, self._filled = compressed == 1, 0
            self._message = np.empty(length, np.uint8).data  # pages that nobody writes cost nothing
        return data[missing:]

    def _check(self, compressed: int, length: int) -> None:
        if compressed > 1:
            raise RequestInvalid("not a gRPC message")
        if length > self._limit:
            raise TooLarge(f"the message has {length} bytes: at most {self._limit} are taken")

    @property
    def filled(self) -> int:
        """Bytes of the message that has been begun."""
        return 0 if self._message is None else self._filled

    @property
    def empty(self) -> bool:
        """Whether no message has been begun."""
        return not self._prefix


def enveloped(chunks: Sequence[Buffer], compressed: bool = False) -> list[Buffer]:
    """A message of `chunks` with its prefix; what is small is joined."""
    size = sum(map(len, chunks))
    prefix = PREFIX.pack(compressed, size)
    if size <= 4096:
        return [b"".join((prefix, *chunks))]
    return [prefix + bytes(chunks[0]) if len(chunks[0]) <= 4096 else prefix, *chunks[len(chunks[0]) <= 4096 :]]


def error_tail(status: int, text: str, *, begun: bool) -> bytes:
    """The trailers of a call that failed; of one that has not `begun` to answer, they are its only headers."""
    fields = [
        ("grpc-status", str(status)),
        ("grpc-message", quote(text[:LONGEST_TEXT], safe=PLAIN)),
    ]
    if not begun:
        fields = [(":status", "200"), ("content-type", "application/grpc"), *fields]
    return write_headers(fields)


def error_text(value: str) -> str:
    """The text in a grpc-message."""
    return unquote(value, errors="replace")


def timeout_ns(value: str) -> int:
    """A grpc-timeout in ns; raises `RequestInvalid` for anything else."""
    digits, unit = value[:-1], UNITS.get(value[-1:])
    if unit is None or not (digits.isascii() and digits.isdigit()) or len(digits) > 8:
        raise RequestInvalid("grpc-timeout is a number of at most eight digits and a unit")
    return int(digits) * unit
