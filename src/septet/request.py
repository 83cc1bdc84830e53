# SPDX-License-Identifier: Apache-2.0
"""The datum that walks the house: what a client asks of a model, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import TypeAlias

from septet.errors import SeptetError
from septet.tensor import Array

Parameter: TypeAlias = str | int | float | bool
"""The value of a request's, a response's or a load's parameter."""

INTEGERS = range(-(2**63), 2**64)
"""Those that a parameter may be: protobuf has a place for them."""

SCHEDULING = {"priority", "timeout"}
"""The parameters by which a client says when its request is to run; `timeout` is in µs."""


@dataclass(frozen=True, slots=True)
class Region:
    """`size` bytes from `offset` on in the shared-memory region registered as `name`."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """One output that a client asks for.

    `classes` > 0 asks for that many best classes as BYTES instead of the tensor. `region` says where the
    tensor is to be written. `binary` says how HTTP is to send it; ``None`` leaves it to the request.
    """

    name: str
    classes: int = 0
    region: Region | None = None
    binary: bool | None = None


@dataclass(slots=True, eq=False)
class Request:
    """A client's request to a model; an empty `version` leaves the choice to the server.

    BYTES tensors are object arrays of ``bytes``. No `wanted` means every output. Priority, timeout (µs) and
    sequence ids are `parameters` by Triton's names. `arrived` and `deadline` are in ns of the monotonic clock.
    A step of an ensemble is `part_of` the request to it, and is cancelled with it.
    """

    model: str
    inputs: dict[str, Array]
    version: str = ""
    id: str = ""
    wanted: tuple[Wanted, ...] = ()
    parameters: dict[str, Parameter] = field(default_factory=dict)
    arrived: int = field(default_factory=monotonic_ns)
    deadline: int | None = None
    once: bool = False
    """Whether the client can take one answer only, and a decoupled model is to refuse it."""
    part_of: Request | None = None
    likeness: object = None
    """What it shares with requests whose tensors have the same names, dtypes and shapes, if there is such a thing:
    of these, one need be checked."""
    lying: dict[str, Callable[[], Array]] | None = None
    """How inputs are read that still lie in shared memory. What stands for them in `inputs` is of their dtype and
    shape, and of no use beyond that."""
    keeps: object = None
    """What is to live as long as the request: a server's count of the bytes that it holds."""
    _cancelled: bool = field(default=False, init=False)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._cancelled or (self.part_of is not None and self.part_of.cancelled)

    def fetch(self) -> None:
        """Read what still lies in shared memory. Raises RegionInvalid where it is not there any more."""
        if self.lying:
            for name, read in self.lying.items():
                self.inputs[name] = read()
            self.lying = None

    def cancel(self) -> None:
        """Nobody waits for the answer any more: what has not begun to run never will."""
        self._cancelled = True


@dataclass(slots=True, eq=False)
class Response:
    """A model's answer, or the `error` that stands for it. Decoupled models send several, the last one `final`."""

    model: str
    version: str = ""
    id: str = ""
    outputs: dict[str, Array] = field(default_factory=dict)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    error: SeptetError | None = None
    final: bool = True


Answer: TypeAlias = Callable[[Response], None]
"""What takes a response; it is called from any thread and must return at once."""
