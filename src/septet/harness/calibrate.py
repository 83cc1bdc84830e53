# SPDX-License-Identifier: Apache-2.0
"""Measure, before any test, how long one call takes at each batch size."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np

from septet.harness.job import Calibration
from septet.harness.library import Library

_LEAST_SECONDS = 0.15
_LONGEST_CALL = 0.5
LARGEST_BATCH = 4_096

_GOLDEN = (5**0.5 - 1) / 2
"""Its multiples, less their whole parts, are spread evenly however few they are: van der Corput and Weyl, 1916."""

_ALIKE = 1 / 16
"""The share of all samples, by length, that a batch is made of: so are batches formed when many wait."""


class Batches:
    """Batches to time a library's samples by.

    Each is of samples of like length, and the lengths of the batches of one size are spread as those of all
    samples are. All sizes go through the same lengths, so that few calls are enough to compare them.
    """

    def __init__(self, library: Library) -> None:
        self._order = np.array(library.by_length())
        unlike = library.lengths(self._order.tolist()) is not None
        self._width = max(1, int(_ALIKE * len(self._order))) if unlike else len(self._order)
        self._turns: defaultdict[int, Iterator[int]] = defaultdict(itertools.count)

    def next(self, batch: int) -> list[int]:
        """The samples of the next batch of that size. It may be asked for from many threads."""
        place = (next(self._turns[batch]) + 1) * _GOLDEN % 1
        begin, within = divmod(int(place * len(self._order)), self._width)
        places = begin * self._width + (within + np.arange(batch)) % self._width
        return [int(index) for index in self._order[np.minimum(places, len(self._order) - 1)]]


def calibrate(warm: Callable[[int], None], call: Callable[[int], None], streams: int, largest: int) -> Calibration:
    """Time ``call(batch)`` at batch 1, 2, 4, … `largest` on `streams` threads side by side, after ``warm(batch)``.

    It stops where a call takes half a second, or where two doublings in a row gained nothing.
    """
    seconds: dict[int, float] = {}
    batch, idle = 1, 0
    while batch <= largest and idle < 2:
        warm(batch)
        began = time.perf_counter()
        call(batch)
        slow = time.perf_counter() - began > _LONGEST_CALL
        before = max((size / took for size, took in seconds.items()), default=0.0)
        seconds[batch] = _seconds_a_call(lambda: call(batch), streams, least=1 if slow else 2)  # noqa: B023
        if seconds[batch] > _LONGEST_CALL:
            break
        idle = 0 if batch / seconds[batch] > 1.03 * before else idle + 1
        batch *= 2
    return Calibration(streams, seconds)


def _seconds_a_call(call: Callable[[], None], streams: int, least: int) -> float:
    calls = [0] * streams
    start = time.perf_counter()

    def work(place: int) -> None:
        while time.perf_counter() - start < _LEAST_SECONDS or calls[place] < least:
            call()
            calls[place] += 1

    threads = [threading.Thread(target=work, args=(place,)) for place in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - start) * streams / sum(calls)
