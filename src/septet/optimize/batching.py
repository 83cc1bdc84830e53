# SPDX-License-Identifier: Apache-2.0
"""How a server is to run a model: instances side by side, and how many samples are worth a call.

Found by timing calls on one thread, in CPU time, which a busy neighbour does not change.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from septet.engines.engine import Engine
from septet.tensor import Tensors

SOON = 5e-3
"""Seconds. Calls that take one core less than this have an instance a core: threads that share one wait for each
other longer than they work. A longer one is run by all cores together, which answers soonest."""

GAIN = 1.03
"""A batch twice as large is worth forming where it runs so many times as many samples a second."""

LARGEST = 32
"""No larger batch is formed of single samples: what one costs the server's doors no longer depends on it."""

LONGEST = 0.25
"""Seconds: a longer call is timed once, and a batch of more is not tried."""

_ROUNDS = 5
_LEAST = 0.01


@dataclass(frozen=True)
class Batching:
    """`instances`, and the `size` of the largest batch that is worth forming of requests for one sample each: 0
    where a sample is of several rows, and so a batch already."""

    instances: int
    size: int


Clock = Callable[[], float]


def batching_of(
    engine: Engine, feed: Tensors, cores: int, *, single: bool = False, clock: Clock = time.process_time
) -> Batching:
    """What is best for `engine`, which has one thread and takes `feed` for one sample, on so many `cores`.

    `single` says that its batch is not free.
    """
    seconds = _seconds(engine, feed, clock)
    instances = cores if seconds < SOON else 1
    if single:
        return Batching(instances, 1)
    if any(len(array) != 1 for array in feed.values()):
        return Batching(instances, 0)
    size, best, worth, idle = 1, 1 / seconds, 1, 0
    while idle < 2 and 2 * size <= LARGEST and seconds < LONGEST:
        size *= 2
        seconds = _seconds(engine, {name: np.repeat(array, size, axis=0) for name, array in feed.items()}, clock)
        idle = 0 if size / seconds > GAIN * best else idle + 1
        if not idle:
            best, worth = size / seconds, size
    return Batching(instances, worth)


def _seconds(engine: Engine, feed: Tensors, clock: Clock) -> float:
    """CPU seconds of a call, the median of some rounds; the first call, which compiles and allocates, counts only
    where both it and the next are long."""

    def timed(calls: int) -> float:
        start = clock()
        for _ in range(calls):
            engine.infer(feed)
        return (clock() - start) / calls

    once = min(timed(1), timed(1))
    if once > LONGEST:
        return once
    calls = max(1, round(_LEAST / max(once, 1e-6)))
    return statistics.median(timed(calls) for _ in range(_ROUNDS))
