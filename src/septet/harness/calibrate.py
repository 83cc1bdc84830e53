# SPDX-License-Identifier: Apache-2.0
"""Measure, before any test, how long one call takes at each batch size."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from septet.harness.job import Calibration

_LEAST_SECONDS = 0.15
_LONGEST_CALL = 0.5
_LARGEST_BATCH = 4_096


def calibrate(call: Callable[[int], None], streams: int, samples: int) -> Calibration:
    """Time ``call(batch)`` at batch 1, 2, 4, … on `streams` threads side by side.

    It stops where a call takes half a second, or where two doublings in a row gained nothing.
    """
    seconds: dict[int, float] = {}
    batch, idle = 1, 0
    while batch <= min(samples, _LARGEST_BATCH) and idle < 2:
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
