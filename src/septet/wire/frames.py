# SPDX-License-Identifier: Apache-2.0
"""HTTP/2's frames, settings and error codes (RFC 9113, sections 4, 6 and 7) as bytes."""

from __future__ import annotations

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

HEADER = struct.Struct(">HBBBL")
"""Length (two fields: high 16 bits, low 8), kind, flags, stream: 9 bytes."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

SMALLEST_MAX_FRAME, LARGEST_MAX_FRAME = 1 << 14, (1 << 24) - 1
LARGEST_WINDOW = (1 << 31) - 1
DEFAULT_WINDOW = 65_535
LARGEST_STREAM = (1 << 31) - 1


class Setting(IntEnum):
    """Section 6.5.2."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Code(IntEnum):
    """Section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11


_PAIR = struct.Struct(">HL")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One whole frame."""
    return header(len(payload), kind, flags, stream) + payload


def header(size: int, kind: int, flags: int, stream: int) -> bytes:
    """The nine bytes before a payload of `size` bytes."""
    return HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream)


def settings(values: dict[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_PAIR.pack(key, value) for key, value in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Identifier and value of each setting, in order; the payload's length is a multiple of six."""
    return list(_PAIR.iter_unpack(payload))


def window_update(stream: int, size: int) -> bytes:
    """Leave to send `size` bytes more; on stream 0 for the whole connection."""
    return frame(WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def rst_stream(stream: int, code: int) -> bytes:
    """The end of a stream at once."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last: int, code: int, why: str = "") -> bytes:
    """No stream above `last` was or will be looked at."""
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + why.encode())


def headers(stream: int, block: bytes, end: bool, largest: int) -> bytes:
    """A HEADERS frame, and CONTINUATIONs where `block` is larger than `largest`."""
    flags = END_STREAM if end else 0
    if len(block) <= largest:
        return header(len(block), HEADERS, flags | END_HEADERS, stream) + block
    parts = [block[start : start + largest] for start in range(0, len(block), largest)]
    frames = [frame(HEADERS, flags, stream, parts[0])]
    frames += [frame(CONTINUATION, 0, stream, part) for part in parts[1:-1]]
    frames.append(frame(CONTINUATION, END_HEADERS, stream, parts[-1]))
    return b"".join(frames)
