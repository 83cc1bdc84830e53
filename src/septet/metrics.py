# SPDX-License-Identifier: Apache-2.0
"""What a server counts, and the text that Prometheus reads (its exposition format, version 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

LATENCIES = tuple(base * 10**power for power in range(1, 8) for base in (1, 2, 5))
"""Bounds in µs of latency histograms: 10 µs to 50 s, three a decade."""


@dataclass(slots=True)
class Histogram:
    """Counts of values up to each bound; those of several models or servers may be added.

    `observe` takes no lock: one thread at a time observes, any may read.
    """

    bounds: Sequence[float] = LATENCIES
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: ``counter``, ``gauge`` or ``histogram``, and its values by labels."""

    name: str
    kind: str
    help: str
    values: Iterable[tuple[Labels, float | Histogram]]


def page(families: Iterable[Family]) -> str:
    """The text of all `families`."""
    return "".join(line + "\n" for family in families for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    help_ = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    yield f"# HELP {family.name} {help_}"
    yield f"# TYPE {family.name} {family.kind}"
    for labels, value in family.values:
        if isinstance(value, Histogram):
            yield from _buckets(family.name, labels, value)
        else:
            yield f"{family.name}{_braces(labels)} {_number(value)}"


def _buckets(name: str, labels: Labels, histogram: Histogram) -> Iterator[str]:
    counts, total, seen = list(histogram.counts), histogram.total, 0
    for bound, count in zip([*map(_number, histogram.bounds), "+Inf"], counts, strict=True):
        seen += count
        yield f"{name}_bucket{_braces({**labels, 'le': bound})} {seen}"
    yield f"{name}_sum{_braces(labels)} {_number(total)}"
    yield f"{name}_count{_braces(labels)} {seen}"


def _braces(labels: Labels) -> str:
    inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
    return f"{{{inside}}}" if inside else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
