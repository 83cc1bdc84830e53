# SPDX-License-Identifier: Apache-2.0
"""Metrics that Python models define themselves: one page shows those of all processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from septet.errors import RequestInvalid
from septet.metrics import Family, Histogram

OURS = ("nv_", "septet_")
"""How the names of the server's own metrics begin."""

Key = tuple[tuple[str, str], ...]


@dataclass
class Series:
    """One value, or one histogram; `holders` processes of models have it."""

    value: float | Histogram
    holders: int = 0


@dataclass
class Named:
    """All values of one name."""

    kind: str
    help: str
    series: dict[Key, Series] = field(default_factory=dict)


class Registry:
    """Values by name and labels. Whoever defines the same ones has them together: a model's instances add up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._named: dict[str, Named] = {}

    def families(self) -> Iterator[Family]:
        """Everything, for a page of metrics."""
        with self._lock:
            named = {name: (each, dict(each.series)) for name, each in self._named.items()}
        for name, (each, series) in named.items():
            values = [(dict(key), one.value) for key, one in series.items()]
            yield Family(name, each.kind, each.help, values)

    def hold(self, name: str, kind: str, help_: str, labels: Mapping[str, str], bounds: Sequence[float]) -> Key:
        """Define a metric, or have a part in it. Raises RequestInvalid where the name is another kind's."""
        if name.startswith(OURS):
            raise RequestInvalid(
                f"metric '{name}': names that begin with {' or '.join(OURS)} are the server's own"
            )
        key = tuple(sorted(labels.items()))
        with self._lock:
            named = self._named.setdefault(name, Named(kind, help_))
            if named.kind != kind:
                raise RequestInvalid(f"metric '{name}' is a {named.kind} already, it cannot be a {kind}")
            fresh = Series(Histogram(tuple(bounds)) if kind == "histogram" else 0.0)
            named.series.setdefault(key, fresh).holders += 1
        return key

    def release(self, name: str, key: Key) -> None:
        """Have no part in a metric any more; the last one takes it off the page."""
        with self._lock:
            named = self._named[name]
            named.series[key].holders -= 1
            if not named.series[key].holders:
                del named.series[key]
            if not named.series:
                del self._named[name]

    def update(self, name: str, key: Key, value: float, *, add: bool) -> None:
        """Set a value, or `add` to it; a histogram observes it."""
        with self._lock:
            series = self._named[name].series[key]
            if isinstance(series.value, Histogram):
                series.value.observe(value)
            else:
                series.value = series.value + value if add else value

    def read(self, name: str, key: Key) -> float:
        """The value; the sum of what a histogram has observed."""
        with self._lock:
            value = self._named[name].series[key].value
            return value.total if isinstance(value, Histogram) else value


class Share:
    """The metrics of one process, by its own numbers."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._held: dict[int, tuple[str, Key]] = {}

    def hold(
        self, number: int, name: str, kind: str, help_: str, labels: Mapping[str, str], bounds: Sequence[float]
    ) -> None:
        """As `Registry.hold`."""
        self._held[number] = name, self._registry.hold(name, kind, help_, labels, bounds)

    def update(self, number: int, value: float, *, add: bool) -> None:
        """As `Registry.update`."""
        if number in self._held:
            self._registry.update(*self._held[number], value, add=add)

    def read(self, number: int) -> float:
        """As `Registry.read`."""
        return self._registry.read(*self._held[number]) if number in self._held else 0.0

    def close(self) -> None:
        """Release everything: the process has ended."""
        while self._held:
            self._registry.release(*self._held.popitem()[1])
