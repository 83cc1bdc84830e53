# SPDX-License-Identifier: Apache-2.0
import time

import numpy as np

from septet.harness.meter import Meter

ROWS = np.zeros((1, 1))


def test_it_passes_answers_on_and_counts_them() -> None:
    passed: list[int] = []
    meter = Meter(lambda ids, rows: passed.extend(ids))
    meter.complete([4, 5], ROWS)
    meter.complete([6], ROWS)
    assert (passed, meter.done, meter.late) == ([4, 5, 6], 3, 0)


def test_it_calls_hopeless_once_when_too_many_are_late() -> None:
    called: list[int] = []
    meter = Meter(lambda ids, rows: None, limit_seconds=0.0, allowed=1, hopeless=lambda: called.append(meter.late))
    meter.issued([1, 2, 3, 4])
    time.sleep(0.001)
    for id_ in (1, 2, 3, 4):
        meter.complete([id_], ROWS)
    assert called == [2]
    assert meter.late == 4


def test_what_is_in_time_is_not_late() -> None:
    meter = Meter(lambda ids, rows: None, limit_seconds=60.0, allowed=0)
    meter.issued([1])
    meter.complete([1], ROWS)
    assert meter.late == 0
