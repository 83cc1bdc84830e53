# SPDX-License-Identifier: Apache-2.0
"""`Client` and `AsyncClient`: ask any server that speaks KServe v2 (ours, Triton's, others).

Over HTTP, gRPC, and either with shared memory; `septet.wire.call` is the one core of both::

    with Client("grpc://localhost:8001") as client:
        outputs = client.infer("identity", {"INPUT0": array})
"""

from __future__ import annotations

import asyncio
import mmap
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast
from urllib.parse import urlsplit

from septet.errors import Refused, Unreachable, UsageError
from septet.request import Parameter, Region, Request, Response, Wanted
from septet.tensor import Array, to_raw
from septet.wire.call import Asks, Call, Document, GrpcAsks, GrpcSession, HttpAsks, HttpSession, Session
from septet.wire.head import Placed
from septet.wire.shm import FOLDER, Regions

T = TypeVar("T")

READ = 1 << 20
"""Bytes asked of a socket at once."""

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


def asked(
    model: str,
    inputs: Mapping[str, Array],
    outputs: Sequence[str | Wanted],
    version: str,
    request_id: str,
    parameters: Mapping[str, Parameter] | None,
) -> Request:
    """The request of an `infer`."""
    wanted = tuple([Wanted(one) if isinstance(one, str) else one for one in outputs])
    return Request(model, dict(inputs), version, request_id, wanted, dict(parameters or {}))


class Shared:
    """Memory that a client shares with a server on the same machine.

    `put` places an array in it, `leave` keeps room for an output. It is the client's own to `close`. Once the
    server has it open, `hide` takes its name away, so that nothing is left of it even where the client is killed.
    """

    def __init__(self, size: int) -> None:
        self.name = f"client-{secrets.token_hex(8)}"
        self.key = f"/{self.name}"
        self.size = size
        self.regions = Regions()
        self._used = 0
        descriptor = os.open(FOLDER / self.name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size)
            self._memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self.regions.register(self.name, self.key, 0, size)

    def put(self, array: Array) -> Placed:
        """Copy `array` there; what `infer` takes as `placed`."""
        raw = to_raw(array)
        region = self._room(len(raw))
        self._memory[region.offset : region.offset + region.size] = raw
        return Placed(region, array.dtype, array.shape)

    def leave(self, output: str, size: int) -> Wanted:
        """Room of `size` bytes for an output; what `infer` takes as one of its `outputs`."""
        return Wanted(output, region=self._room(size))

    def _room(self, size: int) -> Region:
        start = -(-self._used // 64) * 64
        if start + size > self.size:
            raise UsageError(f"{self.size} bytes of shared memory have no room for {size} more")
        self._used = start + size
        return Region(self.name, start, size)

    def clear(self) -> None:
        """Start anew; arrays and room handed out before are void."""
        self._used = 0

    def hide(self) -> None:
        """Let nobody else open it by its name."""
        (FOLDER / self.name).unlink(missing_ok=True)

    def close(self) -> None:
        """Give the memory back."""
        self.regions.unregister()
        self._memory.close()
        self.hide()


class Client:
    """Asks one server, one call after another; its connection is kept between calls.

    Each call raises `Refused` with the server's words, or `Unreachable` where no answer comes within `seconds`.
    """

    def __init__(self, url: str, *, seconds: float = 60.0) -> None:
        self._target = Target(url)
        self._asks = self._target.asks()
        self._seconds = seconds
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
        request = asked(model, inputs, outputs, version, request_id, parameters)
        regions = Regions() if shared is None else shared.regions
        return self._talk(self._asks.infer(request, placed or {}, regions)).outputs

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
        shared = Shared(size)
        try:
            self._talk(self._asks.register(shared.name, shared.key, 0, size))
        except BaseException:
            shared.close()
            raise
        shared.hide()
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
        """The result of `call`. A kept connection that had been closed meanwhile is tried anew, once."""
        kept = self._socket is not None
        if call.timeout is None:
            call.timeout = self._seconds
        try:
            self._exchange(call)
        except (ConnectionError, EOFError):
            self.close()
            if not kept:
                raise Unreachable(f"{self._target.address} hung up") from None
            try:
                self._exchange(call)
            except (ConnectionError, EOFError):
                self.close()
                raise Unreachable(f"{self._target.address} hung up") from None
        if not self._session.usable:
            self.close()
        return call.result()

    def _exchange(self, call: Call[T]) -> None:
        if self._socket is None:
            self._socket, self._session = self._dial(), self._target.session()
        end = time.monotonic() + self._seconds
        self._session.begin(call)
        try:
            while True:
                self._send(self._session.take(), end)
                if call.done:
                    return
                self._socket.settimeout(max(0.001, end - time.monotonic()))
                data = self._socket.recv(READ)
                if not data:
                    raise EOFError
                self._session.receive(data)
        except TimeoutError:
            self.close()
            raise Unreachable(f"{self._target.address} did not answer within {self._seconds:g} s") from None

    def _dial(self) -> socket.socket:
        try:
            made = socket.create_connection((self._target.host, self._target.port), self._seconds)
        except OSError as error:
            raise Unreachable(f"{self._target.address}: {error.strerror or error}") from None
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _send(self, chunks: Sequence[bytes | bytearray | memoryview], end: float) -> None:
        assert self._socket is not None
        self._socket.settimeout(max(0.001, end - time.monotonic()))
        if sum(map(len, chunks)) <= READ // 16:
            chunks = [b"".join(chunks)]
        for chunk in chunks:
            if len(chunk):
                self._socket.sendall(chunk)

    def close(self) -> None:
        """Give the connection back; the next call makes a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """Asks one server from an event loop, many calls side by side.

    gRPC takes them all on one connection, HTTP/1.1 on as many as there are calls, at most `connections`.
    """

    def __init__(self, url: str, *, seconds: float = 60.0, connections: int = 64) -> None:
        self._target = Target(url)
        self._asks = self._target.asks()
        self._seconds = seconds
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
        request = asked(model, inputs, outputs, version, request_id, parameters)
        regions = Regions() if shared is None else shared.regions
        response: Response = await self._talk(self._asks.infer(request, placed or {}, regions))
        return response.outputs

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
        shared = Shared(size)
        try:
            await self._talk(self._asks.register(shared.name, shared.key, 0, size))
        except BaseException:
            shared.close()
            raise
        shared.hide()
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
        call.timeout = self._seconds
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, future))
        self._dispatch()
        try:
            async with asyncio.timeout(self._seconds):
                await future
        except TimeoutError:
            self._abandon(call)
            raise Unreachable(f"{self._target.address} did not answer within {self._seconds:g} s") from None
        except asyncio.CancelledError:
            self._abandon(call)
            raise
        return call.result()

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
            line.transport.close()
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
        self._settle(self.session.end(Unreachable(f"{self._client._target.address} hung up")))
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

    def _settle(self, done: Sequence[Call[Any]]) -> None:
        for call in done:
            future = self._futures.pop(call, None)
            if future is not None and not future.done():
                future.set_result(None)

    def _flush(self) -> None:
        out = self.session.take()
        if out and not self.transport.is_closing():
            self.transport.writelines(out)
