# SPDX-License-Identifier: Apache-2.0
"""Triton's classification extension: the best classes of an output instead of the output."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from septet.errors import RequestInvalid
from septet.tensor import Array, objects


def top_classes(array: Array, count: int, labels: Sequence[str], name: str) -> Array:
    """The `count` highest values of each row of `array` as BYTES ``value:index[:label]``, the highest first.

    The first of two or more dimensions is the batch. Answers [batch, count], or [count] for one dimension.
    """
    if array.dtype.kind == "O" or array.ndim == 0:
        raise RequestInvalid(f"output '{name}' has no classes")
    batch = array.shape[0] if array.ndim > 1 else 1
    rows = array.reshape(batch, math.prod(array.shape[1:] if array.ndim > 1 else array.shape))
    count = min(count, rows.shape[1])
    best = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]
    texts = [
        _text(row[index], int(index), labels) for row, order in zip(rows, best, strict=True) for index in order
    ]
    return objects(texts, (len(rows), count) if array.ndim > 1 else (count,))


def _text(value: np.generic, index: int, labels: Sequence[str]) -> bytes:
    shown = f"{value:.6f}" if value.dtype.kind not in "iub" else str(int(value))
    label = f":{labels[index]}" if index < len(labels) else ""
    return f"{shown}:{index}{label}".encode()
