# SPDX-License-Identifier: Apache-2.0
"""Tensors as JSON lists, both directions, long ones in pieces.

A list becomes Python objects on its way, many times as large as what they are made of, by calls that let no other
thread run. In pieces neither is much at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from septet.errors import RequestInvalid
from septet.tensor import KSERVE_NAMES, Array, objects
from septet.wire.head import check_shape

PIECE, ELEMENTS_AT_ONCE = 256 << 10, 16 << 10
"""Characters that are read, and elements that are written, at once."""

BINARY_ONLY = {"FP16", "BF16"}

_integers = msgspec.json.Decoder(list[int])
_anything = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode

FLAT: dict[str, msgspec.json.Decoder[Any]] = {
    "b": msgspec.json.Decoder(list[bool]),
    "i": _integers,
    "u": _integers,
    "f": msgspec.json.Decoder(list[float]),
    "O": msgspec.json.Decoder(list[str]),
}
"""Kind of dtype -> decoder of a flat list of its elements."""

KINDS: dict[str, type | tuple[type, ...]] = {"b": bool, "i": int, "u": int, "f": (int, float), "O": str}


def read_list(text: msgspec.Raw, dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> Array:
    """The tensor in a JSON list, flat or nested as `shape` says. Raises `RequestInvalid`."""
    size = check_shape(shape, name)
    view = memoryview(text)
    if len(view) > PIECE and dtype.kind != "O" and view[0] == ord("["):
        array = _long(view, dtype, size, name)
        if array is not None:
            return array.reshape(shape)
    flat = _elements(text, dtype, shape, name)
    if len(flat) != size:
        raise _miscounted(len(flat), size, name)
    if dtype.kind == "O":
        return objects([element.encode() for element in flat], shape)
    return _array(flat, dtype, name).reshape(shape)


def _long(text: memoryview, dtype: np.dtype[Any], size: int, name: str) -> Array | None:
    """The numbers of a long flat list; ``None`` where it is none, whatever else it may be."""
    if size > len(text) // 2:
        raise RequestInvalid(f"tensor '{name}': {len(text)} characters are not {size} elements")
    array, filled = np.empty(size, dtype), 0
    for piece in _pieces(text):
        try:
            part = FLAT[dtype.kind].decode(piece)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if filled + len(part) > size:
            raise _miscounted(filled + len(part), size, name)
        array[filled : filled + len(part)] = _array(part, dtype, name)
        filled += len(part)
    if filled != size:
        raise _miscounted(filled, size, name)
    return array


def _pieces(text: memoryview) -> Iterator[bytes]:
    """Lists that are together what is between the brackets of `text`, cut at commas."""
    start, end = 1, len(text) - 1
    while start < end:
        stop = min(start + PIECE, end)
        while stop < end and text[stop] != ord(","):
            stop += 1
        yield b"[%b]" % bytes(text[start:stop])
        start = stop + 1


def _elements(text: msgspec.Raw, dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> list[Any]:
    try:
        flat: list[Any] = FLAT[dtype.kind].decode(text)
        return flat
    except RecursionError:
        raise RequestInvalid(f"tensor '{name}': nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    try:
        nested = _anything.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RequestInvalid(f"failed to parse the data of tensor '{name}': {error}") from None
    except RecursionError:
        raise RequestInvalid(f"tensor '{name}': nested too deeply") from None
    flat = _flattened(nested, shape, name)
    _check(flat, dtype, name)
    return flat


def _flattened(data: object, shape: tuple[int, ...], name: str) -> list[Any]:
    """The elements of lists nested exactly as `shape`; whatever else is refused."""
    level: list[Any] = [data]
    for dim in shape:
        if not all(type(part) is list and len(part) == dim for part in level):
            raise RequestInvalid(f"tensor '{name}': data are not {list(shape)}, or of a wrong type")
        level = [element for part in level for element in part]
    return level


def _check(flat: Sequence[object], dtype: np.dtype[Any], name: str) -> None:
    """Raise `RequestInvalid` where an element of nested data has another type than `dtype`."""
    wanted = KINDS[dtype.kind]
    if not all(
        isinstance(element, wanted) and (dtype.kind == "b" or type(element) is not bool) for element in flat
    ):
        raise RequestInvalid(f"tensor '{name}': an element is no {KSERVE_NAMES[dtype]}")


def _array(flat: list[Any], dtype: np.dtype[Any], name: str) -> Array:
    """Numbers as an array of one dimension. Raises `RequestInvalid` where one does not fit."""
    try:
        with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused below
            array: Array = np.array(flat, dtype)
    except (OverflowError, ValueError, TypeError):
        raise RequestInvalid(f"tensor '{name}': an element does not fit {KSERVE_NAMES[dtype]}") from None
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestInvalid(f"tensor '{name}': an element does not fit {KSERVE_NAMES[dtype]}")
    return array


def _miscounted(count: int, size: int, name: str) -> RequestInvalid:
    return RequestInvalid(f"tensor '{name}': {count} elements are not {size}")


def write_list(name: str, array: Array) -> bytes:
    """An output with its elements as a JSON list, flat as Triton writes it. Raises `RequestInvalid`."""
    datatype = KSERVE_NAMES[array.dtype]
    if datatype in BINARY_ONLY:
        raise RequestInvalid(f"output '{name}': {datatype} is sent in binary only; ask for binary_data")
    flat = array.reshape(-1)
    if array.dtype.kind == "f" and not np.isfinite(flat).all():
        raise RequestInvalid(f"output '{name}' has NaN or infinity, which is no JSON; ask for binary_data")
    about = _encode({"name": name, "datatype": datatype, "shape": array.shape})[:-1]
    starts = range(0, flat.size, ELEMENTS_AT_ONCE)
    parts = (_encode(_plain(flat[start : start + ELEMENTS_AT_ONCE], name))[1:-1] for start in starts)
    return b'%b,"data":[%b]}' % (about, b",".join(parts))


def _plain(part: Array, name: str) -> list[Any]:
    data: list[Any] = part.tolist()
    if part.dtype.kind != "O":
        return data
    try:
        return [element.decode() if isinstance(element, bytes) else str(element) for element in data]
    except UnicodeDecodeError:
        raise RequestInvalid(f"output '{name}' is no UTF-8, so no JSON; ask for binary_data") from None
