# SPDX-License-Identifier: Apache-2.0
"""What a tensor is called and how large it is: dtype names, `TensorSpec`, named tensors."""

from __future__ import annotations

from collections.abc import Mapping
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
        return (
            array.dtype == self.dtype
            and array.ndim == len(self.shape)
            and all(want is None or want == have for want, have in zip(self.shape, array.shape, strict=True))
        )

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
