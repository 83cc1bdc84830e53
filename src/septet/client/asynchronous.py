# SPDX-License-Identifier: Apache-2.0
"""The client of an event loop: many calls side by side."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from septet.client.asker import Asker
from septet.errors import Refused, Unreachable, UsageError
from septet.request import Parameter, Wanted
from septet.tensor import Array
from septet.wire.call import Call, Document
from septet.wire.head import Placed
from septet.wire.shared import Shared

T = TypeVar("T")


class AsyncClient(Asker):
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
        self._dialling: set[asyncio.Task[None]] = set()
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
        return self._result(call)

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
        usable = sum(line.session.usable for line in self._lines)
        lacking = min(len(self._waiting), self._most - usable) - len(self._dialling)
        for _ in range(lacking):
            task = asyncio.create_task(self._dial())
            self._dialling.add(task)
            task.add_done_callback(self._dialled)

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Line(self), self._target.host, self._target.port)
        except OSError as error:
            self._fail_waiting(Unreachable(f"{self._target.address}: {error.strerror or error}"))

    def _dialled(self, task: asyncio.Task[None]) -> None:
        self._dialling.discard(task)
        if not task.cancelled() and task.exception() is None:
            self._dispatch()

    def _fail_waiting(self, failure: Unreachable) -> None:
        while self._waiting:
            call, future = self._waiting.popleft()
            call.failure = failure
            if not future.done():
                future.set_result(None)

    def _abandon(self, call: Call[Any]) -> None:
        self._waiting = deque(one for one in self._waiting if one[0] is not call)
        for line in list(self._lines):
            line.forget(call)

    async def close(self) -> None:
        """Hang up; calls under way, and those that wait for a connection, fail."""
        self._fail_waiting(self._gone())
        for task in self._dialling:
            task.cancel()
        for line in list(self._lines):
            line.hang_up()
        await asyncio.gather(*self._dialling, asyncio.sleep(0), return_exceptions=True)

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
        if not self.session.usable and not self._futures:
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
