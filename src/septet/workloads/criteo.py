# SPDX-License-Identifier: Apache-2.0
"""The Criteo click logs: rows of tab-separated text -> counts, categories, clicks.

A row is ``click``, 13 counts and 26 categories of 8 hexadecimal digits, any of the latter two empty. v0.7 is
judged on the first half of the last day, ``day_23``; nothing else of the terabyte is needed. It is read once, a
block at a time, into an array on the disk.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from septet.errors import DataError
from septet.tensor import Array
from septet.workloads.fetch import cache_dir
from septet.workloads.recommender import DENSE, ROWS

NAMES = ("day_23", "day_23.gz")
FIRST_HALF = 89_137_319
"""Pairs of the official evaluation set."""

FIELDS = 1 + DENSE + len(ROWS)
RECORD = np.dtype([("click", "u1"), ("counts", "<i4", (DENSE,)), ("categories", "<u4", (len(ROWS),))])
_BLOCK = 1 << 16


class Criteo:
    """The rows of a folder's ``day_23`` or ``day_23.gz``, at most the first half of the official day.

    Raises DataError, naming file and line, for a row that is not as above.
    """

    def __init__(self, folder: Path, most: int = FIRST_HALF) -> None:
        found = [folder / name for name in NAMES if (folder / name).is_file()]
        if not found:
            raise DataError(f"{folder}: holds neither {' nor '.join(NAMES)}")
        self._rows = np.load(_packed(found[0], most), mmap_mode="r", allow_pickle=False)
        if not len(self._rows):
            raise DataError(f"{found[0]}: holds no rows")
        self.words = f"{found[0].name}: {len(self._rows):,} user–item pairs"

    def __len__(self) -> int:
        return len(self._rows)

    def counts(self, begin: int, end: int) -> Array:
        """Counts of rows begin … end, int64 [rows, 13]; an empty one is 0."""
        return np.asarray(self._rows["counts"][begin:end], np.int64)

    def categories(self, begin: int, end: int) -> Array:
        """Categories of rows begin … end as the log has them, int64 [rows, 26]; an empty one is 0."""
        return np.asarray(self._rows["categories"][begin:end], np.int64)

    def clicks(self, begin: int, end: int) -> Array:
        """Clicks of rows begin … end, bool [rows]."""
        return np.asarray(self._rows["click"][begin:end], np.bool_)


def _packed(path: Path, most: int) -> Path:
    """`path` as an array of records, made once for each content of it."""
    state = path.stat()
    packed = cache_dir() / "criteo" / f"{path.name}-{state.st_size}-{state.st_mtime_ns}-{most}.npy"
    if not packed.exists():
        packed.parent.mkdir(parents=True, exist_ok=True)
        beside = packed.with_suffix(".part")
        try:
            _pack(path, beside, most)
            beside.replace(packed)
        except OSError as error:
            raise DataError(f"{path}: cannot be read into {packed.parent}: {error.strerror or error}") from error
        finally:
            beside.unlink(missing_ok=True)
    return packed


def _pack(path: Path, to: Path, most: int) -> None:
    """Write the records behind a header that is filled in once their number is known."""
    with to.open("wb") as file:
        _header(file, most)
        start, count = file.tell(), 0
        for block in _blocks(path, most):
            file.write(block.tobytes())
            count += len(block)
        file.seek(0)
        _header(file, count)
        if file.tell() != start:
            raise DataError(f"{path}: the header of its array changed its length")


def _header(file: BinaryIO, count: int) -> None:
    written = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(RECORD), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_2_0(written, description)
    file.write(written.getvalue())


def _blocks(path: Path, most: int) -> Iterator[Array]:
    block = np.zeros(_BLOCK, RECORD)
    filled = 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if number > most:
                    break
                block[filled] = _record(path, number, line)
                filled += 1
                if filled == _BLOCK:
                    yield block
                    filled = 0
        except (EOFError, gzip.BadGzipFile) as error:
            raise DataError(f"{path}: the gzip file is cut short or damaged") from error
    yield block[:filled]


def _record(path: Path, number: int, line: bytes) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    fields = line.rstrip(b"\r\n").split(b"\t")
    where = f"{path}, line {number}"
    if len(fields) != FIELDS:
        raise DataError(f"{where}: {len(fields)} fields, not {FIELDS}")
    if fields[0] not in (b"0", b"1"):
        raise DataError(f"{where}: the click is {fields[0].decode(errors='replace')!r}, not 0 or 1")
    try:
        counts = tuple(int(field or b"0") for field in fields[1 : 1 + DENSE])
        categories = tuple(int(field or b"0", 16) for field in fields[1 + DENSE :])
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    if min(counts) < -(2**31) or max(counts) >= 2**31:
        raise DataError(f"{where}: a count does not fit into 32 bits")
    if min(categories) < 0 or max(categories) >= 2**32:
        raise DataError(f"{where}: a category has more than 8 hexadecimal digits")
    return int(fields[0]), counts, categories
