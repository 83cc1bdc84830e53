# SPDX-License-Identifier: Apache-2.0
"""What goes out to gRPC's calls: messages in their order, and how calls end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from septet.request import Request, Response
from septet.serving.budget import FREE
from septet.serving.call import STREAM, Call
from septet.serving.failure import told
from septet.serving.lane import Step
from septet.serving.outputs import classified
from septet.serving.plane import Plane
from septet.tensor import Buffer, made_of_objects
from septet.wire import proto
from septet.wire.encoding import LEVELS, compress
from septet.wire.head import AT_ONCE
from septet.wire.headers import write_headers
from septet.wire.messages import OK_TAIL, RESPONSE_HEAD, enveloped, error_tail

COMPRESSED_HEAD = write_headers(
    [(":status", "200"), ("content-type", "application/grpc"), ("grpc-encoding", "gzip")]
)

Result = TypeVar("Result")
Sender = Callable[[Call, Sequence[Buffer]], None]


class Answers:
    """Writes, compresses and sends what calls are told."""

    def __init__(self, plane: Plane, compression: str) -> None:
        self._plane = plane
        self._compression = compression

    def write(self, call: Call, request: Request, response: Response, then: Sender) -> None:
        """Write an answer, one of many elements beside the loop, and send it as `then` does, in its turn."""
        arrays = response.outputs.values()
        long = sum([array.nbytes for array in arrays if made_of_objects(array)]) > AT_ONCE
        if long and call.deflating is None:
            call.deflating = call.carrier.lane(call)
        work = partial(outcome, partial(self._written, request, response))
        send = partial(self._send_written, call, request, response, then)
        if call.deflating is None:
            send(work())
        else:
            call.deflating.run(Step(work, send, long=long))

    def _send_written(
        self, call: Call, request: Request, response: Response, then: Sender, written: list[Buffer] | Exception
    ) -> None:
        """On the loop, with a response that was written, or what was wrong with it."""
        if response.final:
            call.requests.discard(request)
        if isinstance(written, Exception):
            self.refuse(call, request.id, written)
        elif not call.over:
            then(call, written)

    def _written(self, request: Request, response: Response) -> list[Buffer]:
        if response.error is not None:
            raise response.error
        if request.wanted:
            response = classified(self._plane, request, response)
        return proto.write_response(request, response, self._plane.regions)

    def finish(self, call: Call, chunks: Sequence[Buffer]) -> None:
        """The answer to a call that has one."""
        if call.over:
            return
        if self._compresses(call):
            self._deflate(call, chunks, self._respond)
        else:
            self._respond(call, enveloped(chunks))

    def _respond(self, call: Call, chunks: Sequence[Buffer]) -> None:
        call.carrier.http.respond(call.stream, self._head(call), chunks, OK_TAIL)
        call.carrier.forget(call)

    def send_inferred(self, call: Call, chunks: Sequence[Buffer]) -> None:
        """One ModelInferResponse of a stream."""
        self.send(call, proto.prefixed(0x12, chunks))

    def send(self, call: Call, chunks: list[Buffer]) -> None:
        """One message of a stream."""
        if not call.begun:
            call.begun = True
            call.carrier.http.send_headers(call.stream, self._head(call))
        if self._compresses(call):
            self._deflate(call, chunks, self._send_enveloped)
        else:
            self._send_enveloped(call, enveloped(chunks))

    def _send_enveloped(self, call: Call, chunks: Sequence[Buffer]) -> None:
        call.carrier.http.send_data(call.stream, chunks)
        call.carrier.touch()

    def end(self, call: Call) -> None:
        """The end of a stream that went well."""
        if not call.begun:
            call.carrier.http.send_headers(call.stream, RESPONSE_HEAD)
        call.carrier.http.send_trailers(call.stream, OK_TAIL)
        call.carrier.forget(call)

    def refuse(self, call: Call, id_: str, error: Exception) -> None:
        """Tell what is wrong with one request, which ends a stream only where the client said so."""
        if call.opening.method == STREAM and not call.opening.ends_on_error and not call.over:
            self.send(call, stream_error(id_, error))
        else:
            self.fail(call, error)

    def fail(self, call: Call, error: BaseException) -> None:
        """End a call with what went wrong."""
        if call.over:
            return
        seen = told(error)
        call.carrier.http.send_trailers(call.stream, error_tail(seen.status.grpc, str(seen), begun=call.begun))
        call.carrier.forget(call)

    def _head(self, call: Call) -> bytes:
        return COMPRESSED_HEAD if self._compresses(call) else RESPONSE_HEAD

    def _compresses(self, call: Call) -> bool:
        return self._compression != "none" and call.opening.takes_gzip

    def _deflate(self, call: Call, chunks: Sequence[Buffer], then: Sender) -> None:
        """Compress a message, a long one on a thread, and send it as `then` does, in its turn."""
        if call.deflating is None:
            call.deflating = call.carrier.lane(call)

        def send(packed: Buffer) -> None:
            if not call.over:
                then(call, enveloped([packed], compressed=True))

        work = partial(compress, chunks, "gzip", LEVELS[self._compression])
        call.deflating.run(Step(work, send, long=sum(map(len, chunks)) > FREE))


def outcome(work: Callable[[], Result]) -> Result | Exception:
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
