# SPDX-License-Identifier: Apache-2.0
"""`Client` and `AsyncClient`: ask any server that speaks KServe v2 (ours, Triton's, others).

Over HTTP, gRPC, and either with shared memory; `septet.wire.call` is the one core of both::

    with Client("grpc://localhost:8001") as client:
        outputs = client.infer("identity", {"INPUT0": array})
"""

from __future__ import annotations

import asyncio
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast
from urllib.parse import urlsplit

from septet.errors import Refused, Unreachable, UsageError
from septet.request import Parameter, Request, Response, Wanted
from septet.tensor import Array
from septet.wire.call import Asks, Call, Document, GrpcAsks, GrpcSession, HttpAsks, HttpSession, Session
from septet.wire.head import Placed
from septet.wire.sendable import sendable
from septet.wire.shared import Shared
from septet.wire.shm import Regions

T = TypeVar("T")

READ = 1 << 20
"""Bytes asked of a socket at once."""

LONGEST = 1_000_000.0
"""Seconds that a client counts, eleven days; it does not wait longer than that but for ever."""

NO_REGIONS = Regions()

PORTS = {"http": 8000, "grpc": 8001}


class Target:
    """Where a server is, and in which protocol it is spoken to."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname or parts.path not in ("", "/"):
            raise UsageError(f"a server's address is http://HOST:PORT or grpc://HOST:PORT, not {url!r}")
        self.scheme = parts.scheme
        self.host = parts.hostname
        try:
            self.port = parts.port or PORTS[parts.scheme]
        except ValueError:
            raise UsageError(f"{url!r} has no port that could be") from None

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{self.host}:{self.port}"

    def asks(self) -> Asks:
        """What can be asked."""
        return HttpAsks() if self.scheme == "http" else GrpcAsks()

    def session(self) -> Session:
        """A new connection's machine."""
        return HttpSession(self.address) if self.scheme == "http" else GrpcSession(self.address)


class _Asker:
    """What both clients have in common: whom they ask, what, and for how long they wait."""

    def __init__(self, url: str, seconds: float) -> None:
        if not seconds > 0:
            raise UsageError(
                f"a client waits for more than 0 seconds, or for ever (math.inf), not for {seconds:g}"
            )
        self._target = Target(url)
        self._asks = self._target.asks()
        self._seconds = seconds if seconds <= LONGEST else None

    def _inference(
        self,
        model: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str | Wanted],
        version: str,
        request_id: str,
        parameters: Mapping[str, Parameter] | None,
        placed: Mapping[str, Placed] | None,
        shared: Shared | None,
    ) -> Call[Response]:
        wanted = tuple([Wanted(one) if isinstance(one, str) else one for one in outputs])
        tensors = {name: _sendable(name, array) for name, array in inputs.items()}
        request = Request(model, tensors, version, request_id, wanted, dict(parameters or {}))
        return self._asks.infer(request, placed or {}, NO_REGIONS if shared is None else shared.regions)

    def _late(self) -> Unreachable:
        within = "" if self._seconds is None else f" within {self._seconds:g} s"
        return Unreachable(f"{self._target.address} did not answer{within}")

    def _gone(self) -> Unreachable:
        return Unreachable(f"{self._target.address} hung up before it answered")


def _sendable(name: str, array: Array) -> Array:
    try:
        return sendable(array)
    except UsageError as error:
        raise UsageError(f"input '{name}': {error}") from None


class Client(_Asker):
    """Asks one server, one call after another; its connection is kept between calls.

    Threads may share one: their calls wait for each other, so that a client of its own for each, or an
    `AsyncClient`, is faster. Each call raises `Refused` with the server's words, or `Unreachable` where no answer
    comes within `seconds` (more than 0; above 1,000,000 for ever). A call is sent a second time only where that
    does no harm (see `septet.wire.call.Call`): an inference that was cut off may have been run, and is not.
    """

    def __init__(self, url: str, *, seconds: float = 60.0) -> None:
        super().__init__(url, seconds)
        self._turn = threading.Lock()
        self._socket: socket.socket | None = None
        self._session = self._target.session()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        outputs: Sequence[str | Wanted] = (),
        version: str = "",
        request_id: str = "",
        parameters: Mapping[str, Parameter] | None = None,
        placed: Mapping[str, Placed] | None = None,
        shared: Shared | None = None,
    ) -> dict[str, Array]:
        """The outputs by name; `placed` are inputs, and some `outputs` may lie, in `shared` memory."""
        call = self._inference(model, inputs, outputs, version, request_id, parameters, placed, shared)
        return self._talk(call).outputs

    def live(self) -> bool:
        """Whether the server runs."""
        return self._holds(self._asks.live())

    def ready(self, model: str = "") -> bool:
        """Whether the server, or that model, can answer."""
        return self._holds(self._asks.ready(model))

    def metadata(self, model: str = "") -> Document:
        """What the server says of itself, or of a model."""
        return self._talk(self._asks.metadata(model))

    def config(self, model: str) -> Document:
        """A model's configuration, by the names of Triton's model_config.proto."""
        return self._talk(self._asks.config(model))

    def statistics(self, model: str = "") -> list[Document]:
        """Triton's statistics of a model, or of all."""
        found: list[Document] = self._talk(self._asks.statistics(model))["model_stats"]
        return found

    def share(self, size: int) -> Shared:
        """Memory shared with the server, registered there; `unshare` ends it."""
        with Shared(size).offered() as shared:
            self._talk(self._asks.register(shared.name, shared.key, 0, size))
        return shared

    def unshare(self, shared: Shared) -> None:
        """Have the server forget it, and give it back."""
        try:
            self._talk(self._asks.unregister(shared.name))
        finally:
            shared.close()

    def _holds(self, call: Call[bool]) -> bool:
        try:
            return self._talk(call)
        except (Refused, Unreachable):
            return False

    def _talk(self, call: Call[T]) -> T:
        """The result of `call`, in its turn; it is sent once more where that does no harm."""
        end = math.inf if self._seconds is None else time.monotonic() + self._seconds
        if not self._turn.acquire(timeout=-1 if self._seconds is None else self._seconds):
            raise self._late()
        try:
            self._hear()
            self._exchange(call, end)
            if call.repeatable:
                self._exchange(call.anew(), end)
        except TimeoutError:
            self._hang_up()
            raise self._late() from None
        except BaseException:  # also an interrupt: whatever comes on this connection now is no other call's answer
            self._hang_up()
            raise
        finally:
            self._turn.release()
        return call.result()

    def _hear(self) -> None:
        """Hear what came since the last call: a connection that was closed meanwhile carries no other."""
        if self._socket is None:
            return
        self._socket.settimeout(0)
        try:
            while data := self._socket.recv(READ):
                self._session.receive(data)
        except BlockingIOError:
            if self._session.usable:
                return
        except OSError:
            pass
        self._hang_up()

    def _exchange(self, call: Call[T], end: float) -> None:
        """Have `call` answered, or fail."""
        if self._socket is None:
            self._socket, self._session = self._dial(end), self._target.session()
        if self._seconds is not None:
            call.timeout = _left(end)
        try:
            self._session.begin(call)
            self._send(end)
            while not call.done:
                self._socket.settimeout(_left(end))
                data = self._socket.recv(READ)
                if not data:
                    raise EOFError
                self._session.receive(data)
                self._send(end)
        except TimeoutError:
            raise
        except (OSError, EOFError):
            self._session.end(self._gone())
        if not self._session.usable:
            self._hang_up()

    def _dial(self, end: float) -> socket.socket:
        try:
            made = socket.create_connection((self._target.host, self._target.port), _left(end))
        except OSError as error:
            raise Unreachable(f"{self._target.address}: {error.strerror or error}") from None
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _send(self, end: float) -> None:
        assert self._socket is not None
        chunks = self._session.take()
        if not chunks:
            return
        self._socket.settimeout(_left(end))
        if sum(map(len, chunks)) <= READ // 16:
            chunks = [b"".join(chunks)]
        for chunk in chunks:
            if len(chunk):
                self._socket.sendall(chunk)

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        """Give the connection back, after the call that is under way; the next call makes a new one."""
        with self._turn:
            self._hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _left(end: float) -> float | None:
    """Seconds until `end`, a little at least; ``None`` for ever."""
    return None if end == math.inf else max(0.001, end - time.monotonic())


class AsyncClient(_Asker):
    """Asks one server from an event loop, many calls side by side.

    gRPC takes them all on one connection, HTTP/1.1 on as many as there are calls, at most `connections`. Calls
    raise, wait, and are sent a second time as a `Client`'s are.
    """

    def __init__(self, url: str, *, seconds: float = 60.0, connections: int = 64) -> None:
        if connections < 1:
            raise UsageError(f"a client needs at least one connection, not {connections}")
        super().__init__(url, seconds)
        self._most = connections if self._target.scheme == "http" else 1
        self._lines: set[_Line] = set()
        self._dialling = 0
        self._waiting: deque[tuple[Call[Any], asyncio.Future[None]]] = deque()

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        outputs: Sequence[str | Wanted] = (),
        version: str = "",
        request_id: str = "",
        parameters: Mapping[str, Parameter] | None = None,
        placed: Mapping[str, Placed] | None = None,
        shared: Shared | None = None,
    ) -> dict[str, Array]:
        """The outputs by name; `placed` are inputs, and some `outputs` may lie, in `shared` memory."""
        call = self._inference(model, inputs, outputs, version, request_id, parameters, placed, shared)
        return (await self._talk(call)).outputs

    async def live(self) -> bool:
        """Whether the server runs."""
        return await self._holds(self._asks.live())

    async def ready(self, model: str = "") -> bool:
        """Whether the server, or that model, can answer."""
        return await self._holds(self._asks.ready(model))

    async def metadata(self, model: str = "") -> Document:
        """What the server says of itself, or of a model."""
        return await self._talk(self._asks.metadata(model))

    async def config(self, model: str) -> Document:
        """A model's configuration, by the names of Triton's model_config.proto."""
        return await self._talk(self._asks.config(model))

    async def statistics(self, model: str = "") -> list[Document]:
        """Triton's statistics of a model, or of all."""
        found: list[Document] = (await self._talk(self._asks.statistics(model)))["model_stats"]
        return found

    async def share(self, size: int) -> Shared:
        """Memory shared with the server, registered there; `unshare` ends it."""
        with Shared(size).offered() as shared:
            await self._talk(self._asks.register(shared.name, shared.key, 0, size))
        return shared

    async def unshare(self, shared: Shared) -> None:
        """Have the server forget it, and give it back."""
        try:
            await self._talk(self._asks.unregister(shared.name))
        finally:
            shared.close()

    async def _holds(self, call: Call[bool]) -> bool:
        try:
            return await self._talk(call)
        except (Refused, Unreachable):
            return False

    async def _talk(self, call: Call[T]) -> T:
        """The result of `call`; it is sent once more where that does no harm."""
        call.timeout = self._seconds
        try:
            async with asyncio.timeout(self._seconds):
                await self._exchange(call)
                if call.repeatable:
                    await self._exchange(call.anew())
        except TimeoutError:
            raise self._late() from None
        return call.result()

    async def _exchange(self, call: Call[T]) -> None:
        """Have `call` answered, or fail."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, future))
        self._dispatch()
        try:
            await future
        except asyncio.CancelledError:
            self._abandon(call)
            raise

    def _dispatch(self) -> None:
        """Give waiting calls to connections with room; where none has, dial one more."""
        for line in list(self._lines):
            while self._waiting and line.session.room:
                line.begin(*self._waiting.popleft())
        lacking = min(len(self._waiting), self._most - len(self._lines)) - self._dialling
        for _ in range(lacking):
            self._dialling += 1
            task = asyncio.ensure_future(self._dial())
            task.add_done_callback(lambda done: done.exception())

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Line(self), self._target.host, self._target.port)
        except OSError as error:
            failure = Unreachable(f"{self._target.address}: {error.strerror or error}")
            while self._waiting:
                call, future = self._waiting.popleft()
                call.failure = failure
                if not future.done():
                    future.set_result(None)
        finally:
            self._dialling -= 1
        self._dispatch()

    def _abandon(self, call: Call[Any]) -> None:
        self._waiting = deque(one for one in self._waiting if one[0] is not call)
        for line in list(self._lines):
            line.forget(call)

    async def close(self) -> None:
        """Hang up; calls under way fail."""
        for line in list(self._lines):
            line.hang_up()
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Line(asyncio.Protocol):
    """One connection of an `AsyncClient`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self.session = client._target.session()
        self.transport = cast(asyncio.Transport, None)
        self._futures: dict[Call[Any], asyncio.Future[None]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._client._lines.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client._lines.discard(self)
        self._settle(self.session.end(self._client._gone()))
        self._client._dispatch()

    def data_received(self, data: bytes) -> None:
        self._settle(self.session.receive(data))
        self._flush()
        if not self.session.usable:
            self._client._lines.discard(self)
            if not self._futures:
                self.transport.close()
        self._client._dispatch()

    def begin(self, call: Call[Any], future: asyncio.Future[None]) -> None:
        """Send `call`; `future` is set when it is done."""
        self._futures[call] = future
        self.session.begin(call)
        self._flush()

    def forget(self, call: Call[Any]) -> None:
        """Nobody waits for `call` any more."""
        if self._futures.pop(call, None) is not None:
            self.session.forget(call)
            self._flush()
            if not self.session.usable:
                self.transport.close()

    def hang_up(self) -> None:
        """Have the calls under way fail, and not be sent again."""
        done = self.session.end(self._client._gone())
        for call in done:
            call.lost = False
        self._settle(done)
        self.transport.close()

    def _settle(self, done: Sequence[Call[Any]]) -> None:
        for call in done:
            future = self._futures.pop(call, None)
            if future is not None and not future.done():
                future.set_result(None)

    def _flush(self) -> None:
        out = self.session.take()
        if out and not self.transport.is_closing():
            self.transport.writelines(out)
