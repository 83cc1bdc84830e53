# SPDX-License-Identifier: Apache-2.0
"""What every script in this folder shares: a table of figures, ``--json FILE``, and ``--floor``."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich import box
from rich.table import Table

from septet.cli.console import stdout
from septet.devices.cpu import Cpu, load_average
from septet.harness.machine import commit, machine, versions


@dataclass(frozen=True)
class Row:
    """One figure, and the least (`floor`) or most (`ceiling`) that it may be."""

    name: str
    value: float
    unit: str
    floor: float | None = None
    ceiling: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the figure is within its bound."""
        above = self.floor is None or self.value >= self.floor
        return above and (self.ceiling is None or self.value <= self.ceiling)

    @property
    def bound(self) -> str:
        """The bound in words."""
        if self.floor is not None:
            return f"≥ {self.floor:,g}"
        return "" if self.ceiling is None else f"≤ {self.ceiling:,g}"


def parser_of(title: str) -> argparse.ArgumentParser:
    """What reads the arguments that every script takes; a script may add its own."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument("--floor", action="store_true", help="exit 1 where a figure is outside its bound")
    return parser


def report(
    measure: Callable[[], list[Row]] | Mapping[str, Callable[[], list[Row]]],
    title: str,
    asked: argparse.Namespace | None = None,
) -> None:
    """Measure, print the table, write it where ``--json`` says; with ``--floor`` exit 1 if a bound is broken.

    Where `measure` has parts, ``--part`` chooses one; all are measured otherwise. `asked` is what `parser_of`
    read, where the script had to know it before.
    """
    parts = measure if isinstance(measure, Mapping) else {"all": measure}
    if asked is None:
        parser = parser_of(title)
        parser.add_argument("--part", choices=parts, help="measure only this part")
        asked = parser.parse_args()
    chosen = getattr(asked, "part", None)
    before = load_average()
    rows = [row for name, part in parts.items() if chosen in (None, name) for row in part()]
    where = machine(Cpu.detect(), before, load_average())
    _print(rows, title)
    print(f"{where.cpu}, {where.cores} cores, load {where.load[0]:.2f} to {where.load[1]:.2f}; commit {commit()}")
    if asked.json:
        record = {
            "title": title,
            "rows": [asdict(row) for row in rows],
            "machine": msgspec.structs.asdict(where),
            "versions": versions(),
            "commit": commit(),
            "command": shlex.join(sys.argv),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        asked.json.write_text(json.dumps(record, indent=2) + "\n")
    if asked.floor and not all(row.holds for row in rows):
        sys.exit(1)


def _print(rows: list[Row], title: str) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column("figure")
    for name in ("value", "unit", "bound", "holds"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for row in rows:
        holds = ("yes" if row.holds else "NO") if row.bound else ""
        table.add_row(row.name, f"{row.value:,.4g}", row.unit, row.bound, holds)
    stdout().print(table)
