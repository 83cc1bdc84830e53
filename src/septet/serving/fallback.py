# SPDX-License-Identifier: Apache-2.0
"""The same procedures on grpcio's server, at several times the cost of `septet.serving.grpc`."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn, TypeAlias

import grpc

from septet.errors import DeadlineExceeded, PortUnavailable, Stopping
from septet.request import Request, Response
from septet.serving import rpc
from septet.serving.answers import stream_error
from septet.serving.call import ENDING, ENDS_ON_ERROR, INFER, STREAM
from septet.serving.failure import told
from septet.serving.grpc import GrpcLimits
from septet.serving.health import CHECK, HEALTH, WATCH, watched
from septet.serving.outputs import classified
from septet.serving.plane import Plane
from septet.stubs import SERVICE
from septet.wire import proto

THREADS = 64
WATCH_SECONDS = 1.0
LEAST_SECONDS = 0.25
"""What grpcio may take to end even if nothing is under way."""

Answerer = Callable[[Request, Response], None]
Answers: TypeAlias = "queue.SimpleQueue[tuple[Request | None, Response | None]]"
"""In a stream a request came (no answer), or was answered, or the stream ends (neither)."""
CODES = {code.value[0]: code for code in grpc.StatusCode}


class FallbackGrpc:
    """A grpcio server that has started."""

    def __init__(self, plane: Plane, address: str, limits: GrpcLimits) -> None:
        self._plane = plane
        self._streams: set[Answers] = set()
        self._stopping = threading.Event()
        self._server = grpc.server(
            ThreadPoolExecutor(THREADS, "septet-grpcio"),
            options=[("grpc.max_receive_message_length", limits.message), ("grpc.max_send_message_length", -1)],
        )
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(partial(self._call, name)) for name in rpc.PROCEDURES
        }
        handlers[INFER] = grpc.unary_unary_rpc_method_handler(self._infer)
        handlers[STREAM] = grpc.stream_stream_rpc_method_handler(self._stream)
        health = {
            CHECK: grpc.unary_unary_rpc_method_handler(partial(self._call, CHECK)),
            WATCH: grpc.unary_stream_rpc_method_handler(self._watch),
        }
        for service, members in ((SERVICE, handlers), (HEALTH, health)):
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, members),))
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise PortUnavailable(f"cannot listen for gRPC on {address}: {error}") from None
        self._server.start()

    def stop(self, seconds: float) -> bool:
        """End when the requests under way have, or after `seconds`; whether all of them had."""
        self._stopping.set()
        for answers in list(self._streams):
            answers.put((None, None))  # so that a stream without requests looks up, and ends
        seconds = max(LEAST_SECONDS, seconds)
        ended = bool(self._server.stop(seconds + 1.0).wait(seconds))
        if not ended:
            self._server.stop(None)
        return ended

    def _call(self, method: str, message: bytes, context: Any) -> bytes:
        return self._told(context, lambda: rpc.call(method, self._plane, message))

    def _watch(self, message: bytes, context: Any) -> Iterator[bytes]:
        """Tell of the server's health whenever it changes."""
        told = b""
        while context.is_active():
            stopping = self._stopping.is_set()
            status = self._told(context, lambda: watched(self._plane, message))
            if status != told:
                told = status
                yield status
            if stopping:
                _end(context, Stopping(ENDING))
            self._stopping.wait(WATCH_SECONDS)

    def _infer(self, message: bytes, context: Any) -> bytes:
        def work() -> bytes:
            answers: queue.SimpleQueue[Response] = queue.SimpleQueue()
            request = self._request(message)
            request.once = True
            self._submit(request, context, lambda _, one: answers.put(one))
            try:
                response = answers.get(timeout=_seconds_left(context))
            except queue.Empty:
                request.cancel()
                raise DeadlineExceeded("Deadline Exceeded") from None
            return self._written(request, response)

        return self._told(context, work)

    def _request(self, message: bytes) -> Request:
        draft = proto.read_request(message)
        if draft.room():
            self._plane.admit(draft.outline())
        return draft.request(self._plane.regions)

    def _submit(self, request: Request, context: Any, answer: Answerer) -> None:
        left = _seconds_left(context)
        if left is not None:
            request.deadline = time.monotonic_ns() + int(left * 1e9)
        context.add_callback(request.cancel)
        self._plane.submit(request, partial(answer, request))

    def _written(self, request: Request, response: Response) -> bytes:
        if response.error is not None:
            raise response.error
        if request.wanted:
            response = classified(self._plane, request, response)
        return b"".join(proto.write_response(request, response, self._plane.regions))

    def _told(self, context: Any, work: Callable[[], bytes]) -> bytes:
        try:
            return work()
        except Exception as error:
            _end(context, error)

    def _stream(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        answers: Answers = queue.SimpleQueue()
        self._streams.add(answers)
        reader = ThreadPoolExecutor(1, "septet-grpcio-stream")
        reading = reader.submit(self._read, messages, context, answers)
        pending, ended = 0, False
        try:
            while pending or not (ended or self._stopping.is_set()):
                request, answer = answers.get()
                if request is None:
                    ended = True
                elif answer is None:
                    pending += 1
                else:
                    pending -= answer.final
                    yield from self._streamed(request, answer, context)
            if self._stopping.is_set() and not reading.done():
                _end(context, Stopping(ENDING))
        finally:
            self._streams.discard(answers)
            reader.shutdown(wait=False)

    def _read(self, messages: Iterator[bytes], context: Any, answers: Answers) -> None:
        try:
            for message in messages:
                if self._stopping.is_set():
                    continue
                try:
                    request = self._request(message)
                    self._submit(request, context, lambda one, answer: answers.put((one, answer)))
                    answers.put((request, None))
                except Exception as error:
                    unread = Request("", {}, id=proto.id_of(message))
                    answers.put((unread, None))
                    answers.put((unread, Response("", error=told(error))))
        finally:
            answers.put((None, None))

    def _streamed(self, request: Request, response: Response, context: Any) -> Iterator[bytes]:
        asked = request.parameters.get("triton_enable_empty_final_response") is True
        try:
            if response.error is None and not (response.outputs or not response.final or asked):
                return
            response.parameters = response.parameters | {"triton_final_response": response.final}
            yield b"".join(proto.prefixed(0x12, [self._written(request, response)]))
        except Exception as error:
            if ENDS_ON_ERROR in context.invocation_metadata():
                _end(context, error)
            yield b"".join(stream_error(request.id, error))


def _end(context: Any, error: Exception) -> NoReturn:
    """End a call with what went wrong."""
    seen = told(error)
    context.abort(CODES[seen.status.grpc], str(seen))
    raise error  # abort has raised already


def _seconds_left(context: Any) -> float | None:
    """Until the deadline; grpcio tells of a very distant one where there is none."""
    left: float | None = context.time_remaining()
    return left if left is not None and left < threading.TIMEOUT_MAX else None
