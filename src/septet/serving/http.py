# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 on one connection: httptools' parser, exchanges answered in the order in which they were asked.

A connection knows bodies, limits and timeouts; what a request means is its router's to know
(`septet.serving.routes`).
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools
import numpy as np

from septet.errors import Overloaded
from septet.serving.budget import FREE, Budget
from septet.serving.exchange import Exchange
from septet.serving.heads import head_of, known, learn
from septet.tensor import Buffer


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bytes, seconds and counts that a connection keeps to."""

    body: int = 64 << 20
    head: int = 64 << 10
    """Of a request's target and headers."""
    pipelined: int = 64
    """Requests of one connection that wait for their answers."""
    turn: int = 256
    """Requests that are taken of one connection before others have their turn."""
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    """For a body, besides what `body_rate` gives it."""
    body_rate: int = 64 << 10
    """Bytes per second that a large body must keep up."""
    idle_seconds: float = 300.0
    stuck_seconds: float = 60.0
    """For a client to read what waits for it."""
    linger_seconds: float = 2.0
    """How long an unread body is read and thrown away, so that its refusal can arrive."""
    direct: int = FREE
    """A body that is longer, and says so, is read to where it will stay."""
    small_pieces: int = 10_000
    """Pieces of a body after which their average must be `piece` bytes."""
    piece: int = 64


ONCE = {b"host", b"transfer-encoding", b"content-encoding", b"inference-header-content-length"}
"""Headers that say how a request is to be read: given twice, it could be read in two ways."""

TCP_CLOSE = 7
"""Of Linux' tcp_states.h, as TCP_INFO tells it."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Router = Callable[[Exchange], None]


class HttpConnection(asyncio.BufferedProtocol):
    """One client's connection.

    All connections of a loop are read through one `scratch`, long bodies excepted: they are read to their place.
    """

    def __init__(
        self,
        route: Router,
        connections: set[HttpConnection],
        limits: HttpLimits,
        scratch: memoryview,
        budget: Budget,
    ) -> None:
        self.limits = limits
        self.budget = budget
        self._route = route
        self._all = connections
        self._scratch = scratch
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Exchange] = deque()
        self._current: Exchange | None = None
        self._head_done = False
        self._head_bytes = 0
        self._message_bytes = 0
        self._pieces = 0
        self._since = time.monotonic()
        self._stuck: float | None = None
        self._refused = False
        self._direct: memoryview | None = None
        self._filled = 0
        self._draining = False
        self._reading = True
        self._taken = 0
        """Requests since others had their turn."""
        self._half_closed = False
        self._unknown = b""
        """The bytes of a head that is being parsed, where they came at once."""

    # The transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.discard(self)
        for exchange in self._waiting:
            exchange.answered = True
            if exchange.request is not None:
                exchange.request.cancel()
        self._waiting.clear()
        self._current = self._direct = None
        self._parser = cast(httptools.HttpRequestParser, None)  # a circle, that only a rare collection would free

    def pause_writing(self) -> None:
        self._stuck = time.monotonic()
        self._throttle()

    def resume_writing(self) -> None:
        self._stuck = None
        self._throttle()

    def eof_received(self) -> bool:
        """The client says no more. It waits for answers or is gone, which only shows when something is sent."""
        if self._waiting and not self._half_closed:
            self._half_closed = True
            if not self._waiting[0].streaming:
                self._transport.write(CONTINUE)
        return bool(self._waiting)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._scratch if self._direct is None else self._direct[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._direct is None:
            self.data_received(bytes(self._scratch[:nbytes]))
            return
        self._filled += nbytes
        self._message_bytes += nbytes
        self._hold(self._filled)
        if self._direct is not None and self._filled == len(self._direct):
            self.on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Take bytes of a head, of a short body, or of one in chunks."""
        if self._refused:
            return
        begun_before = self._current is not None
        if not begun_before and not (data := self._take_known(data)):
            return
        try:
            self._unknown = b"" if begun_before else head_of(data)
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parser = httptools.HttpRequestParser(self)
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self.refuse(400, f"not HTTP/1.1: {error}")
        if self._direct is not None:  # the parser need not see the rest of a long body
            self._parser = httptools.HttpRequestParser(self)
        if self._current is None or not begun_before:
            return
        if not self._head_done:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head:
                self.refuse(431, "the headers are too large")
        self._message_bytes += len(data)
        if self._message_bytes > 2 * self.limits.body + (1 << 20):
            self.refuse(413, "the request is too large")

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Go on with a request that asks for another protocol, which is not spoken here: what the parser takes for
        that protocol is the body, and what follows."""
        if self._refused:
            return
        if self._direct is not None:
            missing = len(self._direct) - self._filled
            self._message_bytes = len(rest)
            self.on_body(rest[:missing])
            rest = rest[missing:]
            if self._filled == len(self._direct):
                self.on_message_complete()
        if rest:
            self.data_received(rest)

    def _take_known(self, data: bytes) -> bytes:
        """Take requests whose heads the parser has seen before, byte for byte; what is left is for the parser."""
        while data and not self._refused:
            text = head_of(data)
            head = known(text)
            if head is None or head.length > self.limits.body:
                break
            begin = len(text)
            end = begin + head.length
            if len(data) < end and head.length <= self.limits.direct:
                break
            exchange = self._current = Exchange(self)
            exchange.url, exchange.method, exchange.headers = head.url, head.method, head.headers
            exchange.keep = not self._draining
            self._head_done = True
            if head.length > self.limits.direct:
                self._message_bytes = len(data)
                self._since = time.monotonic()
                self._begin_direct(head.length)
                self.on_body(data[begin:end])
                if len(data) >= end:
                    self.on_message_complete()
            else:
                exchange.body = data[begin:end]
                self.on_message_complete()
            data = data[end:]
        return data

    # The parser's calls

    def on_message_begin(self) -> None:
        self._current = Exchange(self)
        self._head_done = False
        self._head_bytes = self._message_bytes = self._pieces = 0
        self._since = time.monotonic()

    def on_url(self, url: bytes) -> None:
        exchange = self._current
        if exchange is not None:
            exchange.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        exchange = self._current
        if exchange is None or self._head_done:  # trailers say nothing here
            return
        name = name.lower()
        if name in exchange.headers and name in ONCE:
            self.refuse(400, f"two {name.decode()} headers")
        exchange.headers[name] = value

    def on_headers_complete(self) -> None:
        exchange = self._current
        if exchange is None or self._refused:
            return
        self._head_done = True
        exchange.method = self._parser.get_method().decode("latin-1")
        exchange.keep = self._parser.should_keep_alive() and not self._draining
        headers = exchange.headers
        declared = headers.get(b"content-length")
        if declared is not None and int(declared) > self.limits.body:
            self.refuse(413, f"the body has {int(declared)} bytes: at most {self.limits.body} are taken")
            return
        if b"transfer-encoding" in headers and headers[b"transfer-encoding"].strip().lower() != b"chunked":
            self.refuse(400, "a transfer encoding other than chunked")
            return
        if self._parser.should_upgrade():  # the parser does not read the body of such a request
            if exchange.method == "CONNECT" or b"transfer-encoding" in headers:
                self.refuse(400, "no other protocol is spoken here")
                return
            self._begin_direct(int(declared or 0))
        elif declared is not None and int(declared) > self.limits.direct:
            self._begin_direct(int(declared))
        if b"expect" in headers and headers[b"expect"].lower() == b"100-continue" and not self._waiting:
            self._transport.write(CONTINUE)
        if self._unknown and exchange.keep:
            learn(self._unknown, exchange.method, exchange.url, headers)
        self._unknown = b""

    def _begin_direct(self, length: int) -> None:
        """The body that follows is long: read it to where it will stay."""
        self._direct, self._filled = np.empty(length, np.uint8).data, 0

    def on_body(self, data: bytes) -> None:
        exchange = self._current
        if exchange is None or self._refused:
            return
        if self._direct is not None:
            self._direct[self._filled : self._filled + len(data)] = data
            self._filled += len(data)
            return
        if not exchange.body:
            exchange.body = data
            return
        if not isinstance(exchange.body, bytearray):
            exchange.body = bytearray(exchange.body)
        exchange.body += data
        self._pieces += 1
        if len(exchange.body) > self.limits.body:
            self.refuse(413, f"the body has more than {self.limits.body} bytes")
        elif self._pieces > self.limits.small_pieces and len(exchange.body) < self._pieces * self.limits.piece:
            self.refuse(413, "the body comes in too many small pieces")
        else:
            self._hold(len(exchange.body))

    def _hold(self, size: int) -> None:
        """Count what there is of the body, or refuse it where all connections together hold too much."""
        if self._current is not None:
            try:
                self._current.hold(size)
            except Overloaded as error:
                self.refuse(error.status.http, str(error))

    def on_message_complete(self) -> None:
        if self._direct is not None and self._filled < len(self._direct):
            return  # whatever the parser says: what has not come is somebody else's memory
        exchange, self._current = self._current, None
        if exchange is None or self._refused:
            return
        if self._direct is not None:
            exchange.body, self._direct = self._direct, None
        self._since = time.monotonic()
        self._waiting.append(exchange)
        self._route(exchange)
        self._taken += 1
        if self._taken == self.limits.turn:
            asyncio.get_running_loop().call_soon(self._have_turn)
            self._throttle()
        elif len(self._waiting) >= self.limits.pipelined:
            self._throttle()

    def _have_turn(self) -> None:
        """Go on: others had theirs."""
        self._taken = 0
        self._throttle()

    # What goes out

    def flush(self) -> None:
        """Write what is ready of the oldest exchanges."""
        waiting = self._waiting
        if not waiting or self._transport.is_closing():
            return
        first = waiting[0]
        if first.answered and len(waiting) == 1:
            waiting.popleft()
            self._write(first.chunks)
            self._after(first)
            return
        chunks: list[Buffer] = []
        while waiting:
            first = waiting[0]
            chunks += first.chunks
            first.chunks = []
            if not first.answered:
                break
            waiting.popleft()
            if not first.keep:
                break
        self._write(chunks)
        self._after(first)

    def _after(self, last: Exchange) -> None:
        self._since = time.monotonic()
        if last.answered and self._refused:
            self._linger()
        elif last.answered and (not last.keep or (self._half_closed and not self._waiting)):
            self._refused = True
            self._transport.close()
        if not self._reading:
            self._throttle()

    def _write(self, chunks: list[Buffer]) -> None:
        if not chunks:
            return
        if len(chunks) <= 8 and sum(map(len, chunks)) <= 65536:
            self._transport.write(b"".join(chunks))
        else:
            self._transport.writelines(chunks)

    def _throttle(self) -> None:
        """Read from the client only while it reads, waits for few answers, and leaves others their turn."""
        limits = self.limits
        reads = self._stuck is None and len(self._waiting) < limits.pipelined and self._taken < limits.turn
        if reads != self._reading and not self._transport.is_closing():
            self._reading = reads
            if reads:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def refuse(self, status: int, why: str) -> None:
        """Answer what is wrong once earlier requests are answered, then hang up: the rest cannot be understood."""
        if self._refused:
            return
        self._refused = True
        self._direct = None
        exchange = Exchange(self)
        exchange.keep = False
        self._current = None
        self._waiting.append(exchange)
        exchange.answer(status, [b'{"error":"%b"}' % _escaped(why)])

    def _linger(self) -> None:
        """Hang up when the client had time to read the refusal: what it still sends would take that from it."""
        if not self._waiting:
            if self._transport.can_write_eof():
                self._transport.write_eof()
            asyncio.get_running_loop().call_later(self.limits.linger_seconds, self._transport.close)

    # What the server asks

    def sweep(self, now: float) -> None:
        """Hang up on a client that takes too long."""
        limits = self.limits
        stuck = self._stuck is not None and now - self._stuck > limits.stuck_seconds
        if stuck or (self._half_closed and _is_gone(self._transport)):
            self._transport.abort()
        elif self._refused or self._waiting:
            return
        elif self._current is None:
            if now - self._since > limits.idle_seconds:
                self._transport.close()
        elif not self._head_done:
            if now - self._since > limits.head_seconds:
                self.refuse(408, "the headers took too long")
        elif now - self._since > limits.body_seconds + self._message_bytes / limits.body_rate:
            self.refuse(408, "the body took too long")

    def part(self) -> None:
        """Say with the next answer that the connection closes, and hang up after it."""
        self._draining = True
        last = self._current or (self._waiting[-1] if self._waiting else None)
        if last is not None:
            last.keep = False

    def drain(self) -> None:
        """Hang up as soon as nothing is under way."""
        self.part()
        if not self.busy:
            self._transport.close()

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return bool(self._waiting) or self._current is not None

    def abort(self) -> None:
        """Hang up at once."""
        self._transport.abort()


def _is_gone(transport: asyncio.Transport) -> bool:
    """Whether the client answered with a reset to what was sent to it after its end."""
    state: bytes = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return state[0] == TCP_CLOSE


def _escaped(text: str) -> bytes:
    return text.replace("\\", "\\\\").replace('"', "'").encode("ascii", "replace")
