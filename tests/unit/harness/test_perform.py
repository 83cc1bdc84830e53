# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from septet.errors import NoValidResult
from septet.harness.ask import Ask, Layout
from septet.harness.bed import Bed
from septet.harness.job import Calibration, Outcome
from septet.harness.perform import CONFIRMATIONS, Performance, _highest, perform
from septet.harness.scenario import Bounds, bounds_of

BOUNDS = bounds_of("null", "Server", official=False)


class Machine:
    """Holds rates up to `probed` in short runs and up to `held` in full ones; notes the rates of full runs."""

    def __init__(self, probed: float, held: float) -> None:
        self._most = {True: probed, False: held}
        self.confirmed: list[float] = []

    def __call__(self, rate: float, bounds: Bounds, give_up: bool) -> Performance:
        short = bounds.min_seconds < BOUNDS.min_seconds
        if not short:
            self.confirmed.append(rate)
        valid = rate <= self._most[short]
        return Performance(Layout(1, 1), rate, Outcome(valid, [], {}, {}, "", ""))


def highest(machine: Machine, start: float = 500.0, floor: float = 10.0) -> Performance:
    bed = Bed(Ask("null", Path()), lambda words, progress: None)
    return _highest(bed, BOUNDS, machine, start, floor)


def test_a_rate_that_holds_is_run_twice_in_full() -> None:
    machine = Machine(1_000, 1_000)
    found = highest(machine)
    assert 950 <= found.rate <= 1_000
    assert machine.confirmed == [found.rate] * 2


def test_a_rate_that_short_runs_promised_too_high_is_lowered_faster_and_faster() -> None:
    machine = Machine(1_000, 400)
    found = highest(machine)
    assert found.rate <= 400
    tries = machine.confirmed[:-1]
    falls = [after / before for before, after in pairwise(tries)]
    assert falls == sorted(falls, reverse=True)
    assert len(tries) < CONFIRMATIONS


def test_where_nothing_holds_the_lowest_rate_that_was_tried_is_told() -> None:
    machine = Machine(1_000, 0)
    with pytest.raises(NoValidResult, match="no rate held 1 ms, down to 2") as error:
        highest(machine)
    assert f"{min(machine.confirmed):.3g}" in str(error.value)
    assert len(machine.confirmed) == CONFIRMATIONS


class Served(Bed):
    """A server whose calls take `alone` seconds one at a time, and so many times as long side by side; it keeps
    every rate that is tried up to `most`, and notes the latency limits that it was run under."""

    def __init__(self, alone: float, most: float) -> None:
        super().__init__(Ask("null", Path(), engine="http://127.0.0.1:1/null"), lambda words, progress: None)
        self._alone, self._most = alone, most
        self.limits: set[float | None] = set()

    def calibration(self, streams: int) -> Calibration:
        return Calibration(streams, {1: streams * self._alone})

    def alone(self) -> float:
        return self._alone

    def measure(
        self, bounds: Bounds, layout: Layout, rate: float, words: str, *, give_up: bool = False
    ) -> Outcome:
        self.limits.add(bounds.limit_seconds)
        return Outcome(rate <= self._most, [], {}, {}, "", "")


def test_requests_that_wait_for_each_other_at_a_server_do_not_make_one_alone_too_slow() -> None:
    limit = 0.005
    server = Served(limit / 2, most=100.0)  # sixteen at once take eight times the limit
    assert 90 <= perform(server, replace(BOUNDS, limit_seconds=limit)).rate <= 100
    with pytest.raises(NoValidResult, match="one query alone takes 10 ms"):
        perform(Served(2 * limit, most=100.0), replace(BOUNDS, limit_seconds=limit))


def test_short_runs_have_the_limit_of_the_run_that_counts() -> None:
    server = Served(0.001, most=100.0)
    perform(server, replace(BOUNDS, limit_seconds=0.25))
    assert server.limits == {0.25}
