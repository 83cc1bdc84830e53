# SPDX-License-Identifier: Apache-2.0
"""Results as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TypeVar

from septet.harness.result import Result
from septet.report.chart import Bar, Curve, Dot, bars, curves, dots
from septet.report.picture import Picture
from septet.report.scale import precise, words
from septet.report.table import figure
from septet.report.template import templates

Mark = TypeVar("Mark", Bar, Curve, Dot)


def page(results: Sequence[Result]) -> str:
    """The page. All text of `results` is escaped; nothing is loaded from elsewhere."""
    environment = templates()
    environment.filters |= {"words": words, "figure": figure, "precise": precise}
    return environment.get_template("page.html").render(
        results=results,
        sections=[section for section in _sections(results) if section[2]],
        notes=sorted({note for result in results for note in result.notes}),
        machines=list(dict.fromkeys(_machine(result) for result in results)),
        commits=list(dict.fromkeys(result.commit for result in results)),
        times=sorted(result.time for result in results),
        networks=list(dict.fromkeys(result.network for result in results)),
        official=bool(results) and all(result.official for result in results),
        invalid=sum(result.verdict == "INVALID" for result in results),
    )


Section = tuple[str, str, list[Picture]]


def _sections(results: Sequence[Result]) -> Iterator[Section]:
    kinds = {name: place for place, name in enumerate(dict.fromkeys(map(_engine, results)))}
    yield (
        "Throughput",
        "Samples answered per second. Longer is better; each picture has its own scale.",
        list(_throughput(results, kinds)),
    )
    yield (
        "Latency",
        "How long queries took. The further right, the rarer: at 99, one query in a hundred took longer.",
        list(_latency(results, kinds)),
    )
    yield (
        "Accuracy",
        "Against FP32, with 95 % intervals: of trained miniatures on the same samples, pair by pair; of other "
        "weights against v0.7's published score. Disc: met; cross: missed; ring: too few to tell.",
        list(_accuracy(results, kinds)),
    )


def _throughput(results: Sequence[Result], kinds: dict[str, int]) -> Iterator[Picture]:
    measured = [result for result in results if result.seconds > 0]
    for title, group in _grouped(measured, _network):
        rows = _once(
            Bar(f"{r.scenario} · {_engine(r)}{_unless_valid(r)}", r.samples / r.seconds, kinds[_engine(r)])
            for r in sorted(group, key=lambda r: r.scenario)
        )
        yield Picture(title, "", bars(f"Throughput of {title}", rows, "/s"))


def _unless_valid(result: Result) -> str:
    return "" if result.verdict == "VALID" else f" ({result.verdict})"


def _latency(results: Sequence[Result], kinds: dict[str, int]) -> Iterator[Picture]:
    timed = [result for result in results if result.latency and result.latency.percentiles]
    for title, group in _grouped(timed, lambda r: f"{_network(r)}, {r.scenario}"):
        rows = _once(Curve(_engine(r), _points(r), kinds[_engine(r)]) for r in group)
        first = group[0].latency
        assert first is not None
        svg = curves(f"Latency of {title}", rows, first.limit, first.limit_percentile)
        yield Picture(title, "", svg, [(row.kind, row.label) for row in rows])


def _points(result: Result) -> tuple[tuple[float, float], ...]:
    percentiles = result.latency.percentiles if result.latency else {}
    return tuple(sorted((float(name), value) for name, value in percentiles.items()))


def _once(marks: Iterable[Mark]) -> list[Mark]:
    """Each mark once: a run that is judged at two targets is drawn as the one run that it was."""
    return list(dict.fromkeys(marks))


def _accuracy(results: Sequence[Result], kinds: dict[str, int]) -> Iterator[Picture]:
    scored = [result for result in results if result.accuracy]
    for title, group in _grouped(scored, _network):
        judged = [(r, r.accuracy) for r in group if r.accuracy]
        rows = _once(
            Dot(f"{_engine(r)} at {100 * a.target:g} %", a.ratio, a.ratio_low, a.ratio_high, a.verdict,
                kinds[_engine(r)])
            for r, a in judged
        )  # fmt: skip
        _, first = judged[0]
        caption = f"{first.metric} {precise(first.value, first.unit)} on {first.samples:,} samples"
        svg = dots(f"Accuracy of {title}", rows, sorted({a.target for _, a in judged}))
        yield Picture(title, caption, svg)


def _grouped(results: Sequence[Result], key: Callable[[Result], str]) -> Iterator[tuple[str, list[Result]]]:
    for title, group in groupby(sorted(results, key=key), key):
        yield title, list(group)


def _network(result: Result) -> str:
    return f"{result.network} {result.size}"


def _engine(result: Result) -> str:
    return f"{result.engine} {result.precision}"


def _machine(result: Result) -> str:
    machine = result.machine
    return f"{machine.cpu}, {machine.cores} cores, {machine.memory:.0f} GiB, {machine.system}"
