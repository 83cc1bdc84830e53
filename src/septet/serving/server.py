# SPDX-License-Identifier: Apache-2.0
"""A server's life: ports, signals, and an end in which nothing under way is lost."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import uvloop

from septet.devices.cpu import Cpu
from septet.errors import PortUnavailable
from septet.serving.budget import SHARE, Budget
from septet.serving.exchange import TEXT, Exchange
from septet.serving.fallback import FallbackGrpc
from septet.serving.grpc import Grpc, GrpcConnection, GrpcLimits
from septet.serving.http import HttpConnection, HttpLimits, Router
from septet.serving.mailbox import Mailbox
from septet.serving.plane import Plane
from septet.serving.routes import Routes
from septet.serving.threads import Threads

log = logging.getLogger("septet.serving")

DOORS = ("HTTP", "gRPC", "metrics")

BACKLOG = 4096
ACCEPTORS = 8
"""Descriptors of a listening socket: for each, uvloop takes one connection in a turn of the loop, which is long
under load."""
SCRATCH = 32 << 10
"""Bytes read at once, of anything but a long body."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Of glibc's malloc.h."""

ARENAS = 2
"""Of glibc's; one interpreter lock lets few threads allocate at the same time."""

LAME_SECONDS, PARTING_SECONDS = 1.0, 1.0
"""How long a server that ends still tells newcomers so, and waits for clients to take their leave."""

QUIET_SECONDS = 0.25
"""After which no request is taken to be on its way."""

YOUNG = 10_000
"""Objects after which new ones are looked through for cycles: requests under way are not, and have none."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a server listens on, and for how long it lets requests finish; no address means not at all."""

    http: Address | None = Address("0.0.0.0", 8000)
    grpc: Address | None = Address("0.0.0.0", 8001)
    metrics: Address | None = Address("0.0.0.0", 8002)
    exit_seconds: float = 30.0
    reuse_http: bool = False
    reuse_grpc: bool = False
    """Whether several processes may share the port."""
    grpcio: bool = False
    """Whether grpcio's own server carries gRPC, instead of Septet's."""
    http_limits: HttpLimits = field(default_factory=HttpLimits)
    grpc_limits: GrpcLimits = field(default_factory=GrpcLimits)
    held: int = 0
    """Bytes of requests that all connections together may hold; 0 is a share of the machine's memory."""


class Server:
    """Serves `plane` until it is told to stop."""

    def __init__(self, plane: Plane, settings: Settings) -> None:
        _keep_memory()
        self._plane = plane
        self._settings = settings
        self._sockets = _bound_all(settings)
        self.http, self.grpc, self.metrics = (
            None if bound is None else Address(*bound.getsockname()[:2]) for bound in self._sockets
        )
        self._stopping: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connections: set[HttpConnection] = set()
        self._parting = False
        self.budget = Budget(settings.held or int(SHARE * Cpu.detect().memory * 2**30))

    def run(self, started: Callable[[], None] = lambda: None) -> bool:
        """Serve until SIGTERM, SIGINT or `stop`; whether all that was under way was finished in time.

        `started` is called once the ports answer. Raises PortUnavailable, with the plane closed, where another
        server has begun to listen on one of them meanwhile.
        """
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self._serve(started))

    def stop(self) -> None:
        """End as on SIGTERM; may be called from any thread."""
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None:
            loop.call_soon_threadsafe(stopping.set)

    async def _serve(self, started: Callable[[], None]) -> bool:
        loop = self._loop = asyncio.get_running_loop()
        stopping = self._stopping = asyncio.Event()
        self._watch_signals(loop, stopping)
        threads = Threads()
        mailbox = Mailbox(loop, self._plane)
        try:
            self._begin_to_listen()
        except PortUnavailable:
            self._plane.close(0)
            raise
        listeners, grpc, fallback = await self._listen(loop, mailbox, threads)
        sweeper = asyncio.create_task(self._sweep(grpc))
        gc.freeze()  # what is there now stays: collections need not look at it again
        gc.set_threshold(YOUNG)
        log.info("serving: HTTP %s, gRPC %s, metrics %s", self.http, self.grpc, self.metrics)
        started()
        await stopping.wait()
        deadline = time.monotonic() + self._settings.exit_seconds
        self._plane.retire()
        finished = await self._drain(listeners, grpc, fallback, deadline)
        sweeper.cancel()
        left = max(0.0, deadline - time.monotonic())
        await loop.run_in_executor(None, self._plane.close, left)
        threads.close()
        self._loop = None
        return finished

    def _watch_signals(self, loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
        def stop() -> None:
            if stopping.is_set():
                log.warning("a second signal: ending at once")
                os._exit(1)
            stopping.set()

        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop)
        except (ValueError, RuntimeError):  # not on the main thread, which alone takes signals: `stop` is the way
            pass

    def _begin_to_listen(self) -> None:
        """Until now the ports were only bound: others may have bound them too, and listened first."""
        settings = self._settings
        for bound, address, what in zip(
            self._sockets, (settings.http, settings.grpc, settings.metrics), DOORS, strict=True
        ):
            try:
                if bound is not None:
                    bound.listen(BACKLOG)
            except OSError as error:
                raise PortUnavailable(f"cannot listen for {what} on {address}: {error.strerror}") from None

    async def _listen(
        self, loop: asyncio.AbstractEventLoop, mailbox: Mailbox, threads: Threads
    ) -> tuple[list[asyncio.Server], Grpc | None, FallbackGrpc | None]:
        limits = self._settings.http_limits
        scratch = memoryview(bytearray(SCRATCH))
        routes = Routes(self._plane, mailbox, threads, limits.body)
        http, grpc, metrics = self._sockets
        listeners: list[asyncio.Server] = []
        front: Grpc | None = None
        fallback: FallbackGrpc | None = None
        if http is not None:
            listeners += await _listeners(loop, partial(self._http, routes, limits, scratch), http)
        if grpc is not None and self._settings.grpcio:
            grpc.close()
            fallback = FallbackGrpc(self._plane, str(self.grpc), self._settings.grpc_limits)
        elif grpc is not None:
            front = Grpc(self._plane, mailbox, threads, self._settings.grpc_limits, self.budget)
            listeners += await _listeners(loop, front.connection, grpc)
        if metrics is not None:
            listeners += await _listeners(loop, partial(self._http, self._metrics, limits, scratch), metrics)
        return listeners, front, fallback

    def _http(self, router: Router, limits: HttpLimits, scratch: memoryview) -> HttpConnection:
        connection = HttpConnection(router, self._connections, limits, scratch, self.budget)
        if self._parting:
            connection.part()
        return connection

    def _metrics(self, exchange: Exchange) -> None:
        path = exchange.url.partition(b"?")[0]
        if path not in (b"/metrics", b"/metrics/"):
            exchange.answer(404, [b'{"error":"Not Found"}'])
        elif exchange.method != "GET":
            exchange.answer(405, [b'{"error":"Method Not Allowed"}'])
        else:
            exchange.answer(200, [self._plane.metrics_text().encode()], f"{TEXT}; version=0.0.4; charset=utf-8")

    async def _sweep(self, grpc: Grpc | None) -> None:
        """Once a second, hang up on clients that take too long."""
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            for connection in self._open(grpc):
                connection.sweep(now)

    async def _drain(
        self, listeners: list[asyncio.Server], grpc: Grpc | None, fallback: FallbackGrpc | None, deadline: float
    ) -> bool:
        """Let what is under way finish; whether all of it did.

        At first the doors stay open, so that whoever asks is told that the server is not ready, and HTTP's answers
        say that they are the last of their connection. Then the doors close; connections on which nothing seems to
        be on its way are hung up, and gRPC's clients are told to go away.
        """
        self._parting = True
        for connection in self._connections:
            connection.part()
        await self._quiet(grpc, min(deadline, time.monotonic() + LAME_SECONDS))
        for listener in listeners:
            listener.close()
        await self._quiet(grpc, min(deadline, time.monotonic() + QUIET_SECONDS))
        for one in self._open(grpc):
            one.drain()
        finished = True
        if fallback is not None:
            left = max(0.0, deadline - time.monotonic())
            finished = await asyncio.get_running_loop().run_in_executor(None, fallback.stop, left)
        await self._until(lambda: not self._busy(grpc), deadline)
        finished = finished and not self._busy(grpc)
        await self._until(lambda: not self._open(grpc), min(deadline, time.monotonic() + PARTING_SECONDS))
        for one in self._open(grpc):
            one.abort()
        await asyncio.sleep(0)
        return finished

    async def _quiet(self, grpc: Grpc | None, end: float) -> None:
        """Wait until nobody has asked anything for a while, who could, or the time is up: a client that has its
        answer may have sent its next request already."""
        since = time.monotonic()

        def quiet() -> bool:
            nonlocal since
            if self._busy(grpc):
                since = time.monotonic()
                return False
            return not self._connections or time.monotonic() - since > QUIET_SECONDS

        await self._until(quiet, end)

    async def _until(self, done: Callable[[], bool], end: float) -> None:
        """Wait, a little at least, until `done` or the time is up."""
        await asyncio.sleep(0.05)
        while not done() and time.monotonic() < end:
            await asyncio.sleep(0.02)

    def _open(self, grpc: Grpc | None) -> list[HttpConnection | GrpcConnection]:
        """All connections there are."""
        return [*self._connections, *(grpc.connections if grpc is not None else ())]

    def _busy(self, grpc: Grpc | None) -> bool:
        """Whether a request is under way anywhere."""
        return any(one.busy for one in self._open(grpc))


def _keep_memory() -> None:
    """Have glibc keep what large tensors gave back, instead of asking the kernel for fresh pages each time.

    It keeps it in each of its arenas, and makes new ones as threads come and go (by the manual of mallopt, up to
    eight times as many as there are cores): there are few of them here, so that what is kept is bounded.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for setting, value in (
            (M_TRIM_THRESHOLD, 256 << 20),
            (M_MMAP_THRESHOLD, 32 << 20),
            (M_ARENA_MAX, ARENAS),
        ):
            mallopt(setting, value)


def _bound_all(settings: Settings) -> list[socket.socket | None]:
    """The sockets of HTTP, gRPC and metrics; all or none."""
    made: list[socket.socket | None] = []
    try:
        for address, what, reuse in zip(
            (settings.http, settings.grpc, settings.metrics),
            DOORS,
            (settings.reuse_http, settings.reuse_grpc, False),
            strict=True,
        ):
            made.append(None if address is None else _bound(address, what, reuse=reuse))
    except PortUnavailable:
        for bound in made:
            if bound is not None:
                bound.close()
        raise
    return made


async def _listeners(
    loop: asyncio.AbstractEventLoop, connection: Callable[[], asyncio.BaseProtocol], bound: socket.socket
) -> list[asyncio.Server]:
    """What takes connections on a socket; closing all of them closes it."""
    sockets = [bound, *(bound.dup() for _ in range(ACCEPTORS - 1))]
    return [await loop.create_server(connection, sock=one, backlog=BACKLOG) for one in sockets]


def _bound(address: Address, what: str, *, reuse: bool) -> socket.socket:
    """A socket on `address`; raises `PortUnavailable` that says why not."""
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise PortUnavailable(f"cannot listen for {what} on {address}: {error.strerror or error}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((address.host, address.port))
    except (OSError, OverflowError) as error:
        bound.close()
        why = error.strerror if isinstance(error, OSError) else "no such port"
        raise PortUnavailable(f"cannot listen for {what} on {address}: {why}") from None
    bound.setblocking(False)
    return bound
