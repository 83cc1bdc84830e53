# SPDX-License-Identifier: Apache-2.0
"""Heads of HTTP requests that were parsed before: the same bytes say the same again."""

from __future__ import annotations

from dataclasses import dataclass

from septet.wire.memory import Memory

LONGEST = 4096
"""Bytes; a longer head is not remembered."""

_UNLIKE = (b"transfer-encoding", b"upgrade", b"expect")
"""With these there is more to do than to read a body."""

_heads = Memory()


@dataclass(frozen=True, slots=True)
class Head:
    """A request's line and headers; `length` is its body's. The `headers` are shared: leave them as they are."""

    method: str
    url: bytes
    headers: dict[bytes, bytes]
    length: int


def head_of(data: bytes) -> bytes:
    """The head at the beginning of `data`, its empty line included; empty where it is not there as a whole."""
    end = data.find(b"\r\n\r\n")
    return data[: end + 4] if end >= 0 else b""


def known(text: bytes) -> Head | None:
    """What was learnt of `text`."""
    found: Head | None = _heads.get(text)
    return found


def learn(text: bytes, method: str, url: bytes, headers: dict[bytes, bytes]) -> None:
    """Remember what the parser made of `text`: of a request that has a body of said length, and is kept.

    `text` must be the head as the parser saw it, no more: a line for each header, all ended alike.
    """
    lines = len(headers) + 2
    if (
        lines == text.count(b"\r\n") == text.count(b"\n")
        and len(text) <= LONGEST
        and b"content-length" in headers
        and not any(name in headers for name in _UNLIKE)
    ):
        _heads.keep(text, Head(method, url, headers, int(headers[b"content-length"])))
