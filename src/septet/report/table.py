# SPDX-License-Identifier: Apache-2.0
"""Results as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from septet.harness.result import Accuracy, Result
from septet.report.scale import precise, words

PERCENTILES = ("50.00", "90.00", "99.00")


def print_table(results: Sequence[Result], console: Console) -> None:
    """Print a table for each network on each engine, one row a scenario, then what must be said of them.

    It fits 80 columns, and reads the same without colour.
    """
    notes: list[str] = []
    for title, group in groupby(results, _title):
        runs = list(group)
        console.print(f"\n{title}", style="bold", highlight=False, markup=False, soft_wrap=True)
        console.print(_table(runs, notes))
        for line in dict.fromkeys(_accuracy(run.accuracy) for run in runs if run.accuracy):
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    console.print()
    for place, note in enumerate(notes, 1):
        console.print(f"[{place}] {note}", markup=False, highlight=False, soft_wrap=True)


def figure(result: Result) -> str:
    """The figure of merit with its unit."""
    return "no figure" if result.metric is None else f"{words(result.metric.value)} {result.metric.unit}"


def _title(result: Result) -> str:
    return (
        f"{result.network} {result.size}, {result.engine} {result.precision}, {result.weights} weights, "
        f"{result.threads} threads{'' if result.official else ', unofficial'}"
    )


def _table(runs: Sequence[Result], notes: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("  scenario", no_wrap=True)
    table.add_column("target", justify="right", no_wrap=True)
    table.add_column("figure", justify="right", no_wrap=True)
    table.add_column("p50 / p90 / p99 ms", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for run in runs:
        places = "".join(f"[{_place(notes, note)}]" for note in (*run.why, *run.notes))
        verdict = Text(f"{run.verdict} {places}".rstrip())
        target = f"{100 * run.accuracy.target:g} %" if run.accuracy else ""
        table.add_row(f"  {run.scenario}", target, figure(run), _latencies(run), verdict)
    return table


def _latencies(result: Result) -> str:
    if result.latency is None:
        return ""
    found = (result.latency.percentiles.get(percentile) for percentile in PERCENTILES)
    return " / ".join("–" if value is None else words(value) for value in found)


def _accuracy(accuracy: Accuracy) -> str:
    beside = "".join(f"; {name} {precise(value, accuracy.unit)}" for name, value in accuracy.beside.items())
    wanting = f": {accuracy.why}" if accuracy.verdict == "undecided" else ""
    return (
        f"accuracy: {accuracy.metric} {precise(accuracy.value, accuracy.unit)} "
        f"({precise(accuracy.low, '')} … {precise(accuracy.high, '')}), {100 * accuracy.ratio:.2f} % of FP32 "
        f"({100 * accuracy.ratio_low:.2f} … {100 * accuracy.ratio_high:.2f}): "
        f"{100 * accuracy.target:g} % {accuracy.verdict}, {accuracy.samples:,} samples{wanting}{beside}"
    )


def _place(notes: list[str], note: str) -> int:
    """The number of `note`, added to `notes` if it is new."""
    if note not in notes:
        notes.append(note)
    return notes.index(note) + 1
