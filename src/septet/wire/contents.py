# SPDX-License-Identifier: Apache-2.0
"""Tensors as InferTensorContents: their elements one by one in protobuf.

Protobuf's own objects of them are many times as large as the message, and are made by calls that let no other
thread run. So a long one is read here, in pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from septet.errors import RequestInvalid
from septet.stubs import service_pb2
from septet.tensor import KSERVE_DTYPES, Array
from septet.wire.head import check_shape
from septet.wire.protobuf import split, varint

PIECE = 64 << 10
"""Bytes that are read at once. Contents that are no longer may have their elements unpacked."""

LONGEST_NUMBER = 10
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of InferTensorContents; `dtype` is of its elements, `least` how many bytes one takes at least."""

    name: str
    number: int
    dtype: np.dtype[Any]
    least: int = 1

    @property
    def varied(self) -> bool:
        """Whether elements are of one to ten bytes."""
        return self.least == 1


_BOOL = Field("bool_contents", 1, np.dtype(np.bool_))
_INT = Field("int_contents", 2, np.dtype(np.int32))
_UINT = Field("uint_contents", 4, np.dtype(np.uint32))

FIELDS = {
    "BOOL": _BOOL,
    "INT8": _INT,
    "INT16": _INT,
    "INT32": _INT,
    "INT64": Field("int64_contents", 3, np.dtype(np.int64)),
    "UINT8": _UINT,
    "UINT16": _UINT,
    "UINT32": _UINT,
    "UINT64": Field("uint64_contents", 5, np.dtype(np.uint64)),
    "FP32": Field("fp32_contents", 6, np.dtype("<f4"), 4),
    "FP64": Field("fp64_contents", 7, np.dtype("<f8"), 8),
    "BYTES": Field("bytes_contents", 8, np.dtype(np.object_), 2),
}
"""Datatype -> the field that holds it; FP16 and BF16 are raw only."""


def reader_of(
    contents: Sequence[memoryview], datatype: str, shape: tuple[int, ...], name: str
) -> Callable[[], Array]:
    """What reads the tensor of `shape` in `contents`, which together are one message.

    Raises `RequestInvalid`, as does what is returned; here, if so many elements cannot be in so many bytes.
    """
    size, length = check_shape(shape, name), sum(map(len, contents))
    field = FIELDS.get(datatype)
    if field is None:
        raise RequestInvalid(f"input '{name}': {datatype} is sent in raw_input_contents only")
    if size * field.least > length:
        raise RequestInvalid(f"input '{name}': {length} bytes of contents are not {list(shape)}")
    message = contents[0] if len(contents) == 1 else memoryview(b"".join(contents))
    return partial(_read, message, field, KSERVE_DTYPES[datatype], shape, name)


def _read(message: memoryview, field: Field, dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> Array:
    size = check_shape(shape, name)
    try:
        if dtype.kind == "O":
            array: Array = np.fromiter(_texts(message, field, size), np.object_)
        else:
            array = _filled(np.empty(size, dtype), _numbers(message, field, dtype))
    except (Unfit, IndexError, DecodeError) as error:
        why = str(error) if isinstance(error, Unfit) else "the contents are no protobuf"
        raise RequestInvalid(f"input '{name}': {why}") from None
    return array.reshape(shape)


class Unfit(Exception):
    """The contents are not those of the tensor."""


def _texts(message: memoryview, field: Field, size: int) -> Iterator[bytes]:
    """The elements of a BYTES tensor, which are to be `size`."""
    tag = field.number << 3 | 2
    position, end = 0, len(message)
    for count in range(size):
        if position == end:
            raise Unfit(f"{count} elements are not {size}")
        if message[position] != tag:
            raise Unfit("contents of another type than BYTES")
        length, begin = varint(message, position + 1)
        position = begin + length
        if position > end:
            raise Unfit("the contents are cut off")
        yield bytes(message[begin:position])
    if position < end:
        raise Unfit(f"the contents are more than {size} elements")


def _filled(array: Array, parts: Iterator[Array]) -> Array:
    """`array` with `parts`, which are to be all of it."""
    filled = 0
    for part in parts:
        if filled + len(part) > len(array):
            raise Unfit(f"the contents are more than {len(array)} elements")
        array[filled : filled + len(part)] = part
        filled += len(part)
    if filled != len(array):
        raise Unfit(f"{filled} elements are not {len(array)}")
    return array


def _numbers(message: memoryview, field: Field, dtype: np.dtype[Any]) -> Iterator[Array]:
    """The elements of another tensor in pieces."""
    rest, packed = split(message, field.number)
    if rest and len(message) > PIECE:
        raise Unfit(f"contents that are no {field.name}, or not packed")
    parts = (part for each in packed for part in _unpacked(each, field))
    for part in [_parsed(message, field)] if rest else parts:
        fit = part.astype(dtype, copy=False)
        if fit is not part and (fit != part).any():
            raise Unfit(f"an element does not fit {dtype}")
        yield fit


def _parsed(message: memoryview, field: Field) -> Array:
    """What protobuf makes of a short message."""
    contents = service_pb2.InferTensorContents.FromString(bytes(message))
    if any(entry.name != field.name for entry, _ in contents.ListFields()):
        raise Unfit(f"contents of another type than {field.name}")
    return np.array(getattr(contents, field.name), field.dtype)


def _unpacked(packed: memoryview, field: Field) -> Iterator[Array]:
    if field.varied:
        yield from _varied(np.frombuffer(packed, np.uint8), field.dtype)
    elif len(packed) % field.least:
        raise Unfit("the contents are cut off")
    else:
        yield np.frombuffer(packed, field.dtype)


def _varied(packed: Array, dtype: np.dtype[Any]) -> Iterator[Array]:
    """Numbers of several bytes each, of which only the last is below 0x80."""
    start = 0
    while start < len(packed):
        piece = packed[start : start + PIECE]
        ends = np.flatnonzero(piece < 0x80)
        if not len(ends):
            raise Unfit("the contents are cut off")
        starts = np.concatenate(([0], ends[:-1] + 1))
        values = _joined(piece, starts, ends - starts + 1)
        yield values != 0 if dtype.kind == "b" else values.astype(dtype)
        start += int(ends[-1]) + 1


def _joined(piece: Array, starts: Array, lengths: Array) -> Array:
    """Seven bits of each byte, the lowest first."""
    longest = int(lengths.max())
    if longest > LONGEST_NUMBER:
        raise Unfit("the contents are no protobuf")
    values = np.zeros(len(starts), np.uint64)
    for place in range(longest):
        goes_on = lengths > place
        bits = piece[starts[goes_on] + place] & 0x7F
        values[goes_on] |= bits.astype(np.uint64) << np.uint64(7 * place)
    return values
