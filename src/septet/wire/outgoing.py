# SPDX-License-Identifier: Apache-2.0
"""What one end of an HTTP/2 connection (RFC 9113) sends: frames in order, and data as the peer's windows allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from septet.tensor import Buffer
from septet.wire import frames
from septet.wire.events import Limits
from septet.wire.frames import Code, Setting
from septet.wire.patience import Patience
from septet.wire.stream import Stream

JOINED = 16 << 10
"""Answers of up to so many bytes are joined: a copy costs less than many buffers."""

SHARE = 16 << 10
"""Bytes that a stream may send in its turn, at least, while others wait for the same window."""


class Outgoing:
    """The streams of one end, and what it has to say on them. `client` says which end this is."""

    def __init__(self, client: bool, limits: Limits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.ended = False
        self._client = client
        self._clock = clock
        self._patience = Patience(limits, clock)
        self._streams: dict[int, Stream] = {}
        self._blocked: dict[int, Stream] = {}
        self._out: list[Buffer] = []
        self._next = 1
        self._send_window = frames.DEFAULT_WINDOW
        self._receive_window = limits.connection_window
        self._owed = 0
        self._peer_window = frames.DEFAULT_WINDOW
        self._peer_frame = frames.SMALLEST_MAX_FRAME
        self._moved = clock()
        self._announce()

    def _announce(self) -> None:
        """Say what this end keeps to."""
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

    def take(self) -> list[Buffer]:
        """All that is to be sent now, in order; the caller sends it."""
        out, self._out = self._out, []
        return out

    def request(self, block: bytes) -> int:
        """Open a stream with a request's header block; its number."""
        number = self._next
        self._next += 2
        self._add(number)
        self._out.append(frames.headers(number, block, False, self._peer_frame))
        return number

    def _add(self, number: int, *, heard: bool = False) -> Stream:
        stream = self._streams[number] = Stream(number, self._peer_window, self.limits.stream_window, heard=heard)
        return stream

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
        del self._streams[number]
        self._patience.left += 1
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
        self._give_back(size)
        stream = self._streams.get(number)
        if stream is None or stream.peer_done:
            return
        stream.owed += size
        if stream.owed * 2 >= self.limits.stream_window:
            stream.receive_window += stream.owed
            self._out.append(frames.window_update(number, stream.owed))
            stream.owed = 0

    def _give_back(self, size: int) -> None:
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
                if self._send_window <= 0:
                    return  # who sends updates by a byte would have all that wait looked at for each
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
            self._patience.left += 1  # whoever waits for answers may give up others: an attacker waits for none
        elif not self._client:
            self.reset(stream.id, Code.NO_ERROR)  # answered in full: what the client still sends is of no use
