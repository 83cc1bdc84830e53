# SPDX-License-Identifier: Apache-2.0
"""gRPC on one connection: Triton's twenty procedures over `septet.wire.http2`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from septet.errors import DeadlineExceeded, RequestInvalid, SeptetError, Stopping
from septet.request import Request, Response
from septet.serving import rpc
from septet.serving.answers import Answers, outcome, stream_error
from septet.serving.budget import FREE, Budget, Charge
from septet.serving.call import ENDING, INFER, STREAM, Call, NotGrpc, Opening, opening_of
from septet.serving.health import WATCH, watched
from septet.serving.lane import Lane, Step, Work
from septet.serving.mailbox import Mailbox
from septet.serving.plane import Plane
from septet.serving.threads import Threads
from septet.tensor import Buffer
from septet.wire import proto
from septet.wire.encoding import FORMATS, LONG, decompress
from septet.wire.events import ConnectionEnded, DataReceived, Event, HeadersReceived, Limits, StreamEnded
from septet.wire.head import AT_ONCE, Draft, held_size
from septet.wire.headers import Headers, write_headers
from septet.wire.http2 import Connection
from septet.wire.messages import error_tail

SCRATCH, SMALL = 256 << 10, 16 << 10
"""Bytes read at once; up to so many are copied, since what is made of them may then point there."""

NOT_GRPC = write_headers([(":status", "415"), ("content-type", "text/plain")])


@dataclass(frozen=True, slots=True)
class GrpcLimits:
    """Bytes, seconds and counts that a connection keeps to."""

    message: int = 64 << 20
    message_seconds: float = 30.0
    message_rate: int = 64 << 10
    """Bytes per second that a large message must keep up."""
    pending: int = 256
    """Requests of one ModelStreamInfer that wait for answers; above that its window stays shut."""
    preface_seconds: float = 10.0
    stuck_seconds: float = 60.0
    compression: str = "none"
    """Of answers, for clients that take gzip: none, low, medium or high."""
    http2: Limits = field(default_factory=Limits)


Answerer = Callable[[Call, Request, Response], None]


class Grpc:
    """What all gRPC connections of one server have in common."""

    def __init__(
        self, plane: Plane, mailbox: Mailbox, threads: Threads, limits: GrpcLimits, budget: Budget
    ) -> None:
        self.plane = plane
        self.budget = budget
        self.mailbox = mailbox
        self.executor, self.loads = threads.work, threads.loads
        self.limits = limits
        self.answers = Answers(plane, limits.compression)
        self.loop = asyncio.get_running_loop()
        self.connections: set[GrpcConnection] = set()
        self.scratch = memoryview(bytearray(SCRATCH))
        self.dirty: set[GrpcConnection] = set()
        mailbox.after.append(self._flush)

    def _flush(self) -> None:
        dirty, self.dirty = self.dirty, set()
        for connection in dirty:
            connection.flush()

    def connection(self) -> GrpcConnection:
        """The protocol of a new connection."""
        return GrpcConnection(self)


class GrpcConnection(asyncio.BufferedProtocol):
    """One client's connection; all of a loop are read through one scratch."""

    def __init__(self, front: Grpc) -> None:
        self._front = front
        self._limits = front.limits
        self._plane = front.plane
        self.http = Connection(limits=front.limits.http2)
        self._answers = front.answers
        self._calls: dict[int, Call] = {}
        self._transport = cast(asyncio.Transport, None)
        self._since = time.monotonic()
        self._stuck: float | None = None
        self._heard = False
        self._last: tuple[Headers, Opening] | None = None
        self._draining = False

    # The transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._front.connections.add(self)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.connections.discard(self)
        self._front.dirty.discard(self)
        for call in self._calls.values():
            call.cancel()
        self._calls.clear()

    def pause_writing(self) -> None:
        self._stuck = time.monotonic()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._stuck = None
        self._transport.resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._front.scratch

    def buffer_updated(self, nbytes: int) -> None:
        data = self._front.scratch[:nbytes]
        self.data_received(bytes(data) if nbytes <= SMALL else data)

    def data_received(self, data: bytes | memoryview) -> None:
        """Take bytes from the client."""
        for event in self.http.receive(data):
            self._take(event)
        self.flush()

    def flush(self) -> None:
        """Write what HTTP/2 has to say."""
        if self._draining:
            self._end_idle_streams()
        out = self.http.take()
        if self._transport.is_closing():
            return
        if sum(map(len, out)) > 65536:
            self._transport.writelines(out)
        elif out:
            self._transport.write(b"".join(out))
        if self._draining:
            self._hang_up_if_over()

    # Events

    def _take(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self._data(event)
        elif isinstance(event, HeadersReceived):
            self._headers(event)
        elif isinstance(event, StreamEnded):
            call = self._calls.get(event.stream)
            if call is not None:
                self.forget(call)
        elif isinstance(event, ConnectionEnded):
            for call in self._calls.values():
                call.cancel()
            self._calls.clear()
            self.flush()
            self._transport.close()

    def _headers(self, event: HeadersReceived) -> None:
        self._heard = True
        call = self._calls.get(event.stream)
        if call is not None:  # trailers, which gRPC's clients do not send
            self._ended(call)
            return
        if self._last is not None and self._last[0] is event.headers:
            opening = self._last[1]
        else:
            try:
                opening = opening_of(event.headers)
            except NotGrpc:
                self.http.send_trailers(event.stream, NOT_GRPC)
                return
            except SeptetError as error:
                self.http.send_trailers(event.stream, error_tail(error.status.grpc, str(error), begun=False))
                return
            self._last = (event.headers, opening)
        call = self._calls[event.stream] = Call(self, event.stream, opening, self._limits.message)
        if opening.timeout is not None:
            delay = opening.timeout / 1e9
            call.timer = self._front.loop.call_later(delay, self._expire, call)
        if event.ended:
            self._ended(call)

    def _data(self, event: DataReceived) -> None:
        call, size = self._calls.get(event.stream), len(event.data)
        if call is None:
            self.http.acknowledge(event.stream, size)
            return
        if self._draining and call.opening.method == STREAM and call.reader.empty:
            self.http.acknowledge(event.stream, size)  # not taken any more, as the end of the stream will tell
            if event.ended:
                self._ended(call)
            return
        call.bytes += size
        try:
            for compressed, message in call.reader.feed(event.data):
                if call.over:  # one before it ended the stream
                    break
                if compressed or call.inflating is not None:
                    self._inflate(call, message, compressed)
                else:
                    self._message(call, message)
            if call.bytes > FREE and call.reader.filled > FREE:
                self._hold(call, call.reader.filled)
        except Exception as error:
            self.http.acknowledge(event.stream, size)
            self._answers.fail(call, error)
            return
        if call.takes(self._limits.pending):
            self.http.acknowledge(event.stream, size)
        else:
            call.withheld += size
        if event.ended:
            self._ended(call)

    def _message(self, call: Call, message: memoryview) -> None:
        """Take a whole message, inflated where it was compressed."""
        if len(message) > FREE:
            self._hold(call, len(message))
        if call.opening.method == STREAM:
            self._stream_message(call, message)
        elif call.message is None:
            call.message = message
        else:
            raise RequestInvalid("more than one message in a call that takes one")

    def _hold(self, call: Call, size: int) -> None:
        """Count a message of `call` as `size` bytes that the server holds. Raises Overloaded."""
        if call.charge is None:
            call.charge = Charge(self._front.budget)
        call.charge.grow(size)

    def _inflate(self, call: Call, message: memoryview, compressed: bool) -> None:
        """Take a message that is compressed, or is behind one; a long one on a thread."""
        encoding = call.opening.encoding
        if compressed and encoding not in FORMATS:
            raise RequestInvalid("a compressed message, and no grpc-encoding that says how")
        if call.inflating is None:
            call.inflating = self.lane(call)
        limit = self._limits.message
        work: Work = partial(decompress, message, encoding, limit) if compressed else lambda: message
        call.inflating.run(Step(work, partial(self._inflated, call), long=compressed and len(message) > LONG))

    def _inflated(self, call: Call, plain: Buffer) -> None:
        if not call.over:
            self._message(call, memoryview(plain))

    def lane(self, call: Call) -> Lane:
        """What keeps the order of messages that threads work on."""
        return Lane(
            self._front.loop,
            self._front.executor,
            partial(self._answers.fail, call),
            partial(self._moved_on, call),
        )

    def _moved_on(self, call: Call) -> None:
        """A thread is done with a message of `call`."""
        if not call.over:
            self._release(call)
            if call.ended:
                self._ended(call)
        self.flush()

    def _release(self, call: Call) -> None:
        """Let the client send more, where it may."""
        if call.withheld and call.takes(self._limits.pending):
            self.http.acknowledge(call.stream, call.withheld)
            call.withheld = 0

    def _ended(self, call: Call) -> None:
        """The client has said all it has to say."""
        call.ended = True
        if not call.reader.empty:
            self._answers.fail(call, RequestInvalid("the message is cut off"))
        elif call.opening.method == STREAM:
            self._end_stream_if_over(call)
        elif not call.settled:
            return
        elif call.message is None:
            self._answers.fail(call, RequestInvalid("a call without a message"))
        else:
            try:
                self._call(call, call.message)
            except Exception as error:
                self._answers.fail(call, error)

    # Procedures

    def _call(self, call: Call, message: memoryview) -> None:
        method = call.opening.method
        if method == INFER:
            call.message = None
            self._submit(call, message, self._answer)
            return
        if method == WATCH:
            self._watch(call)
            return
        work = partial(rpc.call, method, self._plane, message)
        if method in rpc.QUICK:
            self._answers.finish(call, [work()])
            return
        executor = self._front.loads if method in rpc.LOADS else self._front.executor
        task = self._front.loop.run_in_executor(executor, work)
        task.add_done_callback(partial(self._called, call))

    def _watch(self, call: Call) -> None:
        """Tell of the server's health, where it is not what was told last."""
        assert call.message is not None
        status = watched(self._plane, call.message)
        if status != call.told:
            call.told = status
            self._answers.send(call, [status])

    def _tell_watchers(self) -> None:
        for call in list(self._calls.values()):
            if call.told:
                self._watch(call)

    def _called(self, call: Call, task: asyncio.Future[bytes]) -> None:
        try:
            self._answers.finish(call, [task.result()])
        except Exception as error:
            self._answers.fail(call, error)
        self.flush()

    def _submit(self, call: Call, message: memoryview, answer: Answerer) -> None:
        """Read a request, many elements beside the loop, and only if the model takes so many."""
        charge, call.charge = call.charge, None
        draft = proto.read_request(message)
        try:
            self._bind(call, draft, len(message), answer, charge)
        except Exception as error:
            self._answers.refuse(call, draft.head.id, error)

    def _bind(self, call: Call, draft: Draft, size: int, answer: Answerer, charge: Charge | None) -> None:
        """Read the elements of a message of `size` bytes."""
        room = draft.room()
        if draft.head.lent > FREE:
            size += held_size(draft.head, self._plane.regions)
            charge = charge or Charge(self._front.budget)
            charge.grow(size)
        if room <= AT_ONCE:
            self._ask(call, answer, charge, draft.request(self._plane.regions))
            return
        self._plane.admit(draft.outline())
        charge = charge or Charge(self._front.budget)
        charge.grow(size + room)
        if call.inflating is None:
            call.inflating = self.lane(call)
        work = partial(outcome, partial(draft.request, self._plane.regions))
        call.inflating.run(Step(work, partial(self._read, call, draft.head.id, answer, charge), long=True))

    def _read(self, call: Call, id_: str, answer: Answerer, charge: Charge, read: Request | Exception) -> None:
        """On the loop, with a request that took long to read, or what was wrong with it."""
        if isinstance(read, Exception):
            self._answers.refuse(call, id_, read)
        elif not call.over:
            self._ask(call, answer, charge, read)

    def _ask(self, call: Call, answer: Answerer, charge: Charge | None, request: Request) -> None:
        request.once = call.opening.method == INFER
        if call.opening.timeout is not None:
            request.deadline = request.arrived + call.opening.timeout
        request.keeps = charge
        call.requests.add(request)
        self._front.mailbox.ask(request, partial(answer, call, request))

    def _answer(self, call: Call, request: Request, response: Response) -> None:
        """On the loop, with the answer to a ModelInfer."""
        if call.over:
            return
        self._answers.write(call, request, response, self._answers.finish)

    # ModelStreamInfer

    def _stream_message(self, call: Call, message: memoryview) -> None:
        try:
            self._submit(call, message, self._stream_answer)
        except SeptetError as error:
            if call.opening.ends_on_error:
                raise
            self._answers.send(call, stream_error(proto.id_of(message), error))

    def _stream_answer(self, call: Call, request: Request, response: Response) -> None:
        """On the loop, with one answer to one request of a stream."""
        if call.over:
            return
        asked = request.parameters.get("triton_enable_empty_final_response") is True
        if response.error is not None or response.outputs or not response.final or asked:
            response.parameters = response.parameters | {"triton_final_response": response.final}
            self._answers.write(call, request, response, self._answers.send_inferred)
        else:
            call.requests.discard(request)
        if not call.over:
            self._release(call)
            self._end_stream_if_over(call)
            self.touch()

    def _end_stream_if_over(self, call: Call) -> None:
        if call.ended and not call.over and call.settled:
            self._answers.end(call)

    # Ends

    def forget(self, call: Call) -> None:
        """It is over: nobody waits for it."""
        call.cancel()
        self._calls.pop(call.stream, None)
        self.http.acknowledge(call.stream, call.withheld)  # the connection's window is the other calls', too
        call.withheld = 0
        self.touch()

    def touch(self) -> None:
        """Write at the end of this turn of the loop, with whatever else there is to say."""
        self._front.dirty.add(self)

    def _expire(self, call: Call) -> None:
        self._answers.fail(call, DeadlineExceeded("Deadline Exceeded"))
        self.flush()

    # What the server asks

    def sweep(self, now: float) -> None:
        """Hang up on a client that takes too long; tell those who watch."""
        limits = self._limits
        if self._stuck is not None and now - self._stuck > limits.stuck_seconds:
            self._transport.abort()
            return
        if not self._heard and not self.http.greeted and now - self._since > limits.preface_seconds:
            self._transport.close()
            return
        if self.http.stalled(now) > limits.stuck_seconds or self.http.gathering(now) > limits.message_seconds:
            self._transport.abort()
            return
        for call in list(self._calls.values()):
            waits = not call.ended and call.opening.method != STREAM
            if waits and now - call.since > limits.message_seconds + call.bytes / limits.message_rate:
                self._answers.fail(call, DeadlineExceeded("the message took too long"))
        self._tell_watchers()
        self.flush()

    def drain(self) -> None:
        """Take no new calls, nor requests of a stream; hang up when those under way are answered."""
        self._draining = True
        self.http.shut_down()
        self._tell_watchers()
        self.flush()

    def _end_idle_streams(self) -> None:
        for call in list(self._calls.values()):
            if call.idle:
                self._answers.fail(call, Stopping(ENDING))

    def _hang_up_if_over(self) -> None:
        """At the end of a drain: the client knows, and nothing is under way."""
        if self._draining and self.http.shut and not self._calls and not self.http.open_streams:
            self._transport.close()

    @property
    def busy(self) -> bool:
        """Whether a request is under way; streams may stay open without any."""
        return self.http.open_streams > sum(call.idle for call in self._calls.values())

    def abort(self) -> None:
        """Hang up at once."""
        self._transport.abort()
