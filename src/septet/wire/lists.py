# SPDX-License-Identifier: Apache-2.0
"""Tensors as JSON lists, both directions, long ones in pieces.

A list becomes Python objects on its way, many times as large as what they are made of, by calls that let no other
thread run. In pieces neither is much at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from septet.errors import RequestInvalid
from septet.tensor import KSERVE_NAMES, Array, Buffer
from septet.wire.head import check_shape

PIECE, ELEMENTS_AT_ONCE = 256 << 10, 16 << 10
"""Characters that are read, and elements that are written, at once."""

BINARY_ONLY = {"FP16", "BF16"}

_integers = msgspec.json.Decoder(list[int])
_encode = msgspec.json.Encoder().encode

FLAT: dict[str, msgspec.json.Decoder[Any]] = {
    "b": msgspec.json.Decoder(list[bool]),
    "i": _integers,
    "u": _integers,
    "f": msgspec.json.Decoder(list[float]),
    "O": msgspec.json.Decoder(list[str]),
}
"""Kind of dtype -> decoder of a flat list of its elements."""

BRACKETS = bytes.maketrans(b"[]", b"  ")
BETWEEN = bytes(set(range(256)) - set(b'[],"{}'))
"""What stands in no list but as a part of an element, or does not count."""

STRING = re.compile(rb'("(?:[^"\\]++|\\.)*+")', re.DOTALL)
STRINGS_REST = re.compile(rb'(?:[^"\\]++|\\.)*+"', re.DOTALL)
ELEMENT = re.compile(rb'(?:[^",]++|"(?:[^"\\]++|\\.)*+")*+,', re.DOTALL)
"""All up to the next comma that is in no string."""

UNESCAPED = re.compile(rb"[^\\]")
EMPTY = re.compile(rb"\[[ \t\r\n]*\]")
ONE_LEVEL = re.compile(rb"[ \t\r\n]*\[(?![ \t\r\n]*\[)")


def read_list(text: msgspec.Raw, dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> Array:
    """The tensor in a JSON list, flat or nested as `shape` says. Raises `RequestInvalid`."""
    size = check_list(text, shape, name)
    view = memoryview(text)
    frame = _frame(view, shape, size)
    array, filled, place = np.empty(size, dtype), 0, 0
    for piece in _pieces(view):
        seen, elements = _parted(piece)
        if not frame.startswith(seen, place):
            raise _misshapen(shape, name)
        place += len(seen)
        part = _decoded(elements if size else elements.replace(b",", b""), dtype, name)
        if filled + len(part) > size:
            raise _misshapen(shape, name)
        array[filled : filled + len(part)] = part
        filled += len(part)
    if filled != size or place != len(frame):
        raise _misshapen(shape, name)
    return array.reshape(shape)


def check_list(text: msgspec.Raw, shape: tuple[int, ...], name: str) -> int:
    """How many elements a tensor has; raises `RequestInvalid` where `text` is too short to be so many."""
    size = check_shape(shape, name)
    if 2 * size - 1 > len(text):
        raise RequestInvalid(f"tensor '{name}': {len(text)} characters are not {size} elements")
    return size


def _frame(text: memoryview, shape: tuple[int, ...], size: int) -> bytes:
    """The brackets and commas of a list of `shape`, nested if `text` is, and no longer than that may be."""
    frame = b""
    dims = shape[: shape.index(0) + 1] if 0 in shape else shape  # in an empty list there are no others
    for dim in (size,) if ONE_LEVEL.match(text) else dims[::-1]:
        if dim * (len(frame) + 1) > len(text):
            return b"-"
        frame = b"[%b]" % ((frame + b",") * (dim - 1) + frame if dim else b"")
    return frame


def _pieces(text: memoryview) -> Iterator[bytes]:
    """The parts of `text`, cut at commas that are in no string."""
    start, end = 0, len(text)
    while start < end:
        stop = start + PIECE
        match = UNESCAPED.search(text, stop - 1) if stop < end else None
        if match is not None:
            stop = match.end()
            if _open(bytes(text[start:stop])):
                match = STRINGS_REST.match(text, stop)
                stop = match.end() if match else end
            match = ELEMENT.match(text, stop)
        stop = match.end() if match else end
        yield bytes(text[start:stop])
        start = stop


def count_in(text: Buffer, character: bytes) -> int:
    """How often a bracket, brace, comma or colon stands in a JSON document, but for its texts."""
    return sum(_parted(piece)[0].count(character) for piece in _pieces(memoryview(text)))


def length_of(text: msgspec.Raw) -> int | None:
    """How many elements a JSON list has that holds no other; ``None`` for anything but a list."""
    if memoryview(text)[0] != ord("["):
        return None
    return 0 if EMPTY.fullmatch(text) else count_in(text, b",") + 1


def _open(piece: bytes) -> bool:
    """Whether `piece`, which begins in no string, ends in one."""
    if b'"' not in piece:
        return False
    return bool(piece.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"') % 2)


def _parted(piece: bytes) -> tuple[bytes, bytes]:
    """A piece's brackets and commas, and its elements as a flat list."""
    if b'"' in piece:
        parts = STRING.split(piece)
        seen = b"".join(parts[::2]).translate(None, b" \t\r\n")
        elements = b",".join(parts[1::2])
    else:
        seen = piece.translate(None, BETWEEN)
        elements = piece.translate(BRACKETS).rstrip().removesuffix(b",")
    return seen, b"[%b]" % elements


def _decoded(elements: bytes, dtype: np.dtype[Any], name: str) -> Array | list[bytes]:
    try:
        flat: list[Any] = FLAT[dtype.kind].decode(elements)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise RequestInvalid(f"tensor '{name}': an element is no {KSERVE_NAMES[dtype]}") from None
    return [element.encode() for element in flat] if dtype.kind == "O" else _array(flat, dtype, name)


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


def _misshapen(shape: tuple[int, ...], name: str) -> RequestInvalid:
    return RequestInvalid(f"tensor '{name}': data are not {list(shape)}, or of a wrong type")


def write_list(name: str, array: Array) -> bytes:
    """An output with its elements as a JSON list, flat as Triton writes it. Raises `RequestInvalid`."""
    datatype = KSERVE_NAMES[array.dtype]
    if datatype in BINARY_ONLY:
        raise RequestInvalid(f"output '{name}': {datatype} is sent in binary only; ask for binary_data")
    about = _encode({"name": name, "datatype": datatype, "shape": array.shape})[:-1]
    return b'%b,"data":[%b]}' % (about, write_elements(name, array))


def write_elements(name: str, array: Array, errors: str = "strict") -> bytes:
    """An output's elements in JSON, with commas between; `errors`, as of `bytes.decode`, is for what is no UTF-8.

    Raises `RequestInvalid`.
    """
    flat = array.reshape(-1)
    if array.dtype.kind == "f" and not np.isfinite(flat).all():
        raise RequestInvalid(
            f"output '{name}' has NaN or infinity, which is no JSON: infer has binary_data for it"
        )
    starts = range(0, flat.size, ELEMENTS_AT_ONCE)
    parts = (_encode(_plain(flat[start : start + ELEMENTS_AT_ONCE], name, errors))[1:-1] for start in starts)
    return b",".join(parts)


def _plain(part: Array, name: str, errors: str) -> list[Any]:
    data: list[Any] = part.tolist()
    if part.dtype.kind != "O":
        return data
    try:
        return [each.decode(errors=errors) if isinstance(each, bytes) else str(each) for each in data]
    except UnicodeDecodeError:
        raise RequestInvalid(f"output '{name}' is no UTF-8, so no JSON; ask for binary_data") from None
