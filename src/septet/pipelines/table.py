# SPDX-License-Identifier: Apache-2.0
"""Rows of a click log to tensors, as DLRM's reference code does it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from septet.tensor import Array


def dense(counts: Array) -> Array:
    """log(count + 1), a negative count taken as 0: int64 [q, 13] -> float32 [q, 13].

    Source: facebookresearch/dlrm, data_utils.py, the preprocessing of Criteo's counts.
    """
    return np.log1p(np.maximum(counts, 0).astype(np.float32))


def indices(categories: Array, rows: Sequence[int]) -> Array:
    """Categories as rows of their tables, by the remainder: int64 [q, tables] -> int64 [q, tables].

    It is how the reference caps its tables (``--max-ind-range``).
    """
    return categories % np.asarray(rows, np.int64)
