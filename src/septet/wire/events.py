# SPDX-License-Identifier: Apache-2.0
"""What a connection of HTTP/2 keeps to, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass

from septet.wire.headers import Headers


@dataclass(frozen=True, slots=True)
class Limits:
    """What this end takes: bytes, except where said."""

    streams: int = 1024
    """Open at the same time."""
    stream_window: int = 4 << 20
    connection_window: int = 16 << 20
    frame: int = 1 << 20
    header_list: int = 16 << 10
    """Of fields, as the peer is told; a request with more of them is one without headers."""
    header_block: int = 128 << 10
    """Of one HEADERS and its CONTINUATIONs, and of the fields in them: above that the connection ends."""
    nuisance_burst: int = 1000
    nuisance_rate: float = 33.0
    """Frames that cost this end work and the peer nothing (resets, pings, settings, empty frames): at once, and
    per second after that, and one more for each stream that came to its end. Updates of windows are none: real
    clients send several for each small message, and each costs next to nothing. The figures are nghttp2's, against
    rapid reset (CVE-2023-44487)."""


@dataclass(slots=True)
class HeadersReceived:
    """A request or a response has begun, or, on a stream that had headers already, its trailers have come.

    A request whose headers are larger than `Limits.header_list` has none here: it is to be refused.
    """

    stream: int
    headers: Headers
    ended: bool


@dataclass(slots=True)
class DataReceived:
    """A piece of a body. `Connection.acknowledge` gives its bytes back to the peer's window."""

    stream: int
    data: memoryview
    ended: bool


@dataclass(slots=True)
class StreamEnded:
    """A stream was ended before its time, by the peer or by a fault of the peer's."""

    stream: int
    code: int


@dataclass(slots=True)
class PingAnswered:
    """The peer has answered `Connection.ping`."""

    payload: bytes


@dataclass(slots=True)
class GoingAway:
    """The peer will look at no stream above `last`."""

    last: int
    code: int


@dataclass(slots=True)
class ConnectionEnded:
    """The connection broke a rule; send what is left and hang up."""

    code: int
    why: str


Event = HeadersReceived | DataReceived | StreamEnded | PingAnswered | GoingAway | ConnectionEnded
