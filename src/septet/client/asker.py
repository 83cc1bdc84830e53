# SPDX-License-Identifier: Apache-2.0
"""What both clients have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from septet.client.target import Target
from septet.errors import Unreachable, UsageError
from septet.request import Parameter, Request, Response, Wanted
from septet.tensor import Array
from septet.wire.call import Call
from septet.wire.head import Placed
from septet.wire.sendable import parameters_sendable, sendable
from septet.wire.shared import Shared
from septet.wire.shm import Regions

T = TypeVar("T")

LONGEST = 1_000_000.0
"""Seconds that a client counts, eleven days; it does not wait longer than that but for ever."""

NO_REGIONS = Regions()


class Asker:
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
        request = Request(model, tensors, version, request_id, wanted, parameters_sendable(parameters or {}))
        return self._asks.infer(request, placed or {}, NO_REGIONS if shared is None else shared.regions)

    def _result(self, call: Call[T]) -> T:
        """What `call` has found. Raises Refused, and Unreachable where the server kept the client's time, too."""
        try:
            return call.result()
        except TimeoutError:
            raise self._late() from None

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
