# SPDX-License-Identifier: Apache-2.0
"""The same procedures on grpcio's server, at several times the cost of `septet.serving.grpc`."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc

from septet.errors import DeadlineExceeded, PortUnavailable, SeptetError, Unsupported
from septet.request import Request, Response
from septet.serving import rpc
from septet.serving.failure import told
from septet.serving.grpc import INFER, STREAM, GrpcLimits, stream_error
from septet.serving.outputs import classified
from septet.serving.plane import Plane
from septet.stubs import SERVICE
from septet.wire import proto

THREADS = 64
CANCEL_SECONDS = 0.5
"""How long grpcio may take to give up calls that did not end in time."""
Answerer = Callable[[Request, Response], None]
CODES = {code.value[0]: code for code in grpc.StatusCode}


class FallbackGrpc:
    """A grpcio server that has started."""

    def __init__(self, plane: Plane, address: str, limits: GrpcLimits) -> None:
        self._plane = plane
        self._server = grpc.server(
            ThreadPoolExecutor(THREADS, "septet-grpcio"),
            options=[("grpc.max_receive_message_length", limits.message), ("grpc.max_send_message_length", -1)],
        )
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(partial(self._call, name)) for name in rpc.PROCEDURES
        }
        handlers[INFER] = grpc.unary_unary_rpc_method_handler(self._infer)
        handlers[STREAM] = grpc.stream_stream_rpc_method_handler(self._stream)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise PortUnavailable(f"cannot listen for gRPC on {address}: {error}") from None
        self._server.start()

    def stop(self, seconds: float) -> None:
        """End when the calls under way have, or after `seconds`."""
        self._server.stop(max(0.0, seconds)).wait(max(0.0, seconds) + CANCEL_SECONDS)

    def _call(self, method: str, message: bytes, context: Any) -> bytes:
        return self._told(context, lambda: rpc.call(method, self._plane, message))

    def _infer(self, message: bytes, context: Any) -> bytes:
        def work() -> bytes:
            answers: queue.SimpleQueue[Response] = queue.SimpleQueue()
            request = self._submit(message, context, lambda _, one: answers.put(one))
            try:
                response = answers.get(timeout=_seconds_left(context))
            except queue.Empty:
                request.cancel()
                raise DeadlineExceeded("Deadline Exceeded") from None
            if response.error is None and not response.final:
                request.cancel()
                raise Unsupported("ModelInfer RPC doesn't support models with decoupled transaction policy")
            return self._written(request, response)

        return self._told(context, work)

    def _submit(self, message: bytes, context: Any, answer: Answerer) -> Request:
        request = proto.read_request(message, self._plane.regions)
        left = _seconds_left(context)
        if left is not None:
            request.deadline = time.monotonic_ns() + int(left * 1e9)
        context.add_callback(request.cancel)
        self._plane.submit(request, partial(answer, request))
        return request

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
            seen = told(error)
            context.abort(CODES[seen.status.grpc], str(seen))
            raise  # abort has raised already

    def _stream(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        answers: queue.SimpleQueue[tuple[Request | None, Response | SeptetError | None]] = queue.SimpleQueue()
        reader = ThreadPoolExecutor(1, "septet-grpcio-stream")
        reader.submit(self._read, messages, context, answers)
        pending, ended = 0, False
        while pending or not ended:
            request, answer = answers.get()
            if answer is None:
                pending, ended = (pending + 1, ended) if request is not None else (pending, True)
            elif request is None or isinstance(answer, SeptetError):
                assert isinstance(answer, SeptetError)
                yield b"".join(stream_error("", answer))
            else:
                pending -= answer.final
                yield from self._streamed(request, answer)
        reader.shutdown(wait=False)

    def _read(self, messages: Iterator[bytes], context: Any, answers: Any) -> None:
        try:
            for message in messages:
                try:
                    request = self._submit(message, context, lambda one, answer: answers.put((one, answer)))
                    answers.put((request, None))
                except SeptetError as error:
                    answers.put((None, error))
        finally:
            answers.put((None, None))

    def _streamed(self, request: Request, response: Response) -> Iterator[bytes]:
        asked = request.parameters.get("triton_enable_empty_final_response") is True
        try:
            if response.error is None and not (response.outputs or not response.final or asked):
                return
            response.parameters = response.parameters | {"triton_final_response": response.final}
            yield b"".join(proto.prefixed(0x12, [self._written(request, response)]))
        except Exception as error:
            yield b"".join(stream_error(request.id, error))


def _seconds_left(context: Any) -> float | None:
    """Until the deadline; grpcio tells of a very distant one where there is none."""
    left: float | None = context.time_remaining()
    return left if left is not None and left < threading.TIMEOUT_MAX else None
