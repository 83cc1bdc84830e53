# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 (RFC 9113) as a machine without sockets: bytes in, events out; calls in, bytes out.

`Connection` serves both ends. What the peer breaks on one stream ends that stream (`StreamEnded`); what breaks the
connection is answered by GOAWAY and ends it (`ConnectionEnded`). Nothing raises.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from septet.tensor import Buffer
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
from septet.wire.frames import Code, Setting
from septet.wire.headers import HeaderReader, Headers, HeadersInvalid, HeadersTooLarge, HeadersUnreadable


class ConnectionFault(Exception):
    """The peer broke a rule that ends the connection."""

    def __init__(self, code: Code, why: str) -> None:
        super().__init__(why)
        self.code = code


@dataclass(slots=True)
class Stream:
    """One stream as this end sees it."""

    id: int
    send_window: int
    receive_window: int
    owed: int = 0
    """Bytes acknowledged here and not yet told to the peer."""
    declared: int | None = None
    """The body's length by its content-length, less what came."""
    heard: bool = False
    """Whether headers have come."""
    peer_done: bool = False
    done: bool = False
    waiting: deque[memoryview] = field(default_factory=deque)
    """Data that the windows do not let out yet."""
    tail: bytes | None = None
    """Trailers, to follow the data that waits."""
    ending: bool = False
    """Whether the stream is to end with the data that waits."""


JOINED = 16 << 10
"""Answers of up to so many bytes are joined: a copy costs less than many buffers."""

SHARE = 16 << 10
"""Bytes that a stream may send in its turn, at least, while others wait for the same window."""

UPDATES, UPDATED = 2, 1 << 10
"""How many WINDOW_UPDATEs a stream and a DATA frame are worth, and for how many bytes of data one more. The rest
only cost; and a frame that is short because the window was is worth none."""

DEFAULTS = Limits()

_SHUTDOWN_PING = b"septet:1"


class Connection:
    """One connection; `client` says which end this is."""

    def __init__(
        self, *, client: bool = False, limits: Limits = DEFAULTS, clock: Callable[[], float] = time.monotonic
    ) -> None:  # fmt: skip
        self.limits = limits
        self.ended = False
        self._client = client
        self._clock = clock
        self._reader = HeaderReader(limits.header_list, limits.header_block)
        self._streams: dict[int, Stream] = {}
        self._preface = b"" if client else frames.PREFACE
        self._out: list[Buffer] = []
        self._blocked: dict[int, Stream] = {}
        self._next = 1
        self._highest = 0
        self._accepting = True
        self._send_window = frames.DEFAULT_WINDOW
        self._receive_window = limits.connection_window
        self._owed = 0
        self._peer_window = frames.DEFAULT_WINDOW
        self._peer_frame = frames.SMALLEST_MAX_FRAME
        self.peer_streams = frames.LARGEST_STREAM
        self._calm, self._calm_since = float(limits.nuisance_burst), clock()
        self._updates = 0
        self._moved = clock()
        self._undeclared: Headers | None = None
        self._block: tuple[int, bool, list[bytes], int] | None = None
        self._body: tuple[Stream | None, int, int, bool] | None = None
        self._rest = b""
        self._wider = False
        self._begin()

    def _begin(self) -> None:
        values = {
            Setting.MAX_CONCURRENT_STREAMS: self.limits.streams,
            Setting.INITIAL_WINDOW_SIZE: self.limits.stream_window,
            Setting.MAX_FRAME_SIZE: self.limits.frame,
            Setting.MAX_HEADER_LIST_SIZE: self.limits.header_list,
        }
        if self._client:
            self._out.append(frames.PREFACE)
            values[Setting.ENABLE_PUSH] = 0
            del values[Setting.MAX_CONCURRENT_STREAMS]
        self._out.append(frames.settings(values))
        self._out.append(frames.window_update(0, self.limits.connection_window - frames.DEFAULT_WINDOW))

    # What comes in

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
            data = self._rest + data
            self._rest = b""
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
                        break
                    pad = data[begin]
                    if pad >= size:
                        raise ConnectionFault(Code.PROTOCOL_ERROR, "more padding than payload")
                    begin += 1
                self._begin_body(stream, size, pad, flags)
                position = self._take_body(data, begin, events)
            elif end - position - 9 < size:
                break
            else:
                position += 9 + size
                self._take_frame(kind, flags, stream, bytes(data[position - size : position]), events)
        self._rest = bytes(data[position:]) if position < end else b""

    def _take_preface(self, data: bytes | memoryview) -> int:
        wanted = self._preface
        data = bytes(data[: len(wanted)])
        if len(data) < len(wanted):
            if not wanted.startswith(data):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "not HTTP/2")
            self._rest = data
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
            self._bear("an empty DATA frame")
        stream = self._streams.get(number)
        if stream is None or stream.peer_done or not stream.heard:
            self._must_have_been(number)
            self._return(size)
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
            self._return(size)
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
            _require(len(payload) == 5, Code.FRAME_SIZE_ERROR, "PRIORITY has five bytes")
            _require(stream != 0, Code.PROTOCOL_ERROR, "PRIORITY belongs to a stream")
            self._bear("PRIORITY")
        elif kind == frames.PUSH_PROMISE:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "nobody here takes pushes")
        else:
            self._bear("a frame of an unknown kind")

    def _take_headers(self, flags: int, stream: int, payload: bytes, events: list[Event]) -> None:
        _require(stream != 0, Code.PROTOCOL_ERROR, "HEADERS belong to a stream")
        if flags & (frames.PADDED | frames.HAS_PRIORITY):
            payload = _unpadded(flags, stream, payload)
        ends = bool(flags & frames.END_STREAM)
        if flags & frames.END_HEADERS:
            self._take_block(stream, ends, payload, events)
            return
        _require(len(payload) <= self.limits.header_block, Code.ENHANCE_YOUR_CALM, "the header block is too large")
        self._block = (stream, ends, [payload], len(payload))

    def _take_continuation(self, flags: int, payload: bytes, events: list[Event]) -> None:
        if self._block is None:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION continues nothing")
        stream, ends, parts, size = self._block
        size += len(payload)
        _require(size <= self.limits.header_block, Code.ENHANCE_YOUR_CALM, "the header block is too large")
        if not payload:
            self._bear("an empty CONTINUATION")
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
                self._bear("a request whose headers are too large")
                self._open(number, (), ends, events)
                return
            if opens:
                _require(number % 2 == 1, Code.PROTOCOL_ERROR, "a client's streams are odd")
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
        _require(number % 2 == 1, Code.PROTOCOL_ERROR, "a client's streams are odd")
        self._highest = number
        if not self._accepting or len(self._streams) >= self.limits.streams:
            self._bear("a stream above the limit")
            self._out.append(frames.rst_stream(number, Code.REFUSED_STREAM))
            return
        self._updates += UPDATES
        stream = Stream(number, self._peer_window, self.limits.stream_window, heard=True)
        self._streams[number] = stream
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
        self._bear("a stream that breaks rules")
        known = number in self._streams
        self.reset(number, code)
        if known:
            events.append(StreamEnded(number, code))

    def _take_reset(self, number: int, payload: bytes, events: list[Event]) -> None:
        _require(len(payload) == 4, Code.FRAME_SIZE_ERROR, "RST_STREAM has four bytes")
        self._must_have_been(number)
        self._bear("RST_STREAM")
        if self._streams.pop(number, None) is not None:
            self._blocked.pop(number, None)
            events.append(StreamEnded(number, int.from_bytes(payload, "big")))

    def _take_settings(self, flags: int, stream: int, payload: bytes) -> None:
        _require(stream == 0, Code.PROTOCOL_ERROR, "SETTINGS belong to the connection")
        if flags & frames.ACK:
            _require(not payload, Code.FRAME_SIZE_ERROR, "an acknowledgement is empty")
            return
        _require(len(payload) % 6 == 0, Code.FRAME_SIZE_ERROR, "SETTINGS come in sixes of bytes")
        self._bear("SETTINGS")
        for key, value in frames.read_settings(payload):
            self._apply(key, value)
        self._out.append(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self._wider = True

    def _apply(self, key: int, value: int) -> None:
        if key == Setting.INITIAL_WINDOW_SIZE:
            _require(value <= frames.LARGEST_WINDOW, Code.FLOW_CONTROL_ERROR, "a window above 2^31 - 1")
            change, self._peer_window = value - self._peer_window, value
            for stream in self._streams.values():
                stream.send_window += change
                _require(
                    stream.send_window <= frames.LARGEST_WINDOW, Code.FLOW_CONTROL_ERROR, "a window overflows"
                )
        elif key == Setting.MAX_FRAME_SIZE:
            allowed = frames.SMALLEST_MAX_FRAME <= value <= frames.LARGEST_MAX_FRAME
            _require(allowed, Code.PROTOCOL_ERROR, "a frame size that cannot be")
            self._peer_frame = value
        elif key == Setting.MAX_CONCURRENT_STREAMS:
            self.peer_streams = value
        elif key == Setting.ENABLE_PUSH:
            _require(value in (0, 1), Code.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")

    def _take_ping(self, flags: int, stream: int, payload: bytes, events: list[Event]) -> None:
        _require(stream == 0, Code.PROTOCOL_ERROR, "PING belongs to the connection")
        _require(len(payload) == 8, Code.FRAME_SIZE_ERROR, "PING has eight bytes")
        if not flags & frames.ACK:
            self._bear("PING")
            self._out.append(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif payload == _SHUTDOWN_PING:
            self._accepting = False
            self._out.append(frames.goaway(self._highest, Code.NO_ERROR))
        else:
            events.append(PingAnswered(payload))

    def _take_goaway(self, stream: int, payload: bytes, events: list[Event]) -> None:
        _require(stream == 0, Code.PROTOCOL_ERROR, "GOAWAY belongs to the connection")
        _require(len(payload) >= 8, Code.FRAME_SIZE_ERROR, "GOAWAY has at least eight bytes")
        self._bear("GOAWAY")
        last = int.from_bytes(payload[:4], "big") & frames.LARGEST_STREAM
        code = int.from_bytes(payload[4:8], "big")
        events.append(GoingAway(last, code))
        if self._client:
            for number in [number for number in self._streams if number > last]:
                del self._streams[number]
                self._blocked.pop(number, None)
                events.append(StreamEnded(number, Code.REFUSED_STREAM))

    def _take_window_update(self, number: int, payload: bytes, events: list[Event]) -> None:
        _require(len(payload) == 4, Code.FRAME_SIZE_ERROR, "WINDOW_UPDATE has four bytes")
        size = int.from_bytes(payload, "big") & frames.LARGEST_WINDOW
        if self._updates:
            self._updates -= 1
        else:
            self._bear("WINDOW_UPDATE")
        if number == 0:
            _require(size > 0, Code.PROTOCOL_ERROR, "a window grows by at least one byte")
            self._send_window += size
            _require(self._send_window <= frames.LARGEST_WINDOW, Code.FLOW_CONTROL_ERROR, "the window overflows")
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
        _require(number != 0 and known, Code.PROTOCOL_ERROR, f"stream {number} was never opened")

    def _bear(self, what: str) -> None:
        """Take one of the frames that only cost; too many of them end the connection."""
        now = self._clock()
        grown = self._calm + (now - self._calm_since) * self.limits.nuisance_rate
        self._calm, self._calm_since = min(float(self.limits.nuisance_burst), grown) - 1, now
        _require(self._calm >= 0, Code.ENHANCE_YOUR_CALM, f"{what}, once too often")

    # What goes out

    def take(self) -> list[Buffer]:
        """All that is to be sent now, in order; the caller sends it."""
        out, self._out = self._out, []
        return out

    def request(self, block: bytes) -> int:
        """Open a stream with a request's header block; its number."""
        number = self._next
        self._next += 2
        self._updates += UPDATES
        self._streams[number] = Stream(number, self._peer_window, self.limits.stream_window)
        self._out.append(frames.headers(number, block, False, self._peer_frame))
        return number

    def send_headers(self, number: int, block: bytes) -> None:
        """Begin an answer. For a stream that is over this, like all that follows, does nothing."""
        if number in self._streams:
            self._out.append(frames.headers(number, block, False, self._peer_frame))

    def send_data(self, number: int, chunks: Sequence[Buffer], end: bool = False) -> None:
        """Send `chunks` as the windows allow; `end` closes this side of the stream after them."""
        stream = self._streams.get(number)
        if stream is None or stream.done:
            return
        stream.ending = end
        stream.done = end
        stream.waiting.extend(memoryview(chunk) for chunk in chunks if len(chunk))
        self._pump(stream)

    def send_trailers(self, number: int, block: bytes) -> None:
        """End an answer, after all its data, with trailers (or, where nothing was sent yet, headers)."""
        stream = self._streams.get(number)
        if stream is None or stream.done:
            return
        stream.done = stream.ending = True
        stream.tail = block
        self._pump(stream)

    def respond(self, number: int, head: bytes, chunks: Sequence[Buffer], tail: bytes) -> None:
        """A whole answer at once: header block, data, trailer block."""
        stream = self._streams.get(number)
        if stream is None or stream.done:
            return
        size = len(chunks[0]) if len(chunks) == 1 else sum(map(len, chunks))
        room = min(self._peer_frame, self._send_window, stream.send_window)
        if size > room or not stream.peer_done or not size:
            self.send_headers(number, head)
            self.send_data(number, chunks)
            self.send_trailers(number, tail)
            return
        self._send_window -= size
        self._updates += UPDATES + size // UPDATED
        del self._streams[number]
        self._calm += 1
        opening = frames.headers(number, head, False, self._peer_frame) + frames.header(
            size, frames.DATA, 0, number
        )
        closing = frames.headers(number, tail, True, self._peer_frame)
        if size <= JOINED:
            self._out.append(b"".join((opening, *chunks, closing)))
        else:
            self._out += opening, *chunks, closing

    def acknowledge(self, number: int, size: int) -> None:
        """`size` bytes of a stream's data are used up here: the peer may send as many again."""
        self._return(size)
        stream = self._streams.get(number)
        if stream is None or stream.peer_done:
            return
        stream.owed += size
        if stream.owed * 2 >= self.limits.stream_window:
            stream.receive_window += stream.owed
            self._out.append(frames.window_update(number, stream.owed))
            stream.owed = 0

    def _return(self, size: int) -> None:
        self._owed += size
        if self._owed * 2 >= self.limits.connection_window:
            self._receive_window += self._owed
            self._out.append(frames.window_update(0, self._owed))
            self._owed = 0

    def reset(self, number: int, code: int = Code.CANCEL) -> None:
        """End a stream at once."""
        self._streams.pop(number, None)
        self._blocked.pop(number, None)
        if not self.ended:
            self._out.append(frames.rst_stream(number, code))

    def ping(self, payload: bytes) -> None:
        """Ask for a sign of life: `payload`, eight bytes, comes back in `PingAnswered`."""
        self._out.append(frames.frame(frames.PING, 0, 0, payload))

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

    @property
    def greeted(self) -> bool:
        """Whether the peer has shown that it speaks HTTP/2."""
        return not self._preface

    def stalled(self, now: float) -> float:
        """For how many seconds the peer's windows have let nothing out, although something waits."""
        return now - self._moved if self._blocked else 0.0

    @property
    def open_streams(self) -> int:
        """How many streams are not over."""
        return len(self._streams)

    def unsent(self, number: int) -> int:
        """Bytes of a stream that wait for the peer's windows."""
        stream = self._streams.get(number)
        return sum(map(len, stream.waiting)) if stream else 0

    def _flush(self) -> None:
        """Send what waits, as far as the windows reach: of the connection's, each stream gets its share.

        Whoever has had one waits behind the others for the next.
        """
        while self._send_window > 0:
            able = [stream for stream in self._blocked.values() if stream.send_window > 0]
            if not able:
                return
            share = max(SHARE, self._send_window // len(able))
            for stream in able:
                self._pump(stream, share)

    def _pump(self, stream: Stream, share: int = frames.LARGEST_WINDOW) -> None:
        """Send what waits in `stream`, up to `share` bytes."""
        waiting, largest = stream.waiting, self._peer_frame
        while waiting:
            room = min(self._send_window, stream.send_window, largest, share)
            if room <= 0:
                if not self._blocked:
                    self._moved = self._clock()
                self._blocked[stream.id] = stream
                return
            size, parts = 0, []
            while waiting and size < room:
                part = waiting.popleft()
                if len(part) > room - size:
                    waiting.appendleft(part[room - size :])
                    part = part[: room - size]
                parts.append(part)
                size += len(part)
            last = not waiting and stream.ending and stream.tail is None
            self._out.append(frames.header(size, frames.DATA, frames.END_STREAM if last else 0, stream.id))
            self._out.extend(parts)
            self._blocked.pop(stream.id, None)
            self._send_window -= size
            stream.send_window -= size
            share -= size
            if size >= UPDATED or not waiting:
                self._updates += UPDATES + size // UPDATED
            self._moved = self._clock()
            if last:
                stream.ending = False
        self._blocked.pop(stream.id, None)
        if stream.tail is not None:
            self._out.append(frames.headers(stream.id, stream.tail, True, largest))
            stream.tail = None
        elif stream.ending:
            self._out.append(frames.header(0, frames.DATA, frames.END_STREAM, stream.id))
        stream.ending = False
        self._forget_if_over(stream)

    def _forget_if_over(self, stream: Stream) -> None:
        if not stream.done or stream.waiting or stream.id not in self._streams:
            return
        if stream.peer_done:
            del self._streams[stream.id]
            self._calm += 1  # whoever waits for answers may give up others: an attacker waits for none
        elif not self._client:
            self.reset(stream.id, Code.NO_ERROR)  # answered in full: what the client still sends is of no use


def _require(condition: bool, code: Code, why: str) -> None:
    if not condition:
        raise ConnectionFault(code, why)


def _unpadded(flags: int, stream: int, payload: bytes) -> bytes:
    """A HEADERS payload without its padding and its (ignored) priority."""
    start = pad = 0
    if flags & frames.PADDED:
        _require(len(payload) > 0, Code.FRAME_SIZE_ERROR, "padded, yet empty")
        pad, start = payload[0], 1
    if flags & frames.HAS_PRIORITY:
        _require(len(payload) >= start + 5, Code.FRAME_SIZE_ERROR, "the priority is cut off")
        start += 5
    _require(len(payload) - start >= pad, Code.PROTOCOL_ERROR, "more padding than payload")
    return payload[start : len(payload) - pad]
