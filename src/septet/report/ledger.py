# SPDX-License-Identifier: Apache-2.0
"""A ledger of the optimiser as a table for a terminal, and as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from septet.optimize.gate import Judgement
from septet.optimize.ledger import Ledger, Row
from septet.report.chart import Point, scatter
from septet.report.picture import Picture
from septet.report.scale import words
from septet.report.template import templates
from septet.whole import write_whole

SHAPES = {"kept": "met", "rejected": "missed", "undecided": "undecided"}
"""A verdict's mark in pictures."""


def print_ledger(ledger: Ledger, console: Console) -> None:
    """Print one row a candidate, the fastest first, then what must be said of them."""
    console.print(f"\n{title(ledger)}", style="bold", highlight=False, markup=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("  candidate", overflow="fold")
    for name in ("× FP32", "ms", "% of FP32"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in ordered(ledger):
        mark = "→ " if row is ledger.product else "  "
        table.add_row(f"{mark}{row.candidate.words}", speedup(ledger, row), latency(row), kept(row), row.verdict)
    console.print(table)
    for line in conclusions(ledger):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    console.print()


def write_page(ledger: Ledger, folder: Path) -> None:
    """Write the page into the folder of the search, as ``report.html``. Raises ResultsNotWritten."""
    write_whole(folder / "report.html", ledger_page(ledger).encode())


def ledger_page(ledger: Ledger) -> str:
    """The page. All text is escaped; nothing is loaded from elsewhere."""
    environment = templates()
    environment.filters |= {"words": words, "latency": latency, "kept": kept, "size": size}
    return environment.get_template("ledger.html").render(
        ledger=ledger,
        title=title(ledger),
        rows=ordered(ledger),
        speedup=lambda row: speedup(ledger, row),
        picture=_picture(ledger),
        conclusions=conclusions(ledger),
        what=_what(ledger),
    )


def title(ledger: Ledger) -> str:
    """What was searched, and on which terms."""
    return f"{ledger.name}, {100 * ledger.keep:g} % of FP32 {_what(ledger)} to keep"


def ordered(ledger: Ledger) -> list[Row]:
    """The fastest first; those that were not timed last."""
    return sorted(ledger.rows, key=lambda row: row.timing.each if row.timing else float("inf"))


def conclusions(ledger: Ledger) -> list[str]:
    """What must be said below the table."""
    product = ledger.product
    lines = [*ledger.notes, *(["the time ran out before all was tried"] if ledger.out_of_time else [])]
    if product is None:
        return [*lines, "the search is not finished"]
    if product is ledger.reference:
        return [*lines, f"product: FP32 in ONNX Runtime: {_why_reference(ledger)}"]
    found = product.final or product.search
    times = f"{ledger.speedup(product) or 1:.2f} × the throughput of FP32 in ONNX Runtime"
    lines.append(f"product: {product.candidate.words}: {times}, one core's CPU time")
    if found is not None:
        lines.append(f"last word, on {found.samples:,} samples not seen before: {judgement(found)}")
    return lines


def judgement(found: Judgement) -> str:
    """A judgement in one line."""
    return (
        f"{found.metric} {words(found.value)} {found.unit}".rstrip()
        + f" against {words(found.reference)}, {100 * found.ratio:.2f} % of it "
        + f"({100 * found.low:.2f} … {100 * found.high:.2f}): {found.verdict}, {found.why}"
    )


def speedup(ledger: Ledger, row: Row) -> str:
    """How many times as fast as FP32 in ONNX Runtime."""
    times = ledger.speedup(row)
    return "" if times is None else f"{times:.2f}"


def latency(row: Row) -> str:
    """CPU milliseconds of one sample alone on one core."""
    return "" if row.timing is None else words(row.timing.latency)


def kept(row: Row) -> str:
    """The ratio to FP32 with its interval, in %."""
    found = row.final or row.search
    if found is None:
        return ""
    return f"{100 * found.ratio:.2f} ({100 * found.low:.2f}…{100 * found.high:.2f})"


def size(row: Row) -> str:
    """The size of all its files."""
    return f"{row.size / 1e6:.3g} MB" if row.size else ""


def _why_reference(ledger: Ledger) -> str:
    """Why nothing faster than FP32 was taken."""
    open_ = [row for row in ordered(ledger) if row.verdict == "undecided"]
    if open_:
        return f"no faster form was shown to keep enough; {open_[0].candidate.words} is undecided: {open_[0].why}"
    if any(row.verdict == "kept" for row in ledger.rows if row is not ledger.reference):
        return "no form that keeps enough is faster"
    return "no other form keeps enough"


def _what(ledger: Ledger) -> str:
    return "accuracy" if ledger.judged == "accuracy" else "agreement"


def _picture(ledger: Ledger) -> Picture | None:
    """Accuracy against speed."""
    points = [
        Point(row.candidate.words, times, found.ratio, found.low, found.high, SHAPES[row.verdict], place)
        for place, row in enumerate(ledger.rows)
        if (times := ledger.speedup(row)) is not None and (found := row.final or row.search) is not None
    ]
    if not points:
        return None
    svg = scatter(f"{_what(ledger)} against speed", points, ledger.keep)
    return Picture("", "", svg, [(point.kind, point.label) for point in points])
