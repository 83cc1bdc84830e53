# SPDX-License-Identifier: Apache-2.0
"""The client of threads: one call after another."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

from septet.client.asker import Asker
from septet.client.link import Link, left
from septet.errors import Refused, Unreachable
from septet.request import Parameter, Response, Wanted
from septet.tensor import Array
from septet.wire.call import Call, Document
from septet.wire.head import Placed
from septet.wire.shared import Shared

T = TypeVar("T")


class Client(Asker):
    """Asks one server, one call after another; its connection is kept between calls.

    Threads may share one: their calls wait for each other, so that a client of its own for each, or an
    `AsyncClient`, is faster. Each call raises `Refused` with the server's words, or `Unreachable` where no answer
    comes within `seconds` (more than 0; above 1,000,000 for ever). A call is sent a second time only where that
    does no harm (see `septet.wire.call.Call`): an inference that was cut off may have been run, and is not.
    """

    def __init__(self, url: str, *, seconds: float = 60.0) -> None:
        super().__init__(url, seconds)
        self._turn = threading.Lock()
        self._link: Link | None = None
        self._session = self._target.session()
        self._end = math.inf
        """When what was begun is to end."""

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

    def prepare(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        outputs: Sequence[str | Wanted] = (),
        placed: Mapping[str, Placed] | None = None,
        shared: Shared | None = None,
    ) -> Call[Response]:
        """An inference to `begin` and `finish`, again and again for what lies in `shared` memory then."""
        return self._inference(model, inputs, outputs, "", "", None, placed, shared)

    def begin(self, call: Call[Response]) -> None:
        """Send what was prepared. Other calls wait until it is finished, which any thread may do."""
        self._end = self._own_turn()
        try:
            self._hear()
            self._start(call.anew(), self._end)
        except BaseException as error:
            self._turn.release()
            raise self._broken_off(error) from None
        if call.done:  # the connection was lost meanwhile
            self._turn.release()
            self._result(call)

    def finish(self, call: Call[Response]) -> dict[str, Array]:
        """The outputs of what was begun, waited for."""
        try:
            self._await(call, self._end)
            if call.repeatable:
                self._exchange(call.anew(), self._end)
        except BaseException as error:
            raise self._broken_off(error) from None
        finally:
            self._turn.release()
        try:
            return self._result(call).outputs
        finally:
            call.anew()  # what is kept to be asked again keeps no answer

    def fileno(self) -> int:
        """The connection's, where there is something to read once what was begun is answered."""
        assert self._link is not None
        return self._link.fileno()

    @property
    def overdue(self) -> bool:
        """Whether what was begun is not to be waited for any more: finishing it raises."""
        return time.monotonic() >= self._end

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
        end = self._own_turn()
        try:
            self._hear()
            self._exchange(call, end)
            if call.repeatable:
                self._exchange(call.anew(), end)
        except BaseException as error:
            raise self._broken_off(error) from None
        finally:
            self._turn.release()
        return self._result(call)

    def _own_turn(self) -> float:
        """When the call is to end whose turn it is now; its turn is waited for."""
        if self._seconds is None:
            self._turn.acquire()
            return math.inf
        end = time.monotonic() + self._seconds
        if not self._turn.acquire(timeout=self._seconds):
            raise self._late()
        return end

    def _broken_off(self, error: BaseException) -> BaseException:
        """What to raise, after `error`, also an interrupt: what comes on this connection now is no other call's
        answer."""
        self._hang_up()
        return self._late() if isinstance(error, TimeoutError) else error

    def _hear(self) -> None:
        """Hear what came since the last call: a connection that was closed meanwhile carries no other."""
        if self._link is None:
            return
        with suppress(OSError):
            while self._link.waiting():
                data = self._link.receive(math.inf)
                if not data:
                    break
                self._session.receive(data)
            else:
                if self._session.usable:
                    return
        self._hang_up()

    def _exchange(self, call: Call[T], end: float) -> None:
        """Have `call` answered, or fail."""
        self._start(call, end)
        self._await(call, end)

    def _start(self, call: Call[T], end: float) -> None:
        """Send `call`; where the connection is lost, it fails."""
        if self._link is None:
            self._link, self._session = self._dial(end), self._target.session()
        call.timeout = left(end)
        try:
            self._session.begin(call)
            self._send(self._link, end)
        except (OSError, EOFError) as error:
            self._lost(error)

    def _await(self, call: Call[T], end: float) -> None:
        """Wait until `call` is answered, or fails."""
        assert self._link is not None
        try:
            while not call.done:
                data = self._link.receive(end)
                if not data:
                    raise EOFError
                self._session.receive(data)
                self._send(self._link, end)
        except (OSError, EOFError) as error:
            self._lost(error)
        if not self._session.usable:
            self._hang_up()

    def _lost(self, error: Exception) -> None:
        """End what was under way on a connection that is lost. Raises TimeoutError where it is not."""
        if isinstance(error, TimeoutError):
            raise error
        self._session.end(self._gone())

    def _dial(self, end: float) -> Link:
        try:
            return Link(self._target.host, self._target.port, end)
        except TimeoutError:
            raise
        except OSError as error:
            raise Unreachable(f"{self._target.address}: {error.strerror or error}") from None

    def _send(self, link: Link, end: float) -> None:
        chunks = self._session.take()
        if chunks:
            link.send(chunks, end)

    def _hang_up(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

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
