# SPDX-License-Identifier: Apache-2.0
"""The reference's processed day of Criteo, ``day_23_reordered.npz``, whose categories are rows of the tables.

It holds ``y`` [rows], ``X_int`` [rows, 13] and ``X_cat`` [rows, 26], whole numbers of any dtype (source:
facebookresearch/dlrm, data_utils.py). The arrays are read side by side, a block at a time, never as a whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from septet.errors import DataError
from septet.tensor import Array
from septet.workloads.recommender import DENSE, ROWS


@dataclass(frozen=True)
class Column:
    """One array of the file, from the row on that is read next; `width` is empty where a row is one number."""

    name: str
    file: IO[bytes]
    rows: int
    width: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, rows: int) -> Array:
        """The next `rows` rows, int64. Raises ValueError where there are fewer, or some are not whole numbers."""
        size = rows * int(np.prod(self.width, dtype=int)) * self.dtype.itemsize
        stored = np.frombuffer(self.file.read(size), self.dtype).reshape(rows, *self.width)
        if not np.isfinite(stored).all() or (stored != np.trunc(stored)).any():
            raise ValueError(f"{self.name} holds what is no whole number")
        return stored.astype(np.int64)


def blocks(path: Path, most: int, size: int) -> Iterator[tuple[Array, Array, Array]]:
    """Clicks [n], counts [n, 13] and categories [n, 26], int64, of at most `most` rows, up to `size` at a time.

    Raises DataError, naming the file, where it is damaged, is of another form, or a category is beyond its table.
    """
    try:
        with ZipFile(path) as archive:
            columns = [_column(archive, *of) for of in (("y", ()), ("X_int", (DENSE,)), ("X_cat", (len(ROWS),)))]
            if len({column.rows for column in columns}) != 1:
                raise ValueError("its arrays are not of one length")
            count = min(columns[0].rows, most)
            for begin in range(0, count, size):
                clicks, counts, categories = (column.read(min(size, count - begin)) for column in columns)
                _require(clicks, counts, categories)
                yield clicks, counts, categories
    except (BadZipFile, KeyError, ValueError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not the reference's processed day: {error}") from error


def _column(archive: ZipFile, name: str, width: tuple[int, ...]) -> Column:
    file = archive.open(f"{name}.npy")
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns_first, dtype = read(file)
    if not shape or shape[1:] != width or (columns_first and width) or dtype.kind not in "biuf":
        raise ValueError(f"{name} is {dtype} {list(shape)}, not numbers [rows{''.join(f', {n}' for n in width)}]")
    return Column(name, file, shape[0], width, dtype)


def _require(clicks: Array, counts: Array, categories: Array) -> None:
    if not np.isin(clicks, (0, 1)).all():
        raise ValueError("a click is not 0 or 1")
    if counts.min() < -(2**31) or counts.max() >= 2**31:
        raise ValueError("a count does not fit into 32 bits")
    beyond = (categories < 0) | (categories >= np.array(ROWS))
    if beyond.any():
        row, table = np.argwhere(beyond)[0]
        raise ValueError(f"category {categories[row, table]} is beyond table {table}, of {ROWS[table]:,} rows")
