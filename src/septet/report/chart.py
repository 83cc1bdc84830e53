# SPDX-License-Identifier: Apache-2.0
"""The pictures of the report, as SVG: bars, percentile curves, dots with intervals.

They are drawn 380 units wide, the width of a phone, so that their text stays readable there; the page places
several side by side where there is room. Colours come from the page's style sheet by class: `s0` … `s5`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from markupsafe import Markup

from septet.report.scale import Scale, tail, ticks, words

WIDTH = 380
COLOURS = 6
_ROW = 38
_MARKS = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True)
class Bar:
    """One bar: its words, its length, and the colour of its kind."""

    label: str
    value: float
    kind: int


@dataclass(frozen=True)
class Curve:
    """Latency in ms by percentile."""

    label: str
    points: Sequence[tuple[float, float]]
    kind: int


@dataclass(frozen=True)
class Dot:
    """A ratio with its interval, and the verdict on it."""

    label: str
    value: float
    low: float
    high: float
    verdict: str
    kind: int


@dataclass(frozen=True)
class Point:
    """A ratio with its interval and verdict, at a speed."""

    label: str
    speed: float
    value: float
    low: float
    high: float
    verdict: str
    kind: int


def bars(title: str, rows: Sequence[Bar], unit: str) -> Markup:
    """Horizontal bars from zero, each with its words above and its figure beside it."""
    svg = _canvas(title, f"{'; '.join(f'{r.label} {words(r.value)} {unit}' for r in rows)}", _ROW * len(rows) + 8)
    longest = max(row.value for row in rows) or 1.0
    scale = Scale(0, longest, 0, WIDTH - 100)
    for place, row in enumerate(rows):
        top = place * _ROW
        _text(svg, 0, top + 14, row.label, "label")
        _shape(svg, "rect", row.label, x=0, y=top + 19, width=max(1, scale(row.value)), height=9, rx=2,
               **{"class": f"bar s{row.kind % COLOURS}"})  # fmt: skip
        _text(svg, scale(row.value) + 6, top + 28, f"{words(row.value)} {unit}", "value")
    return _done(svg)


def curves(title: str, rows: Sequence[Curve], limit: float | None, at: float | None) -> Markup:
    """Latency over percentile, on an axis that gives each further nine the same room."""
    height, left, bottom = 230, 44, 34
    latencies = [latency for row in rows for _, latency in row.points]
    described = "; ".join(f"{row.label}: {words(row.points[-1][1])} ms at {row.points[-1][0]:g} %" for row in rows)
    svg = _canvas(title, described, height)
    marks = ticks(0, max([*latencies, *([limit * 1.05] if limit else [])]))
    x = Scale(tail(_MARKS[0]), tail(_MARKS[-1]), left, WIDTH - 14)
    y = Scale(0, marks[-1], height - bottom, 12)
    for mark in marks:
        _shape(svg, "line", "", x1=left, x2=WIDTH - 14, y1=y(mark), y2=y(mark), **{"class": "grid"})
        _text(svg, left - 6, y(mark) + 4, words(mark), "tick end")
    for percentile in _MARKS:
        _text(svg, x(tail(percentile)), height - bottom + 16, f"{percentile:g}", "tick middle")
    _text(svg, (left + WIDTH) / 2, height - 2, "percentile of queries; latency in ms", "tick middle")
    if limit is not None and at is not None:
        _shape(svg, "line", f"limit {limit:g} ms", x1=left, x2=WIDTH - 14, y1=y(limit), y2=y(limit),
               **{"class": "limit"})  # fmt: skip
        _text(svg, left + 4, y(limit) - 4, f"limit {limit:g} ms at {at:g} %", "note")
        _shape(svg, "line", "", x1=x(tail(at)), x2=x(tail(at)), y1=12, y2=height - bottom, **{"class": "grid"})
    for row in rows:
        shown = [(x(tail(p)), y(latency)) for p, latency in row.points if _MARKS[0] <= p <= _MARKS[-1]]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in shown)
        _shape(svg, "polyline", row.label, points=path, **{"class": f"curve s{row.kind % COLOURS}"})
        for px, py in shown:
            _shape(svg, "circle", row.label, cx=px, cy=py, r=2.5, **{"class": f"dot s{row.kind % COLOURS}"})
    return _done(svg)


def dots(title: str, rows: Sequence[Dot], targets: Sequence[float]) -> Markup:
    """Ratios to FP32 in %, each with its interval, against the targets, lowest first."""
    top = 14 * len(targets)
    height = _ROW * len(rows) + top + 30
    svg = _canvas(title, "; ".join(f"{r.label}: {100 * r.value:.2f} %, {r.verdict}" for r in rows), height)
    low = min(100 * targets[0], *(100 * row.low for row in rows))
    high = max(100.2, *(100 * row.high for row in rows))
    marks = ticks(low, high, 5)
    x = Scale(marks[0], marks[-1], 14, WIDTH - 18)
    base = height - 30
    for mark in marks:
        _shape(svg, "line", "", x1=x(mark), x2=x(mark), y1=top, y2=base, **{"class": "grid"})
        _text(svg, x(mark), base + 14, f"{mark:g}", "tick middle")
    _text(svg, WIDTH / 2, height - 2, "% of FP32", "tick middle")
    for place, target in enumerate(targets):
        line = x(100 * target)
        _shape(svg, "line", f"target {100 * target:g} %", x1=line, x2=line, y1=2, y2=base, **{"class": "limit"})
        beside = (-4, "note end") if line > WIDTH / 2 else (4, "note")  # where there is room
        _text(svg, line + beside[0], 10 + 14 * place, f"target {100 * target:g} %", beside[1])
    for place, row in enumerate(rows):
        middle = top + place * _ROW + 20
        _text(svg, WIDTH - 18, middle - 8, f"{row.label}: {row.verdict}", "label end")
        _shape(svg, "line", row.label, x1=x(100 * row.low), x2=x(100 * row.high), y1=middle, y2=middle,
               **{"class": f"whisker s{row.kind % COLOURS}"})  # fmt: skip
        _mark(svg, x(100 * row.value), middle, row)
    return _done(svg)


def scatter(title: str, points: Sequence[Point], target: float) -> Markup:
    """Ratios to FP32 in % over how many times as fast as FP32 each is, against the target."""
    height, left, bottom = 260, 48, 34
    described = "; ".join(f"{p.label}: {words(p.speed)} × at {100 * p.value:.2f} %, {p.verdict}" for p in points)
    svg = _canvas(title, described, height)
    rows = ticks(100 * min(target, *(p.low for p in points)), 100 * max(1.0, *(p.high for p in points)), 5)
    columns = ticks(0, max(1.0, *(p.speed for p in points)))
    x = Scale(columns[0], columns[-1], left, WIDTH - 14)
    y = Scale(rows[0], rows[-1], height - bottom, 12)
    for mark in rows:
        _shape(svg, "line", "", x1=left, x2=WIDTH - 14, y1=y(mark), y2=y(mark), **{"class": "grid"})
        _text(svg, left - 6, y(mark) + 4, f"{mark:g}", "tick end")
    for mark in columns:
        _shape(svg, "line", "", x1=x(mark), x2=x(mark), y1=12, y2=height - bottom, **{"class": "grid"})
        _text(svg, x(mark), height - bottom + 16, f"{mark:g}", "tick middle")
    _text(svg, (left + WIDTH) / 2, height - 2, "times the speed of FP32; % of FP32 kept", "tick middle")
    line = y(100 * target)
    _shape(
        svg, "line", f"target {100 * target:g} %", x1=left, x2=WIDTH - 14, y1=line, y2=line, **{"class": "limit"}
    )
    _text(svg, left + 4, line - 4, f"target {100 * target:g} %", "note")
    for p in points:
        _shape(svg, "line", p.label, x1=x(p.speed), x2=x(p.speed), y1=y(100 * p.low), y2=y(100 * p.high),
               **{"class": f"whisker s{p.kind % COLOURS}"})  # fmt: skip
        _mark(svg, x(p.speed), y(100 * p.value), p)
    return _done(svg)


def _mark(svg: ET.Element, x: float, y: float, row: Dot | Point) -> None:
    """A disc for met, a cross for missed, a ring for undecided: colour is never the only sign."""
    kind = f"s{row.kind % COLOURS}"
    label = f"{row.label}: {100 * row.value:.2f} % ({100 * row.low:.2f} … {100 * row.high:.2f}), {row.verdict}"
    if row.verdict == "missed":
        points = f"M{x - 5},{y - 5}L{x + 5},{y + 5}M{x - 5},{y + 5}L{x + 5},{y - 5}"
        _shape(svg, "path", label, d=points, **{"class": f"whisker {kind}"})
    else:
        shape = "dot" if row.verdict == "met" else "ring"
        _shape(svg, "circle", label, cx=x, cy=y, r=5, **{"class": f"{shape} {kind}"})


def _canvas(title: str, described: str, height: float) -> ET.Element:
    svg = ET.Element("svg", {"viewBox": f"0 0 {WIDTH} {height}", "role": "img", "aria-label": title})
    ET.SubElement(svg, "title").text = title
    ET.SubElement(svg, "desc").text = described
    return svg


def _shape(svg: ET.Element, kind: str, label: str, **attributes: float | str) -> None:
    """A shape, with `label` shown where a pointer rests on it."""
    texts = {key: f"{value:.1f}" if isinstance(value, float) else str(value) for key, value in attributes.items()}
    shape = ET.SubElement(svg, kind, texts)
    if label:
        ET.SubElement(shape, "title").text = label


def _text(svg: ET.Element, x: float, y: float, words: str, kind: str) -> None:
    ET.SubElement(svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "class": kind}).text = words


def _done(svg: ET.Element) -> Markup:
    return Markup(ET.tostring(svg, encoding="unicode"))  # ElementTree has escaped all text
