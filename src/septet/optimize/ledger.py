# SPDX-License-Identifier: Apache-2.0
"""Ledger: one row a candidate, what it is, how fast, how accurate, and the verdict with its reason."""

from __future__ import annotations

from pathlib import Path

import msgspec

from septet.errors import ResultsNewer, ResultsUnreadable
from septet.optimize.candidate import Candidate
from septet.optimize.gate import Judgement, Verdict
from septet.optimize.passes import Applied
from septet.optimize.stopwatch import Timing
from septet.optimize.subject import Judged
from septet.whole import write_whole

SCHEMA = 1


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One candidate.

    `file` is relative to the search's folder, and empty where it was removed; `size` is in bytes, with all that
    belongs to it. `search` is the
    judgement on which it was chosen or not, `final` the one on samples not seen before, of which `drawn` were
    drawn; `verdict` is the last of both.
    """

    candidate: Candidate
    file: str
    size: int
    verdict: Verdict
    why: str
    search: Judgement | None = None
    timing: Timing | None = None
    final: Judgement | None = None
    drawn: int = 0

    @property
    def sure(self) -> bool:
        """Whether the search samples alone show that it keeps enough."""
        return self.search is not None and self.search.verdict == "kept"

    @property
    def holds(self) -> bool:
        """Whether the search speaks for it: it was kept, or seen to keep enough on samples too few to be sure."""
        found = self.search
        return self.sure or (found is not None and found.verdict == "undecided" and found.ratio >= found.keep)


class Ledger(msgspec.Struct, forbid_unknown_fields=True):
    """All that was tried. `chosen` is the place of the row that is the product; `source` tells which FP32 model it
    was, `fingerprint` which search; `out_of_time` says that not all was tried that was planned."""

    name: str
    source: str
    fingerprint: str
    judged: Judged
    data: str
    keep: float
    notes: list[str]
    cpu: str
    versions: dict[str, str]
    passes: list[Applied] = []
    rows: list[Row] = []
    chosen: int | None = None
    out_of_time: bool = False
    schema: int = SCHEMA

    @property
    def product(self) -> Row | None:
        """The row that was chosen."""
        return None if self.chosen is None else self.rows[self.chosen]

    @property
    def reference(self) -> Row:
        """FP32 in ONNX Runtime."""
        return self.rows[0]

    def row(self, candidate: Candidate) -> Row | None:
        """The row of `candidate`, if it has one."""
        return next((row for row in self.rows if row.candidate == candidate), None)

    def put(self, row: Row) -> None:
        """Add `row`, or put it in the place of its candidate's."""
        for place, old in enumerate(self.rows):
            if old.candidate == row.candidate:
                self.rows[place] = row
                return
        self.rows.append(row)

    def speedup(self, row: Row) -> float | None:
        """How many times as many samples a second as FP32 in ONNX Runtime; None where one was not timed."""
        if row.timing is None or self.reference.timing is None:
            return None
        return self.reference.timing.each / row.timing.each


class _SchemaOnly(msgspec.Struct):
    schema: int


def save(path: Path, ledger: Ledger) -> None:
    """Write the ledger whole or not at all. Raises ResultsNotWritten."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(ledger), indent=2) + b"\n")


def open_ledger(path: Path) -> Ledger:
    """Read a ledger. Raises ResultsUnreadable, ResultsNewer."""
    try:
        text = path.read_bytes()
        if msgspec.json.decode(text, type=_SchemaOnly).schema > SCHEMA:
            raise ResultsNewer(f"{path}: a ledger of a newer Septet: upgrade Septet")
        return msgspec.json.decode(text, type=Ledger)
    except OSError as error:
        raise ResultsUnreadable(f"{path}: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ResultsUnreadable(f"{path}: not a ledger: {error}") from error
