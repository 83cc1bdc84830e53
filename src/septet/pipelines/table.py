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

    Categories that the reference processed are rows already: what changes are only those beyond a table that is
    capped, as the reference's ``--max-ind-range`` does it on loading. Of raw hashes the remainder is some row of
    the table, good for speed, but not the reference's: it numbers what is left of each column's hashes in all 24
    days (facebookresearch/dlrm, data_utils.py).
    """
    return categories % np.asarray(rows, np.int64)
