# SPDX-License-Identifier: Apache-2.0
"""What a tensor is called, how large it is, and what its bytes are: dtype names, `TensorSpec`, named tensors."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""An array of any dtype; public functions say in words which dtype and shape they mean."""

Tensors = Mapping[str, Array]
"""Tensors by name: what goes into an engine and what comes out of it."""

ONNX_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(int16)": np.dtype(np.int16),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(uint16)": np.dtype(np.uint16),
    "tensor(uint32)": np.dtype(np.uint32),
    "tensor(uint64)": np.dtype(np.uint64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bfloat16)": np.dtype(ml_dtypes.bfloat16),
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(string)": np.dtype(np.object_),
}
"""ONNX Runtime's type strings and the numpy dtypes that they mean."""


@dataclass(frozen=True)
class TensorSpec:
    """The name, dtype and shape of one input or output; a dimension of ``None`` is free."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    def admits(self, array: Array) -> bool:
        """Whether `array` has this dtype, this rank and every fixed dimension."""
        if array.dtype != self.dtype or array.ndim != len(self.shape):
            return False
        for want, have in zip(self.shape, array.shape, strict=True):  # no generator: this is asked for every batch
            if want != have and want is not None:
                return False
        return True

    @property
    def batched(self) -> bool:
        """Whether the first dimension, and no other, is free."""
        return self.shape[:1] == (None,) and None not in self.shape[1:]

    def empty(self, batch: int) -> Array:
        """Memory for `batch` samples; dimensions that are free beside the batch's are 1."""
        return np.empty((batch, *(1 if dim is None else dim for dim in self.shape[1:])), self.dtype)

    def __str__(self) -> str:
        dims = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.name}: {self.dtype.name}[{dims}]"


KSERVE_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "FP16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}
"""KServe's (and Triton's) names of dtypes. A ``BYTES`` tensor is an array of objects, each of them ``bytes``."""

KSERVE_NAMES = {dtype: name for name, dtype in KSERVE_DTYPES.items()}

Buffer = bytes | bytearray | memoryview

LENGTH = struct.Struct("<I")
"""Before each element of a raw ``BYTES`` tensor: its length."""

COPIED = 4096
"""Up to so many bytes a copy costs less than a view."""


_BYTES = (bytes, bytearray, memoryview)


def to_raw(array: Array) -> bytes | memoryview:
    """The bytes of `array` in row-major, little-endian order, as KServe sends them; a large one is not copied.

    A ``BYTES`` element is preceded by its length (4 bytes, little-endian); other elements are sent as the
    UTF-8 of their text, as Triton does with numbers.
    """
    if made_of_objects(array):
        parts: list[bytes] = []
        for element in array.reshape(-1).tolist():
            text = bytes(element) if isinstance(element, _BYTES) else str(element).encode()
            parts += LENGTH.pack(len(text)), text
        return b"".join(parts)
    if array.nbytes <= COPIED:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def made_of_objects(array: Array) -> bool:
    """Whether `array` is a ``BYTES`` tensor, which takes long to read and write: element by element."""
    return array.dtype.kind in "OSU"


def from_raw(raw: Buffer, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """`raw` as an array of `shape`, copied for ``BYTES`` only; raises `ValueError` where it is not one."""
    if dtype.kind == "O":
        return _from_raw_bytes(raw, shape)
    wanted = size_of(shape) * dtype.itemsize
    if len(raw) != wanted:
        raise ValueError(f"{len(raw)} bytes are not {list(shape)} elements of {wanted} bytes altogether")
    array: Array = np.frombuffer(raw, dtype)
    return array if len(shape) == 1 else array.reshape(shape)


def size_of(shape: tuple[int, ...]) -> int:
    """How many elements `shape` has; raises `ValueError` for a shape that no array has."""
    if len(shape) > MAX_RANK:
        raise ValueError(f"a shape of {len(shape)} dimensions: at most {MAX_RANK} are possible")
    size, extent = 1, 1
    for dim in shape:
        if dim < 0 or dim > MAX_DIM:
            raise ValueError(f"dimension {dim} is not between 0 and {MAX_DIM}")
        size *= dim
        extent *= dim or 1
    if extent > MAX_EXTENT:
        raise ValueError(f"a shape of {extent} elements, were none of its dimensions 0")
    return size


MAX_RANK = 64
"""numpy's limit."""

MAX_DIM = 2**31 - 1
"""Far above what fits a request."""

MAX_EXTENT = 2**59
"""The product of all dimensions that are not 0, of which numpy takes the bytes for a 64-bit number."""


def _from_raw_bytes(raw: Buffer, shape: tuple[int, ...]) -> Array:
    wanted = size_of(shape)
    if wanted * LENGTH.size > len(raw):
        raise ValueError(f"{len(raw)} bytes are too few for {wanted} BYTES elements")
    if not wanted and len(raw):
        raise ValueError(f"{len(raw)} bytes are not 0 BYTES elements")
    return np.fromiter(_elements(memoryview(raw), wanted), np.object_, wanted).reshape(shape)


def _elements(raw: memoryview, wanted: int) -> Iterator[bytes]:
    """The BYTES elements that are `raw`; raises `ValueError` where these are not `wanted`."""
    position, end = 0, len(raw)
    for count in range(wanted):
        start = position + LENGTH.size
        if start > end:
            raise ValueError(f"{count} BYTES elements are not {wanted}")
        position = start + LENGTH.unpack_from(raw, position)[0]
        if position > end:
            raise ValueError(f"a BYTES element of {position - start} bytes ends beyond the tensor")
        if count + 1 == wanted and position < end:
            raise ValueError(f"{end - position} bytes are left behind {wanted} BYTES elements")
        yield bytes(raw[start:position])


def objects(elements: Sequence[bytes | str], shape: tuple[int, ...]) -> Array:
    """An array of `elements`, row-major; a ``BYTES`` tensor, where they are ``bytes``."""
    array: Array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array.reshape(shape)
