# SPDX-License-Identifier: Apache-2.0
"""Stopwatch: how fast candidates are, each on its own engine, in turn.

CPU time on one core is what is measured: a neighbour that takes the other cores, or part of this one, does not
change it as it changes the wall's clock. What one core does in a second, times the cores, is what several streams
do.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from septet.engines.engine import Engine
from septet.tensor import Tensors

ROUNDS = 9
SECONDS = 0.02
"""A measurement is of as many calls as take at least about this long."""

MOST_SECONDS = 60.0
"""All rounds of all candidates together take about this long at most; there are three rounds at least."""


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """CPU milliseconds a sample on one core, the median of `rounds`: alone in its call (`latency`), and in the
    batch in which each sample takes least (`each`)."""

    latency: float
    each: float
    batch: int
    rounds: int

    @property
    def throughput(self) -> float:
        """Samples a second on one core."""
        return 1e3 / self.each


Feeds = Mapping[int, Sequence[Tensors]]
"""What the engine gets in calls of so many samples."""

Stopwatch = Callable[[Sequence[Engine], Feeds], list[Timing]]
"""Times engines against each other."""


def interleaved(engines: Sequence[Engine], feeds: Feeds) -> list[Timing]:
    """Time each engine on each batch size, all of them in every round."""
    calls = {
        (place, batch): _calls(engine, feeds[batch]) for place, engine in enumerate(engines) for batch in feeds
    }
    cost = sum(_seconds(engines[place], feeds[batch], count) for (place, batch), count in calls.items())
    rounds = max(3, min(ROUNDS, round(MOST_SECONDS / max(cost, 1e-9))))
    seen: dict[tuple[int, int], list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for (place, batch), count in calls.items():
            seconds = _seconds(engines[place], feeds[batch], count)
            seen[place, batch].append(1e3 * seconds / count / batch)
    return [
        _timing({batch: statistics.median(seen[place, batch]) for batch in feeds}, rounds)
        for place in range(len(engines))
    ]


def _timing(each: Mapping[int, float], rounds: int) -> Timing:
    best = min(each, key=each.__getitem__)
    return Timing(each[min(each)], each[best], best, rounds)


def _calls(engine: Engine, feeds: Sequence[Tensors]) -> int:
    """How many calls are worth timing at once: each feed as often as the others where they are of unlike shapes,
    one of which costs more than another. The first call, which compiles and allocates, does not count."""
    shapes = {tuple(array.shape for array in feed.values()) for feed in feeds}
    turn = len(feeds) if len(shapes) > 1 else 1
    _seconds(engine, feeds, turn)
    once = _seconds(engine, feeds, turn)
    return turn * max(1, min(1_000 // turn, round(SECONDS / max(once, 1e-6))))


def _seconds(engine: Engine, feeds: Sequence[Tensors], count: int) -> float:
    start = time.process_time()
    for place in range(count):
        engine.infer(feeds[place % len(feeds)])
    return time.process_time() - start
