# SPDX-License-Identifier: Apache-2.0
"""What a server and a model's process say to each other: msgpack, never pickle; large tensors lie in an arena."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from septet.serving.process.arena import Arena
from septet.tensor import KSERVE_DTYPES, KSERVE_NAMES, Array, from_raw, to_raw

INLINE = 4_096
"""Tensors of up to so many bytes travel in the message."""

OUT_OF_MEMORY = 112
"""The exit status of a process whose model reached its memory limit."""

Parameters: TypeAlias = dict[str, str | int | float | bool]


class Packed(msgspec.Struct, array_like=True):
    """A tensor: its bytes in `data`, or `size` bytes from `offset` on in the sender's arena."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes = b""
    offset: int = -1
    size: int = 0


class Setup(msgspec.Struct, tag=True):
    """The first message to a process: `config` is JSON; `complete` asks for ``auto_complete_config`` only."""

    config: str
    name: str
    version: str
    instance: str
    folder: str
    file: str
    complete: bool = False


class Asked(msgspec.Struct, array_like=True):
    """A request. `number` is its own as long as the process lives; `deadline` is in ns of the monotonic clock.
    `once` as in `septet.request.Request`."""

    number: int
    model: str
    version: str
    id: str
    inputs: list[Packed]
    wanted: list[str]
    parameters: Parameters
    timeout: int = 0
    deadline: int | None = None
    once: bool = False


class Execute(msgspec.Struct, tag=True):
    """Run these requests together."""

    requests: list[Asked]


class Given(msgspec.Struct, array_like=True):
    """A response: tensors, or an error by Triton's code."""

    outputs: list[Packed]
    parameters: Parameters = {}
    error: str | None = None
    code: str = "INTERNAL"


class _Said(msgspec.Struct):
    """What a model itself wrote into a response; the fields are for the error that says where it is wrong."""

    parameters: Parameters
    error: str | None
    code: str


_SAID = msgspec.msgpack.Decoder(_Said)
_ENCODER = msgspec.msgpack.Encoder()


def sendable(given: Given) -> Given:
    """`given`, where the other side can read what a model wrote into it beside tensors.

    Raises TypeError, ValueError, OverflowError: a message that holds it would end the process.
    """
    if given.parameters or given.error is not None:
        _SAID.decode(_ENCODER.encode(_Said(given.parameters, given.error, given.code)))
    return given


_ASKED = msgspec.msgpack.Decoder(Asked)


def readable(asked: Asked) -> Asked:
    """A model's own request as the server reads it. Raises as `sendable` does, for the same reason."""
    return _ASKED.decode(_ENCODER.encode(asked))


class Ready(msgspec.Struct, tag=True):
    """The model is initialised; `config` is JSON where it was to be completed."""

    config: str = ""


class Failed(msgspec.Struct, tag=True):
    """The model is not initialised, or its ``execute`` as a whole failed."""

    text: str


class Done(msgspec.Struct, tag=True):
    """``execute`` has returned; one response a request, except those that are sent later or were sent before."""

    responses: list[Given | None]


class Sent(msgspec.Struct, tag=True):
    """One of several responses to request `number`."""

    number: int
    response: Given | None
    final: bool


class Call(msgspec.Struct, tag=True):
    """A model asks another; `call` tells the answers apart."""

    call: int
    request: Asked


class Cancel(msgspec.Struct, tag=True):
    """Nobody waits for the answers to a `Call` any more."""

    call: int


class Called(msgspec.Struct, tag=True):
    """An answer to a `Call`."""

    call: int
    response: Given
    final: bool


class Question(msgspec.Struct, tag=True):
    """Is request `number` cancelled? Or, with `model`: is that model ready?"""

    call: int
    number: int = -1
    model: str = ""
    version: str = ""


class NewMetric(msgspec.Struct, tag=True):
    """A model defines a metric, which is its `metric`-th. `buckets` are the bounds of a histogram."""

    call: int
    metric: int
    name: str
    kind: str
    help: str
    labels: dict[str, str]
    buckets: list[float]


class Update(msgspec.Struct, tag=True):
    """A metric is set, or there is something to `add`; nobody waits for an answer."""

    metric: int
    value: float
    add: bool


class ReadMetric(msgspec.Struct, tag=True):
    """What is the value of a metric?"""

    call: int
    metric: int


class Told(msgspec.Struct, tag=True):
    """The answer to `NewMetric`, `Load` and `Unload`, where an `error` says why not, and to `ReadMetric`."""

    call: int
    value: float = 0.0
    error: str = ""


class Load(msgspec.Struct, tag=True):
    """A model has the server load one; `config` is JSON where there is one, `files` are by ``file:PATH``."""

    call: int
    model: str
    config: str
    files: dict[str, bytes]


class Unload(msgspec.Struct, tag=True):
    """A model has the server unload one, for `dependents` with those that it is made of."""

    call: int
    model: str
    dependents: bool


class Reply(msgspec.Struct, tag=True):
    """Yes or no to a `Question`."""

    call: int
    yes: bool


class Finish(msgspec.Struct, tag=True):
    """Finalise the model and end."""


ToProcess: TypeAlias = Setup | Execute | Finish
FromProcess: TypeAlias = Ready | Failed | Done | Sent
ToCaller: TypeAlias = Called | Reply | Told
FromCaller: TypeAlias = Call | Cancel | Question | NewMetric | Update | ReadMetric | Load | Unload


def pack(name: str, array: Array, arena: Arena | None) -> Packed:
    """`array` as it is sent: in the message, or in `arena` where there is one and the tensor is large."""
    raw = to_raw(array)
    datatype = KSERVE_NAMES[array.dtype] if array.dtype.kind not in "SU" else "BYTES"
    if arena is None or len(raw) <= INLINE:
        return Packed(name, datatype, array.shape, bytes(raw))
    return Packed(name, datatype, array.shape, b"", arena.place(raw), len(raw))


def unpack(packed: Packed, arena: Arena | None) -> Array:
    """The tensor that was sent, in memory of its own. Raises ValueError where its bytes are not what it says."""
    dtype = KSERVE_DTYPES.get(packed.datatype)
    if dtype is None:
        raise ValueError(f"no datatype is called {packed.datatype!r}")
    if packed.offset < 0:
        return from_raw(bytearray(packed.data), dtype, packed.shape)
    if arena is None:
        raise ValueError("a tensor lies in an arena that is not there")
    return from_raw(arena.copy(packed.offset, packed.size), dtype, packed.shape)
