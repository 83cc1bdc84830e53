# SPDX-License-Identifier: Apache-2.0
"""gRPC on one connection: Triton's twenty procedures over `septet.wire.http2`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar, cast

from septet.errors import DeadlineExceeded, RequestInvalid, SeptetError, Stopping
from septet.request import Request, Response
from septet.serving import rpc
from septet.serving.budget import FREE, Budget, Charge
from septet.serving.call import ENDING, INFER, STREAM, Call, NotGrpc, Opening, opening_of
from septet.serving.failure import told
from septet.serving.health import WATCH, watched
from septet.serving.lane import Lane, Step, Work
from septet.serving.mailbox import Mailbox
from septet.serving.outputs import classified
from septet.serving.plane import Plane
from septet.tensor import Buffer, made_of_objects
from septet.wire import proto
from septet.wire.encoding import FORMATS, LEVELS, LONG, compress, decompress
from septet.wire.events import ConnectionEnded, DataReceived, Event, HeadersReceived, Limits, StreamEnded
from septet.wire.head import AT_ONCE, Draft
from septet.wire.headers import Headers, write_headers
from septet.wire.http2 import Connection
from septet.wire.messages import OK_TAIL, RESPONSE_HEAD, enveloped, error_tail

SCRATCH, SMALL = 256 << 10, 16 << 10
"""Bytes read at once; up to so many are copied, since what is made of them may then point there."""

NOT_GRPC = write_headers([(":status", "415"), ("content-type", "text/plain")])
COMPRESSED_HEAD = write_headers(
    [(":status", "200"), ("content-type", "application/grpc"), ("grpc-encoding", "gzip")]
)


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


Result = TypeVar("Result")
Answerer = Callable[[Call, Request, Response], None]
Sender = Callable[[Call, Sequence[Buffer]], None]


class Grpc:
    """What all gRPC connections of one server have in common."""

    def __init__(
        self, plane: Plane, mailbox: Mailbox, executor: Executor, limits: GrpcLimits, budget: Budget
    ) -> None:
        self.plane = plane
        self.budget = budget
        self.mailbox = mailbox
        self.executor = executor
        self.limits = limits
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
        self._http = Connection(limits=front.limits.http2)
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
        for event in self._http.receive(data):
            self._take(event)
        self.flush()

    def flush(self) -> None:
        """Write what HTTP/2 has to say."""
        if self._draining:
            self._end_idle_streams()
        out = self._http.take()
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
                self._forget(call)
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
                self._http.send_trailers(event.stream, NOT_GRPC)
                return
            except SeptetError as error:
                self._http.send_trailers(event.stream, error_tail(error.status.grpc, str(error), begun=False))
                return
            self._last = (event.headers, opening)
        call = self._calls[event.stream] = Call(event.stream, opening, self._limits.message)
        if opening.timeout is not None:
            delay = opening.timeout / 1e9
            call.timer = self._front.loop.call_later(delay, self._expire, call)
        if event.ended:
            self._ended(call)

    def _data(self, event: DataReceived) -> None:
        call, size = self._calls.get(event.stream), len(event.data)
        if call is None:
            self._http.acknowledge(event.stream, size)
            return
        if self._draining and call.opening.method == STREAM and call.reader.empty:
            self._http.acknowledge(event.stream, size)  # not taken any more, as the end of the stream will tell
            if event.ended:
                self._ended(call)
            return
        call.bytes += size
        try:
            for compressed, message in call.reader.feed(event.data):
                if compressed or call.inflating is not None:
                    self._inflate(call, message, compressed)
                else:
                    self._message(call, message)
            if call.bytes > FREE and call.reader.filled > FREE:
                self._hold(call, call.reader.filled)
        except Exception as error:
            self._http.acknowledge(event.stream, size)
            self._fail(call, error)
            return
        if call.takes(self._limits.pending):
            self._http.acknowledge(event.stream, size)
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
            call.inflating = self._lane(call)
        limit = self._limits.message
        work: Work = partial(decompress, message, encoding, limit) if compressed else lambda: message
        call.inflating.run(Step(work, partial(self._inflated, call), long=compressed and len(message) > LONG))

    def _inflated(self, call: Call, plain: Buffer) -> None:
        if not call.over:
            self._message(call, memoryview(plain))

    def _lane(self, call: Call) -> Lane:
        """What keeps the order of messages that threads work on."""
        return Lane(
            self._front.loop, self._front.executor, partial(self._fail, call), partial(self._moved_on, call)
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
            self._http.acknowledge(call.stream, call.withheld)
            call.withheld = 0

    def _ended(self, call: Call) -> None:
        """The client has said all it has to say."""
        call.ended = True
        if not call.reader.empty:
            self._fail(call, RequestInvalid("the message is cut off"))
        elif call.opening.method == STREAM:
            self._end_stream_if_over(call)
        elif not call.settled:
            return
        elif call.message is None:
            self._fail(call, RequestInvalid("a call without a message"))
        else:
            try:
                self._call(call, call.message)
            except Exception as error:
                self._fail(call, error)

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
            self._finish(call, [work()])
            return
        task = self._front.loop.run_in_executor(self._front.executor, work)
        task.add_done_callback(partial(self._called, call))

    def _watch(self, call: Call) -> None:
        """Tell of the server's health, where it is not what was told last."""
        assert call.message is not None
        status = watched(self._plane, call.message)
        if status != call.told:
            call.told = status
            self._send(call, [status])

    def _tell_watchers(self) -> None:
        for call in list(self._calls.values()):
            if call.told:
                self._watch(call)

    def _called(self, call: Call, task: asyncio.Future[bytes]) -> None:
        try:
            self._finish(call, [task.result()])
        except Exception as error:
            self._fail(call, error)
        self.flush()

    def _submit(self, call: Call, message: memoryview, answer: Answerer) -> None:
        """Read a request, many elements beside the loop, and only if the model takes so many."""
        charge, call.charge = call.charge, None
        draft = proto.read_request(message)
        try:
            self._bind(call, draft, len(message), answer, charge)
        except Exception as error:
            self._refuse(call, draft.head.id, error)

    def _bind(self, call: Call, draft: Draft, size: int, answer: Answerer, charge: Charge | None) -> None:
        """Read the elements of a message of `size` bytes."""
        room = draft.room()
        if room <= AT_ONCE:
            self._ask(call, answer, charge, draft.request(self._plane.regions))
            return
        self._plane.admit(draft.outline())
        charge = charge or Charge(self._front.budget)
        charge.grow(size + room)
        if call.inflating is None:
            call.inflating = self._lane(call)
        work = partial(_outcome, partial(draft.request, self._plane.regions))
        call.inflating.run(Step(work, partial(self._read, call, draft.head.id, answer, charge), long=True))

    def _read(self, call: Call, id_: str, answer: Answerer, charge: Charge, outcome: Request | Exception) -> None:
        """On the loop, with a request that took long to read, or what was wrong with it."""
        if isinstance(outcome, Exception):
            self._refuse(call, id_, outcome)
        elif not call.over:
            self._ask(call, answer, charge, outcome)

    def _refuse(self, call: Call, id_: str, error: Exception) -> None:
        """Tell what is wrong with one request, which ends a stream only where the client said so."""
        if call.opening.method == STREAM and not call.opening.ends_on_error and not call.over:
            self._send(call, stream_error(id_, error))
        else:
            self._fail(call, error)

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
        self._write(call, request, response, self._finish)

    def _write(self, call: Call, request: Request, response: Response, then: Sender) -> None:
        """Write an answer, one of many elements beside the loop, and send it as `then` does, in its turn."""
        arrays = response.outputs.values()
        long = sum([array.nbytes for array in arrays if made_of_objects(array)]) > AT_ONCE
        if long and call.deflating is None:
            call.deflating = self._lane(call)
        work = partial(_outcome, partial(self._written, request, response))
        send = partial(self._send_written, call, request, response, then)
        if call.deflating is None:
            send(work())
        else:
            call.deflating.run(Step(work, send, long=long))

    def _send_written(
        self, call: Call, request: Request, response: Response, then: Sender, outcome: list[Buffer] | Exception
    ) -> None:
        """On the loop, with a response that was written, or what was wrong with it."""
        if response.final:
            call.requests.discard(request)
        if isinstance(outcome, Exception):
            self._refuse(call, request.id, outcome)
        elif not call.over:
            then(call, outcome)

    def _written(self, request: Request, response: Response) -> list[Buffer]:
        if response.error is not None:
            raise response.error
        if request.wanted:
            response = classified(self._plane, request, response)
        return proto.write_response(request, response, self._plane.regions)

    # ModelStreamInfer

    def _stream_message(self, call: Call, message: memoryview) -> None:
        try:
            self._submit(call, message, self._stream_answer)
        except SeptetError as error:
            if call.opening.ends_on_error:
                raise
            self._send(call, stream_error(proto.id_of(message), error))

    def _stream_answer(self, call: Call, request: Request, response: Response) -> None:
        """On the loop, with one answer to one request of a stream."""
        if call.over:
            return
        asked = request.parameters.get("triton_enable_empty_final_response") is True
        if response.error is not None or response.outputs or not response.final or asked:
            response.parameters = response.parameters | {"triton_final_response": response.final}
            self._write(call, request, response, self._send_answer)
        else:
            call.requests.discard(request)
        if not call.over:
            self._release(call)
            self._end_stream_if_over(call)
            self._front.dirty.add(self)

    def _send_answer(self, call: Call, chunks: Sequence[Buffer]) -> None:
        self._send(call, proto.prefixed(0x12, chunks))

    def _send(self, call: Call, chunks: list[Buffer]) -> None:
        if not call.begun:
            call.begun = True
            self._http.send_headers(call.stream, self._head(call))
        if self._compresses(call):
            self._deflate(call, chunks, self._send_enveloped)
        else:
            self._send_enveloped(call, enveloped(chunks))

    def _send_enveloped(self, call: Call, chunks: Sequence[Buffer]) -> None:
        self._http.send_data(call.stream, chunks)
        self._front.dirty.add(self)

    def _end_stream_if_over(self, call: Call) -> None:
        if call.ended and not call.over and call.settled:
            if not call.begun:
                self._http.send_headers(call.stream, RESPONSE_HEAD)
            self._http.send_trailers(call.stream, OK_TAIL)
            self._forget(call)

    # Ends

    def _head(self, call: Call) -> bytes:
        return COMPRESSED_HEAD if self._compresses(call) else RESPONSE_HEAD

    def _compresses(self, call: Call) -> bool:
        return self._limits.compression != "none" and call.opening.takes_gzip

    def _deflate(self, call: Call, chunks: Sequence[Buffer], then: Sender) -> None:
        """Compress a message, a long one on a thread, and send it as `then` does, in its turn."""
        if call.deflating is None:
            call.deflating = self._lane(call)

        def send(packed: Buffer) -> None:
            if not call.over:
                then(call, enveloped([packed], compressed=True))

        work = partial(compress, chunks, "gzip", LEVELS[self._limits.compression])
        call.deflating.run(Step(work, send, long=sum(map(len, chunks)) > FREE))

    def _finish(self, call: Call, chunks: Sequence[Buffer]) -> None:
        """The answer to a call that has one."""
        if call.over:
            return
        if self._compresses(call):
            self._deflate(call, chunks, self._respond)
        else:
            self._respond(call, enveloped(chunks))

    def _respond(self, call: Call, chunks: Sequence[Buffer]) -> None:
        self._http.respond(call.stream, self._head(call), chunks, OK_TAIL)
        self._forget(call)

    def _fail(self, call: Call, error: BaseException) -> None:
        if call.over:
            return
        seen = told(error)
        self._http.send_trailers(call.stream, error_tail(seen.status.grpc, str(seen), begun=call.begun))
        self._forget(call)

    def _forget(self, call: Call) -> None:
        call.cancel()
        self._calls.pop(call.stream, None)
        self._http.acknowledge(call.stream, call.withheld)  # the connection's window is the other calls', too
        call.withheld = 0
        self._front.dirty.add(self)

    def _expire(self, call: Call) -> None:
        self._fail(call, DeadlineExceeded("Deadline Exceeded"))
        self.flush()

    # What the server asks

    def sweep(self, now: float) -> None:
        """Hang up on a client that takes too long; tell those who watch."""
        limits = self._limits
        if self._stuck is not None and now - self._stuck > limits.stuck_seconds:
            self._transport.abort()
            return
        if not self._heard and not self._http.greeted and now - self._since > limits.preface_seconds:
            self._transport.close()
            return
        if self._http.stalled(now) > limits.stuck_seconds or self._http.gathering(now) > limits.message_seconds:
            self._transport.abort()
            return
        for call in list(self._calls.values()):
            waits = not call.ended and call.opening.method != STREAM
            if waits and now - call.since > limits.message_seconds + call.bytes / limits.message_rate:
                self._fail(call, DeadlineExceeded("the message took too long"))
        self._tell_watchers()
        self.flush()

    def drain(self) -> None:
        """Take no new calls, nor requests of a stream; hang up when those under way are answered."""
        self._draining = True
        self._http.shut_down()
        self._tell_watchers()
        self.flush()

    def _end_idle_streams(self) -> None:
        for call in list(self._calls.values()):
            if call.idle:
                self._fail(call, Stopping(ENDING))

    def _hang_up_if_over(self) -> None:
        """At the end of a drain: the client knows, and nothing is under way."""
        if self._draining and self._http.shut and not self._calls and not self._http.open_streams:
            self._transport.close()

    @property
    def busy(self) -> bool:
        """Whether a request is under way; streams may stay open without any."""
        return self._http.open_streams > sum(call.idle for call in self._calls.values())

    def abort(self) -> None:
        """Hang up at once."""
        self._transport.abort()


def _outcome(work: Callable[[], Result]) -> Result | Exception:
    """What `work` gives, or what is wrong."""
    try:
        return work()
    except Exception as error:
        return error


def stream_error(id_: str, error: BaseException) -> list[Buffer]:
    """A ModelStreamInferResponse that tells of an error, and whose request it was."""
    text = str(told(error)).encode()
    name = id_.encode()
    inner = proto.prefixed(0x1A, [name]) if name else []
    return [*proto.prefixed(0x0A, [text]), *proto.prefixed(0x12, [b"".join(inner)])]
