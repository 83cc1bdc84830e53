# SPDX-License-Identifier: Apache-2.0
"""One call of a gRPC procedure: what its headers say, and how far it is."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol

from septet.errors import TooLarge, Unsupported
from septet.request import Request
from septet.serving import rpc
from septet.serving.budget import Charge
from septet.serving.health import CHECK, HEALTH, WATCH
from septet.serving.lane import Lane
from septet.stubs import SERVICE
from septet.wire.encoding import FORMATS
from septet.wire.headers import Headers
from septet.wire.http2 import Connection
from septet.wire.messages import MessageReader, timeout_ns

INFER, STREAM = "ModelInfer", "ModelStreamInfer"
METHODS = {f"/{SERVICE}/{name}": name for name in (*rpc.PROCEDURES, INFER, STREAM)}
METHODS |= {f"/{HEALTH}/{name}": name for name in (CHECK, WATCH)}

ENDS_ON_ERROR = ("triton_grpc_error", "true")
"""The metadata by which a client has a stream end with its first error."""

ENDING = "the server takes no more requests: it ends"
"""What is said to whoever asks while it drains."""


class NotGrpc(Exception):
    """The request is one of HTTP/2, but not of gRPC."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What a call's headers say."""

    method: str
    timeout: int | None
    encoding: str
    takes_gzip: bool
    ends_on_error: bool


def opening_of(headers: Headers) -> Opening:
    """What the headers of a call say. Raises NotGrpc, Unsupported, RequestInvalid, TooLarge."""
    if not headers:
        raise TooLarge("the metadata are larger than this server takes")
    fields = dict(headers)
    if not fields.get("content-type", "").startswith("application/grpc") or fields[":method"] != "POST":
        raise NotGrpc
    method = METHODS.get(fields[":path"])
    if method is None:
        raise Unsupported("no such procedure")
    timeout = fields.get("grpc-timeout")
    encoding = fields.get("grpc-encoding", "identity")
    if encoding != "identity" and encoding not in FORMATS:
        raise Unsupported("grpc-encoding is identity, gzip or deflate")
    return Opening(
        method,
        None if timeout is None else timeout_ns(timeout),
        encoding,
        "gzip" in fields.get("grpc-accept-encoding", ""),
        ENDS_ON_ERROR in fields.items(),
    )


class Carrier(Protocol):
    """The connection that a call goes over."""

    http: Connection

    def lane(self, call: Call) -> Lane:
        """What keeps the order of messages that threads work on."""

    def forget(self, call: Call) -> None:
        """It is over: nobody waits for it."""

    def touch(self) -> None:
        """Something is to be written at the end of this turn of the loop."""


class Call:
    """One stream: a procedure that is being called."""

    __slots__ = (
        "begun",
        "bytes",
        "carrier",
        "charge",
        "deflating",
        "ended",
        "inflating",
        "message",
        "opening",
        "over",
        "reader",
        "requests",
        "since",
        "stream",
        "timer",
        "told",
        "withheld",
    )

    def __init__(self, carrier: Carrier, stream: int, opening: Opening, limit: int) -> None:
        self.carrier = carrier
        self.stream = stream
        self.opening = opening
        self.reader = MessageReader(limit)
        self.message: memoryview | None = None
        self.charge: Charge | None = None
        """Of the message that is being received; of a call that takes one message, until the call is over."""
        self.inflating: Lane | None = None
        self.deflating: Lane | None = None
        self.requests: set[Request] = set()
        self.timer: asyncio.TimerHandle | None = None
        self.begun = False
        self.ended = False
        self.over = False
        self.since = time.monotonic()
        self.bytes = 0
        self.withheld = 0
        """Bytes whose acknowledgement waits until there are fewer requests."""
        self.told = b""
        """What a watcher was told last."""

    @property
    def settled(self) -> bool:
        """Whether all that came is taken, and all answers are sent."""
        lanes = (self.inflating, self.deflating)
        return not self.requests and not any(lane is not None and lane.busy for lane in lanes)

    @property
    def idle(self) -> bool:
        """Whether it is a stream in which nothing is under way."""
        open_ended = self.opening.method == STREAM or bool(self.told)
        return open_ended and self.settled and self.reader.empty

    def takes(self, limit: int) -> bool:
        """Whether the client may send more, with up to `limit` requests on their way."""
        return len(self.requests) <= limit and not (self.inflating is not None and self.inflating.busy)

    def cancel(self) -> None:
        """Nobody waits any more."""
        self.over = True
        self.message = self.charge = self.inflating = self.deflating = None
        for request in self.requests:
            request.cancel()
        self.requests.clear()
        if self.timer is not None:
            self.timer.cancel()
