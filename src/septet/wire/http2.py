# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 (RFC 9113) as a machine without sockets: bytes in, events out; calls in, bytes out.

`Connection` serves both ends. What the peer breaks on one stream ends that stream (`StreamEnded`); what breaks the
connection is answered by GOAWAY and ends it (`ConnectionEnded`). Nothing raises.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from septet.wire import frames
from septet.wire.events import (
    ConnectionEnded,
    DataReceived,
    Event,
    GoingAway,
    HeadersReceived,
    Limits,
    PingAnswered,
    StreamEnded,
)
from septet.wire.fault import ConnectionFault, require
from septet.wire.frames import Code, Setting
from septet.wire.headers import HeaderReader, Headers, HeadersInvalid, HeadersTooLarge, HeadersUnreadable
from septet.wire.outgoing import Outgoing
from septet.wire.stream import Stream

DEFAULTS = Limits()

_SHUTDOWN_PING = b"septet:1"


class Connection(Outgoing):
    """One connection: what comes in, on top of what goes out. `client` says which end this is."""

    def __init__(
        self, *, client: bool = False, limits: Limits = DEFAULTS, clock: Callable[[], float] = time.monotonic
    ) -> None:  # fmt: skip
        super().__init__(client, limits, clock)
        self.peer_streams = frames.LARGEST_STREAM
        self._reader = HeaderReader(limits.header_list, limits.header_block)
        self._preface = b"" if client else frames.PREFACE
        self._highest = 0
        self._accepting = True
        self._undeclared: Headers | None = None
        self._block: tuple[int, bool, list[bytes], int] | None = None
        self._body: tuple[Stream | None, int, int, bool] | None = None
        self._rest, self._wanted = bytearray(), 0
        """The beginning of a frame, and how many bytes of it are worth another look: none is copied twice."""
        self._rest_began = self._block_began = 0.0
        self._wider = False

    def shut_down(self) -> None:
        """Tell the peer to open no more streams; those it has opened meanwhile are still served.

        RFC 9113, section 6.8: a first GOAWAY of the highest number, then, once a PING came back, the true one.
        """
        self._out.append(frames.goaway(frames.LARGEST_STREAM, Code.NO_ERROR))
        self._out.append(frames.frame(frames.PING, 0, 0, _SHUTDOWN_PING))

    @property
    def shut(self) -> bool:
        """Whether the peer knows of `shut_down`: it opens no more streams."""
        return not self._accepting

    def gathering(self, now: float) -> float:
        """For how many seconds a header block, or a frame of another kind than DATA, has not come to its end."""
        began = [self._block_began] * (self._block is not None) + [self._rest_began] * bool(self._rest)
        return now - min(began, default=now)

    @property
    def greeted(self) -> bool:
        """Whether the peer has shown that it speaks HTTP/2."""
        return not self._preface

    def receive(self, data: bytes | memoryview) -> list[Event]:
        """Take bytes from the peer, in pieces of any size; `ConnectionEnded` is the last event of a broken one.

        `DataReceived` has views of `data`: where the caller will write there again, it copies what it keeps.
        """
        events: list[Event] = []
        if self.ended:
            return events
        try:
            self._take(data, events)
            if self._wider:  # once for all that came, so that an update costs no walk, and favours no stream
                self._wider = False
                self._flush()
        except ConnectionFault as fault:
            self._fail(fault, events)
        return events

    def _fail(self, fault: ConnectionFault, events: list[Event]) -> None:
        self.ended = True
        self._out.append(frames.goaway(self._highest, fault.code, str(fault)))
        self._streams.clear()
        self._blocked.clear()
        events.append(ConnectionEnded(fault.code, str(fault)))

    def _take(self, data: bytes | memoryview, events: list[Event]) -> None:
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return
            data, self._rest, self._wanted = bytes(self._rest), bytearray(), 0
        position, end = 0, len(data)
        if self._preface:
            position = self._take_preface(data)
            if self._preface:
                return
        if self._body is not None:
            position = self._take_body(data, position, events)
        unpack, largest = frames.HEADER.unpack_from, self.limits.frame
        while end - position >= 9:
            high, low, kind, flags, stream = unpack(data, position)
            size = high << 8 | low
            stream &= frames.LARGEST_STREAM
            if size > (largest if kind == frames.DATA else self.limits.header_block):
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame of {size} bytes is too large")
            if self._block is not None and (kind != frames.CONTINUATION or stream != self._block[0]):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "a header block was interrupted")
            if kind == frames.DATA:
                begin = position + 9
                pad = 0
                if flags & frames.PADDED:
                    if begin == end:
                        self._wanted = 10
                        break
                    pad = data[begin]
                    if pad >= size:
                        raise ConnectionFault(Code.PROTOCOL_ERROR, "more padding than payload")
                    begin += 1
                self._begin_body(stream, size, pad, flags)
                position = self._take_body(data, begin, events)
            elif end - position - 9 < size:
                self._wanted = 9 + size
                break
            else:
                position += 9 + size
                self._take_frame(kind, flags, stream, bytes(data[position - size : position]), events)
        if position < end:
            self._rest += data[position:]
            self._rest_began = self._clock()
            self._wanted = self._wanted or 9

    def _take_preface(self, data: bytes | memoryview) -> int:
        wanted = self._preface
        data = bytes(data[: len(wanted)])
        if len(data) < len(wanted):
            if not wanted.startswith(data):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "not HTTP/2")
            self._rest += data
            self._rest_began = self._clock()
            return 0
        if not data.startswith(wanted):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "not HTTP/2")
        self._preface = b""
        return len(wanted)

    def _begin_body(self, number: int, size: int, pad: int, flags: int) -> None:
        """A DATA frame's header has come: account for all of it, and find the stream it belongs to."""
        ends = bool(flags & frames.END_STREAM)
        if self._receive_window < size:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "more data than the connection's window")
        self._receive_window -= size
        overhead = pad + 1 if flags & frames.PADDED else 0
        if size - overhead == 0 and not ends:
            self._patience.bear("an empty DATA frame")
        stream = self._streams.get(number)
        if stream is None or stream.peer_done or not stream.heard:
            self._must_have_been(number)
            self._give_back(size)
            stream = None
        elif stream.receive_window < size:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "more data than the stream's window")
        else:
            stream.receive_window -= size
            if overhead:
                self.acknowledge(number, overhead)
        self._body = (stream, size - overhead, pad, ends)

    def _take_body(self, data: bytes | memoryview, position: int, events: list[Event]) -> int:
        """Pass on what there is of the DATA frame that has begun; the new position."""
        assert self._body is not None
        stream, left, pad, ends = self._body
        size = min(left, len(data) - position)
        left -= size
        over = left == 0
        if stream is not None and (size or (over and ends)) and stream.id in self._streams:
            self._hear(stream, memoryview(data)[position : position + size], over and ends, events)
        elif stream is not None:
            self._give_back(size)
        position += size
        if over:
            skipped = min(pad, len(data) - position)
            pad -= skipped
            position += skipped
            ends = False
        self._body = (stream, left, pad, ends) if left or pad else None
        return position

    def _hear(self, stream: Stream, data: memoryview, ended: bool, events: list[Event]) -> None:
        if stream.declared is not None:
            stream.declared -= len(data)
            if stream.declared < 0 or (ended and stream.declared):
                self.reset(stream.id, Code.PROTOCOL_ERROR)
                events.append(StreamEnded(stream.id, Code.PROTOCOL_ERROR))
                return
        events.append(DataReceived(stream.id, data, ended))
        if ended:
            stream.peer_done = True
            self._forget_if_over(stream)

    def _take_frame(self, kind: int, flags: int, stream: int, payload: bytes, events: list[Event]) -> None:
        if kind == frames.HEADERS:
            self._take_headers(flags, stream, payload, events)
        elif kind == frames.WINDOW_UPDATE:
            self._take_window_update(stream, payload, events)
        elif kind == frames.CONTINUATION:
            self._take_continuation(flags, payload, events)
        elif kind == frames.RST_STREAM:
            self._take_reset(stream, payload, events)
        elif kind == frames.SETTINGS:
            self._take_settings(flags, stream, payload)
        elif kind == frames.PING:
            self._take_ping(flags, stream, payload, events)
        elif kind == frames.GOAWAY:
            self._take_goaway(stream, payload, events)
        elif kind == frames.PRIORITY:
            require(len(payload) == 5, Code.FRAME_SIZE_ERROR, "PRIORITY has five bytes")
            require(stream != 0, Code.PROTOCOL_ERROR, "PRIORITY belongs to a stream")
            self._patience.bear("PRIORITY")
        elif kind == frames.PUSH_PROMISE:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "nobody here takes pushes")
        else:
            self._patience.bear("a frame of an unknown kind")

    def _take_headers(self, flags: int, stream: int, payload: bytes, events: list[Event]) -> None:
        require(stream != 0, Code.PROTOCOL_ERROR, "HEADERS belong to a stream")
        if flags & (frames.PADDED | frames.HAS_PRIORITY):
            payload = _unpadded(flags, stream, payload)
        ends = bool(flags & frames.END_STREAM)
        if flags & frames.END_HEADERS:
            self._take_block(stream, ends, payload, events)
            return
        require(len(payload) <= self.limits.header_block, Code.ENHANCE_YOUR_CALM, "the header block is too large")
        self._block = (stream, ends, [payload], len(payload))
        self._block_began = self._clock()

    def _take_continuation(self, flags: int, payload: bytes, events: list[Event]) -> None:
        if self._block is None:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION continues nothing")
        stream, ends, parts, size = self._block
        size += len(payload)
        require(size <= self.limits.header_block, Code.ENHANCE_YOUR_CALM, "the header block is too large")
        if not payload:
            self._patience.bear("an empty CONTINUATION")
        parts.append(payload)
        self._block = (stream, ends, parts, size)
        if flags & frames.END_HEADERS:
            self._block = None
            self._take_block(stream, ends, b"".join(parts), events)

    def _take_block(self, number: int, ends: bool, block: bytes, events: list[Event]) -> None:
        """A whole header block: a new request, a response, or trailers."""
        stream = self._streams.get(number)
        opens = not self._client and stream is None and number > self._highest
        try:
            headers = self._reader.read(block, request=opens)
        except HeadersUnreadable as error:
            code = Code.ENHANCE_YOUR_CALM if "large" in str(error) else Code.COMPRESSION_ERROR
            raise ConnectionFault(code, str(error)) from error
        except HeadersInvalid as error:
            if opens and isinstance(error, HeadersTooLarge):
                self._patience.bear("a request whose headers are too large")
                self._open(number, (), ends, events)
                return
            if opens:
                require(number % 2 == 1, Code.PROTOCOL_ERROR, "a client's streams are odd")
                self._highest = number
            self._refuse(number, Code.PROTOCOL_ERROR, events)
            return
        if opens:
            self._open(number, headers, ends, events)
        elif stream is None or stream.peer_done:
            self._must_have_been(number)
        elif stream.heard and not ends:
            self._refuse(number, Code.PROTOCOL_ERROR, events)
        elif not self._informational(headers):
            stream.heard = True
            self._begin_answer(stream, headers, ends, events)

    def _informational(self, headers: Headers) -> bool:
        return self._client and headers[:1] != () and headers[0][0] == ":status" and headers[0][1][:1] == "1"

    def _begin_answer(self, stream: Stream, headers: Headers, ends: bool, events: list[Event]) -> None:
        if ends and stream.declared:
            self._refuse(stream.id, Code.PROTOCOL_ERROR, events)
            return
        events.append(HeadersReceived(stream.id, headers, ends))
        if ends:
            stream.peer_done = True
            self._forget_if_over(stream)

    def _open(self, number: int, headers: Headers, ends: bool, events: list[Event]) -> None:
        require(number % 2 == 1, Code.PROTOCOL_ERROR, "a client's streams are odd")
        self._highest = number
        if not self._accepting or len(self._streams) >= self.limits.streams:
            self._patience.bear("a stream above the limit")
            self._out.append(frames.rst_stream(number, Code.REFUSED_STREAM))
            return
        stream = self._add(number, heard=True)
        if headers is self._undeclared:
            declared = None
        else:
            declared = next((value for name, value in headers if name == "content-length"), None)
            self._undeclared = headers if declared is None else None
        if declared is not None:
            if not (declared.isascii() and declared.isdigit()) or (ends and int(declared)):
                self._refuse(number, Code.PROTOCOL_ERROR, events)
                return
            stream.declared = int(declared)
        stream.peer_done = ends
        events.append(HeadersReceived(number, headers, ends))

    def _refuse(self, number: int, code: Code, events: list[Event]) -> None:
        self._patience.bear("a stream that breaks rules")
        known = number in self._streams
        self.reset(number, code)
        if known:
            events.append(StreamEnded(number, code))

    def _take_reset(self, number: int, payload: bytes, events: list[Event]) -> None:
        require(len(payload) == 4, Code.FRAME_SIZE_ERROR, "RST_STREAM has four bytes")
        self._must_have_been(number)
        self._patience.bear("RST_STREAM")
        if self._streams.pop(number, None) is not None:
            self._blocked.pop(number, None)
            events.append(StreamEnded(number, int.from_bytes(payload, "big")))

    def _take_settings(self, flags: int, stream: int, payload: bytes) -> None:
        require(stream == 0, Code.PROTOCOL_ERROR, "SETTINGS belong to the connection")
        if flags & frames.ACK:
            require(not payload, Code.FRAME_SIZE_ERROR, "an acknowledgement is empty")
            return
        require(len(payload) % 6 == 0, Code.FRAME_SIZE_ERROR, "SETTINGS come in sixes of bytes")
        self._patience.bear("SETTINGS")
        for key, value in frames.read_settings(payload):
            self._apply(key, value)
        self._out.append(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self._wider = True

    def _apply(self, key: int, value: int) -> None:
        if key == Setting.INITIAL_WINDOW_SIZE:
            require(value <= frames.LARGEST_WINDOW, Code.FLOW_CONTROL_ERROR, "a window above 2^31 - 1")
            change, self._peer_window = value - self._peer_window, value
            for stream in self._streams.values():
                stream.send_window += change
                require(stream.send_window <= frames.LARGEST_WINDOW, Code.FLOW_CONTROL_ERROR, "a window overflows")
        elif key == Setting.MAX_FRAME_SIZE:
            allowed = frames.SMALLEST_MAX_FRAME <= value <= frames.LARGEST_MAX_FRAME
            require(allowed, Code.PROTOCOL_ERROR, "a frame size that cannot be")
            self._peer_frame = value
        elif key == Setting.MAX_CONCURRENT_STREAMS:
            self.peer_streams = value
        elif key == Setting.ENABLE_PUSH:
            require(value in (0, 1), Code.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")

    def _take_ping(self, flags: int, stream: int, payload: bytes, events: list[Event]) -> None:
        require(stream == 0, Code.PROTOCOL_ERROR, "PING belongs to the connection")
        require(len(payload) == 8, Code.FRAME_SIZE_ERROR, "PING has eight bytes")
        if not flags & frames.ACK:
            self._patience.bear("PING")
            self._out.append(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif payload == _SHUTDOWN_PING:
            self._accepting = False
            self._out.append(frames.goaway(self._highest, Code.NO_ERROR))
        else:
            events.append(PingAnswered(payload))

    def _take_goaway(self, stream: int, payload: bytes, events: list[Event]) -> None:
        require(stream == 0, Code.PROTOCOL_ERROR, "GOAWAY belongs to the connection")
        require(len(payload) >= 8, Code.FRAME_SIZE_ERROR, "GOAWAY has at least eight bytes")
        self._patience.bear("GOAWAY")
        last = int.from_bytes(payload[:4], "big") & frames.LARGEST_STREAM
        code = int.from_bytes(payload[4:8], "big")
        events.append(GoingAway(last, code))
        if self._client:
            for number in [number for number in self._streams if number > last]:
                del self._streams[number]
                self._blocked.pop(number, None)
                events.append(StreamEnded(number, Code.REFUSED_STREAM))

    def _take_window_update(self, number: int, payload: bytes, events: list[Event]) -> None:
        require(len(payload) == 4, Code.FRAME_SIZE_ERROR, "WINDOW_UPDATE has four bytes")
        size = int.from_bytes(payload, "big") & frames.LARGEST_WINDOW
        if number == 0:
            require(size > 0, Code.PROTOCOL_ERROR, "a window grows by at least one byte")
            self._send_window += size
            require(self._send_window <= frames.LARGEST_WINDOW, Code.FLOW_CONTROL_ERROR, "the window overflows")
            self._wider = True
            return
        self._must_have_been(number)
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.send_window += size
        if size == 0 or stream.send_window > frames.LARGEST_WINDOW:
            self._refuse(number, Code.FLOW_CONTROL_ERROR if size else Code.PROTOCOL_ERROR, events)
        elif number in self._blocked:
            self._wider = True

    def _must_have_been(self, number: int) -> None:
        """A frame for a stream that is over is let pass; one for a stream that never was breaks the connection."""
        ours = (number % 2 == 1) == self._client
        known = number < self._next if ours else number <= self._highest
        require(number != 0 and known, Code.PROTOCOL_ERROR, f"stream {number} was never opened")


def _unpadded(flags: int, stream: int, payload: bytes) -> bytes:
    """A HEADERS payload without its padding and its (ignored) priority."""
    start = pad = 0
    if flags & frames.PADDED:
        require(len(payload) > 0, Code.FRAME_SIZE_ERROR, "padded, yet empty")
        pad, start = payload[0], 1
    if flags & frames.HAS_PRIORITY:
        require(len(payload) >= start + 5, Code.FRAME_SIZE_ERROR, "the priority is cut off")
        start += 5
    require(len(payload) - start >= pad, Code.PROTOCOL_ERROR, "more padding than payload")
    return payload[start : len(payload) - pad]
