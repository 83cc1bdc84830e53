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
        self, model: str, placed: Mapping[str, Placed], outputs: Sequence[str | Wanted], shared: Shared
    ) -> Call[Response]:
        """An inference to `ask` again and again, whose inputs all lie in `shared` memory."""
        return self._inference(model, {}, outputs, "", "", None, placed, shared)

    def ask(self, call: Call[Response]) -> dict[str, Array]:
        """The outputs of what was prepared, for the inputs that lie there now; threads must not ask it side by
        side."""
        try:
            return self._talk(call.anew()).outputs
        finally:
            call.anew()  # what is kept to be asked again keeps no answer

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
        return self._result(call)

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
        if self._link is None:
            self._link, self._session = self._dial(end), self._target.session()
        call.timeout = left(end)
        try:
            self._session.begin(call)
            self._send(self._link, end)
            while not call.done:
                data = self._link.receive(end)
                if not data:
                    raise EOFError
                self._session.receive(data)
                self._send(self._link, end)
        except TimeoutError:
            raise
        except (OSError, EOFError):
            self._session.end(self._gone())
        if not self._session.usable:
            self._hang_up()

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
