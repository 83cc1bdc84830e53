# SPDX-License-Identifier: Apache-2.0
"""The Criteo click logs: rows of tab-separated text -> counts, categories, clicks.

A row is ``click``, 13 counts and 26 categories of 8 hexadecimal digits, any of the latter two empty. v0.7 is
judged on the first half of the last day, ``day_23``; nothing else of the terabyte is needed. It is read once, a
block at a time, into an array on the disk. Which rows of the reference's tables its categories are only the file
says that the reference makes of it, `septet.workloads.processed`.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from hashlib import md5
from pathlib import Path
from typing import BinaryIO

import numpy as np

from septet.errors import DataError
from septet.tensor import Array
from septet.workloads import processed
from septet.workloads.fetch import cache_dir
from septet.workloads.recommender import DENSE, ROWS

PROCESSED = "day_23_reordered.npz"
NAMES = (PROCESSED, "day_23", "day_23.gz")
FIRST_HALF = 89_137_319
"""Pairs of the official evaluation set."""

FIELDS = 1 + DENSE + len(ROWS)
RECORD = np.dtype([("click", "u1"), ("counts", "<i4", (DENSE,)), ("categories", "<u4", (len(ROWS),))])
_BLOCK = 1 << 16

_COUNT, _CATEGORY = rb"(?:-?[0-9]+)?", rb"[0-9a-fA-F]{0,8}"
_ROW = re.compile(rb"[01](?:\t%b){%d}(?:\t%b){%d}" % (_COUNT, DENSE, _CATEGORY, len(ROWS)))


class Criteo:
    """The rows of a folder's ``day_23_reordered.npz``, ``day_23`` or ``day_23.gz``, the first of them that is
    there, at most the first half of the official day. `mapped` says that categories are rows of the tables.

    Raises DataError, naming file and line, for a row that is not as above.
    """

    def __init__(self, folder: Path, most: int = FIRST_HALF) -> None:
        found = [folder / name for name in NAMES if (folder / name).is_file()]
        if not found:
            raise DataError(f"{folder}: holds none of {', '.join(NAMES)}")
        self.mapped = found[0].name == PROCESSED
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
        """Categories of rows begin … end as the file has them, int64 [rows, 26]; an empty one is 0."""
        return np.asarray(self._rows["categories"][begin:end], np.int64)

    def clicks(self, begin: int, end: int) -> Array:
        """Clicks of rows begin … end, bool [rows]."""
        return np.asarray(self._rows["click"][begin:end], np.bool_)


def _packed(path: Path, most: int) -> Path:
    """`path` as an array of records, made once for each content of it."""
    state = path.stat()
    where = md5(str(path.resolve()).encode(), usedforsecurity=False).hexdigest()[:12]
    packed = cache_dir() / "criteo" / f"{path.name}-{where}-{state.st_size}-{state.st_mtime_ns}-{most}.npy"
    if not packed.exists():
        beside = packed.with_suffix(".part")
        try:
            packed.parent.mkdir(parents=True, exist_ok=True)
            _pack(path, beside, most)
            beside.replace(packed)
        except OSError as error:
            raise DataError(f"{path}: cannot be read into {packed.parent}: {error.strerror or error}") from error
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
    return packed


def _pack(path: Path, to: Path, most: int) -> None:
    """Write the records behind a header that is filled in once their number is known."""
    with to.open("wb") as file:
        _header(file, most)
        start, count = file.tell(), 0
        for block in _mapped(path, most) if path.name == PROCESSED else _blocks(path, most):
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


def _mapped(path: Path, most: int) -> Iterator[Array]:
    for clicks, counts, categories in processed.blocks(path, most, _BLOCK):
        block = np.empty(len(clicks), RECORD)
        block["click"], block["counts"], block["categories"] = clicks, counts, categories
        yield block


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
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path}: the gzip file is cut short or damaged") from error
    yield block[:filled]


def _record(path: Path, number: int, line: bytes) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    row = line.rstrip(b"\r\n")
    fields = row.split(b"\t")
    if not _ROW.fullmatch(row):
        raise DataError(f"{path}, line {number}: {_fault(fields)}")
    if not line.endswith(b"\n") and len(fields[-1]) != 8:
        raise DataError(f"{path}, line {number}: the last row is cut short")
    counts = tuple(int(field or b"0") for field in fields[1 : 1 + DENSE])
    if min(counts) < -(2**31) or max(counts) >= 2**31:
        raise DataError(f"{path}, line {number}: a count does not fit into 32 bits")
    return int(fields[0]), counts, tuple(int(field or b"0", 16) for field in fields[1 + DENSE :])


def _fault(fields: list[bytes]) -> str:
    """What is wrong with a row that is not as it should be, in words."""
    if len(fields) != FIELDS:
        return f"{len(fields)} fields, not {FIELDS}"
    if fields[0] not in (b"0", b"1"):
        return f"the click is {_shown(fields[0])}, not 0 or 1"
    for field in fields[1 : 1 + DENSE]:
        if not re.fullmatch(_COUNT, field):
            return f"the count {_shown(field)} is no whole number"
    wrong = next(field for field in fields[1 + DENSE :] if not re.fullmatch(_CATEGORY, field))
    return f"the category {_shown(wrong)} is not of at most 8 hexadecimal digits"


def _shown(field: bytes) -> str:
    return repr(field[:40].decode(errors="replace"))
