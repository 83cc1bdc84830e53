# SPDX-License-Identifier: Apache-2.0
"""What the JSON and the protobuf wire have in common: the head of a request, and the tensors bound to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from septet.errors import RequestInvalid
from septet.request import INTEGERS, SCHEDULING, Parameter, Region, Request, Wanted
from septet.tensor import KSERVE_DTYPES, LENGTH, Array, Buffer, from_raw, size_of
from septet.wire.shm import Regions

ALLOWED_RESERVED = {"triton_enable_empty_final_response"}
"""The parameters with Triton's reserved prefix that a client may send."""

MOST_PARAMETERS = 1024

MOST_TENSORS = 4096
"""Of one request or response."""

LARGEST_HEAD = 1 << 20
"""Bytes of a message beside its tensors' elements."""

AT_ONCE = 256 << 10
"""Bytes; where reading or writing elements takes more beside the message, it is done beside the event loop."""

LATER = 1 << 16
"""Bytes of a tensor in a region from which on it is not read before it is needed: on the way to the thread that
needs it, it would pass through the caches of two more."""

OBJECT = 64
"""Bytes, about, that a short BYTES element takes in memory, beside its place in the array."""


@dataclass(frozen=True, slots=True)
class Input:
    """One input tensor's head: where its data are is said by `region`, `elements`, or (neither) the raw parts.

    `size` is the byte size that was declared, where one was. `elements` reads data that stand in the head itself.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    size: int | None = None
    region: Region | None = None
    elements: Callable[[], Array] | None = None
    nbytes: int = field(init=False)
    """Of all elements, where a shape and a dtype of fixed size say so; otherwise less than 0."""

    def __post_init__(self) -> None:
        nbytes = -1
        if self.dtype.kind != "O":
            with suppress(ValueError):
                nbytes = size_of(self.shape) * self.dtype.itemsize
        object.__setattr__(self, "nbytes", nbytes)

    @property
    def viewed(self) -> bool:
        """Whether the tensor will be a view of the message, or of what is read from a region."""
        return self.elements is None and self.dtype.kind != "O"

    @property
    def stays(self) -> bool:
        """Whether it is read from its region only where it is needed, not where it arrives."""
        return self.region is not None and self.region.size == self.nbytes >= LATER

    def room(self, size: int) -> int:
        """Bytes that reading takes beside the tensor's own `size` bytes.

        Raises `RequestInvalid` for a shape of more BYTES elements than these can be.
        """
        if self.viewed:
            return 0
        count = check_shape(self.shape, self.name)
        if self.elements is None and count * LENGTH.size > size:
            raise RequestInvalid(f"tensor '{self.name}': {size} bytes are too few for {count} BYTES elements")
        return count * (self.dtype.itemsize + (OBJECT if self.dtype.kind == "O" else 0))

    def hollow(self) -> Array:
        """An array of the tensor's dtype and shape that takes no memory."""
        try:
            return np.broadcast_to(np.empty((), self.dtype), self.shape)
        except (ValueError, OverflowError):
            raise RequestInvalid(f"tensor '{self.name}': nothing has such a shape") from None


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A request without its raw tensors. Where these will be views, it is the `likeness` of its requests."""

    model: str
    version: str
    id: str
    inputs: Sequence[Input]
    wanted: tuple[Wanted, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    viewed: bool = field(init=False)
    """Whether all tensors will be views."""
    lent: int = field(init=False)
    """Bytes that inputs are said to have in regions."""

    def __post_init__(self) -> None:
        sizes = [tensor.region.size for tensor in self.inputs if tensor.region is not None]
        object.__setattr__(self, "lent", sum([size for size in sizes if size > 0]))  # less is refused later
        object.__setattr__(self, "viewed", all(tensor.viewed for tensor in self.inputs))


class Draft(NamedTuple):
    """A request whose head is read, and whose elements are not; `binary` answers are for outputs that say nothing.

    What reading the elements will take is known, and the model can be asked whether it takes such a request.
    """

    head: Head
    raw: Sequence[Buffer]
    binary: bool = True

    def room(self) -> int:
        """Bytes that `request` takes beside the message; 0 where it makes views alone.

        Raises `RequestInvalid` where the message cannot hold what the shapes say.
        """
        if self.head.viewed:
            return 0
        raw = iter(self.raw)
        return sum(tensor.room(_size(tensor, raw)) for tensor in self.head.inputs)

    def outline(self) -> Request:
        """A request of these names, dtypes and shapes, whose tensors take no memory. Raises `RequestInvalid`."""
        head = self.head
        inputs = {tensor.name: tensor.hollow() for tensor in head.inputs}
        return Request(head.model, inputs, head.version, head.id, head.wanted, dict(head.parameters))

    def request(self, regions: Regions) -> Request:
        """The request with its elements. Raises as `bind` does."""
        return bind(self.head, self.raw, regions)


def _size(tensor: Input, raw: Iterator[Buffer]) -> int:
    """How many bytes a tensor has in its region, or in the next of `raw`; 0 where it has elements."""
    if tensor.region is not None:
        return tensor.region.size
    return len(next(raw, b"")) if tensor.elements is None else 0


@dataclass(frozen=True, slots=True)
class Placed:
    """An input that a client has put into a region that the server knows."""

    region: Region
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]


def dtype_of(datatype: str, name: str) -> np.dtype[np.generic]:
    """The dtype that KServe calls `datatype`."""
    dtype = KSERVE_DTYPES.get(datatype)
    if dtype is None:
        raise RequestInvalid(f"input or output '{name}' has an unknown datatype '{datatype}'")
    return dtype


def bind(head: Head, raw: Sequence[Buffer], regions: Regions) -> Request:
    """The request of `head`; `raw` are the tensors, in order, of inputs that have neither region nor elements.

    Raises `RequestInvalid` where number or sizes do not fit, and the errors of `Regions.read`.
    """
    inputs: dict[str, Array] = {}
    lying: dict[str, Callable[[], Array]] = {}
    used = 0
    for tensor in head.inputs:
        if tensor.name in inputs:
            raise RequestInvalid(f"input '{tensor.name}' is given twice")
        if tensor.elements is not None:
            inputs[tensor.name] = tensor.elements()
            continue
        if tensor.region is not None and tensor.stays:
            inputs[tensor.name] = tensor.hollow()
            lying[tensor.name] = reader_of(tensor, regions)
            continue
        if tensor.region is not None:
            part: Buffer = regions.read(tensor.region)
        elif used < len(raw):
            part, used = raw[used], used + 1
        else:
            raise RequestInvalid(f"input '{tensor.name}' has no data")
        if len(part) == tensor.nbytes:
            inputs[tensor.name] = np.ndarray(tensor.shape, tensor.dtype, part)
        else:
            inputs[tensor.name] = array_of(part, tensor.dtype, tensor.shape, tensor.name)
    if used != len(raw):
        raise RequestInvalid(f"{len(raw)} raw tensors for {used} inputs")
    wanted = tuple([_held(one, regions) for one in head.wanted]) if head.wanted else ()
    request = Request(head.model, inputs, head.version, head.id, wanted, dict(head.parameters))
    request.likeness = head if head.viewed else None
    request.lying = lying
    return request


def held_size(head: Head, regions: Regions) -> int:
    """Bytes that inputs of `head` have in regions, all of them there. Raises the errors of `Regions.hold`."""
    return sum([regions.hold(tensor.region).size for tensor in head.inputs if tensor.region is not None])


def reader_of(tensor: Input, regions: Regions) -> Callable[[], Array]:
    """What reads `tensor` from its region, which is held. Raises the errors of `Regions.hold`."""
    assert tensor.region is not None
    return partial(_read, regions, regions.hold(tensor.region), tensor.dtype, tensor.shape)


def _read(regions: Regions, region: Region, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Array:
    return np.ndarray(shape, dtype, regions.read(region))


def _held(wanted: Wanted, regions: Regions) -> Wanted:
    """`wanted`, with a hold on the region that it is to be written to."""
    if wanted.region is None:
        return wanted
    return Wanted(wanted.name, wanted.classes, regions.hold(wanted.region), wanted.binary)


def array_of(raw: Buffer, dtype: np.dtype[np.generic], shape: tuple[int, ...], name: str) -> Array:
    """`from_raw` that says whose tensor is wrong."""
    try:
        return from_raw(raw, dtype, shape)
    except ValueError as error:
        raise RequestInvalid(f"tensor '{name}': {error}") from None


def read_placed(
    regions: Regions, region: Region, dtype: np.dtype[np.generic], shape: tuple[int, ...], name: str
) -> Array:
    """The output that a server has put at the start of `region`, which may be larger."""
    raw = regions.read(region)
    count = check_shape(shape, name)
    end = 0 if dtype.kind == "O" else count * dtype.itemsize
    if dtype.kind == "O":
        for _ in range(count):
            if end + LENGTH.size > len(raw):
                break
            end += LENGTH.size + LENGTH.unpack_from(raw, end)[0]
    return array_of(raw[:end], dtype, shape, name)


def check_shape(shape: tuple[int, ...], name: str) -> int:
    """The number of elements; raises `RequestInvalid` for a shape that cannot be."""
    try:
        return size_of(shape)
    except ValueError as error:
        raise RequestInvalid(f"tensor '{name}': {error}") from None


def check_name(name: str) -> None:
    """Raise `RequestInvalid` for a model's or region's name that could be mistaken for a path."""
    if _UNSAFE.search(name) or name in (".", ".."):
        raise RequestInvalid("that name is not allowed: it has characters that no name has")


_UNSAFE = re.compile(r"[/\\%\x00-\x1f\x7f]")


def region_of(parameters: Mapping[str, Parameter], name: str) -> Region | None:
    """The region that a tensor's parameters name, if any."""
    region = parameters.get("shared_memory_region")
    if region is None:
        return None
    offset, size = parameters.get("shared_memory_offset", 0), parameters.get("shared_memory_byte_size")
    if not (isinstance(region, str) and type(offset) is int and type(size) is int):
        raise RequestInvalid(
            f"tensor '{name}': region, offset and byte size of shared memory are a name and two integers"
        )
    if "binary_data_size" in parameters:
        raise RequestInvalid(f"tensor '{name}': must not specify both binary data and shared memory")
    return Region(region, offset, size)


def wanted_of(name: str, parameters: Mapping[str, Parameter]) -> Wanted:
    """One requested output."""
    if not parameters:
        return Wanted(name)
    classes, binary = parameters.get("classification", 0), parameters.get("binary_data")
    if type(classes) is not int or classes < 0:
        raise RequestInvalid(f"output '{name}': classification is a number of classes")
    if binary is not None and not isinstance(binary, bool):
        raise RequestInvalid(f"output '{name}': binary_data is true or false")
    region = region_of(parameters, name)
    if region is not None and classes:
        raise RequestInvalid(f"output '{name}': classes do not go into shared memory")
    return Wanted(name, classes, region, binary)


def check_request(wanted: tuple[Wanted, ...], parameters: Mapping[str, Parameter]) -> None:
    """Raise `RequestInvalid` for an output asked for twice, or a parameter that is Triton's own or cannot be."""
    if len(wanted) > 1 and len({one.name for one in wanted}) < len(wanted):
        raise RequestInvalid("an output is asked for twice")
    check_parameters(parameters)
    for name in parameters:
        if name.startswith("triton_") and name not in ALLOWED_RESERVED:
            raise RequestInvalid(f"parameter '{name}': keys that start with 'triton_' are reserved")
    for name in SCHEDULING & parameters.keys():
        value = parameters[name]
        if type(value) is not int or value < 0:
            raise RequestInvalid(f"invalid value for '{name}' parameter: expected an integer of 0 or more")


def check_parameters(parameters: Mapping[str, Parameter]) -> None:
    """Raise `RequestInvalid` for too many parameters, or an integer that protobuf has no place for."""
    if len(parameters) > MOST_PARAMETERS:
        raise RequestInvalid(f"more than {MOST_PARAMETERS} parameters")
    for name, value in parameters.items():
        if isinstance(value, int) and int(value) not in INTEGERS:
            raise RequestInvalid(f"parameter '{name}': an integer of more than 64 bits")
