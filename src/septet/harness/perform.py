# SPDX-License-Identifier: Apache-2.0
"""The performance run of each scenario: choose a layout and a rate, measure, and where the rules ask for the
highest valid rate, search for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from septet.errors import NoValidResult
from septet.harness.ask import Layout
from septet.harness.bed import Bed
from septet.harness.job import Outcome
from septet.harness.rules import Scenario
from septet.harness.scenario import Bounds, bounds_of
from septet.harness.search import highest

PROBE_SECONDS = 2.0
"""How long one step of a search lasts at least; the run that is reported lasts as long as its bounds say."""

TOLERANCE = {True: 0.01, False: 0.05}
"""How near a search comes to the highest rate: official runs, quick runs."""

FASTEST = 1e6
"""No test starts from a higher rate than this: what a target in Python completes in a second."""

FASTEST_SERVED = 2e4
"""Likewise in Server, where each query is issued by itself."""

CALLS = 64
"""Queries under way at once at a server, in Server: so many meet at the rates that it holds."""

OFFLINE_TRIES = 3
HEADROOM = 1.15
"""An Offline query is prepared for so much more than the calibrated rate: whole, it is batched better than the
calls that were calibrated, and one that ends before its time must be run again."""

CONFIRMATIONS = 8
STEP_DOWN = 0.95
"""What a rate that was not confirmed is lowered to; each failure more lowers it by one such step more, so that the
last of all tries is at a quarter of the first."""


@dataclass(frozen=True)
class Performance:
    """A finished performance run, the layout that it ran on, and the rate that it was asked for."""

    layout: Layout
    rate: float
    outcome: Outcome


def perform(bed: Bed, bounds: Bounds) -> Performance:
    """Run the scenario of `bounds`. Raises NoValidResult where its search finds no valid rate."""
    return _PERFORM[bounds.scenario](bed, bounds)


def single_stream(bed: Bed, bounds: Bounds) -> Performance:
    """One query at a time, on all threads together."""
    layout = Layout(1, 1)
    # LoadGen draws its queries beforehand from the expected latency: expecting half of it leaves a margin
    rate = min(2 / bed.alone(), FASTEST)
    return Performance(layout, rate, bed.measure(bounds, layout, rate, "measuring latency"))


def offline(bed: Bed, bounds: Bounds) -> Performance:
    """One query of all samples; again with the rate just seen where it ended before its time."""
    layout = _throughput_layout(bed)
    rate = min(HEADROOM * bed.calibration(layout.streams).rate_near(layout.batch), FASTEST)
    for _ in range(OFFLINE_TRIES):
        outcome = bed.measure(bounds, layout, rate, f"about {rate:,.0f} samples/s")
        if outcome.valid or outcome.figures.get("result_min_duration_met") != 0.0:
            break
        rate = 1.1 * outcome.figures["result_samples_per_second"]
    return Performance(layout, rate, outcome)


def server(bed: Bed, bounds: Bounds) -> Performance:
    """The highest rate of random arrivals that keeps the latency limit."""
    limit = bounds.limit_seconds or math.inf
    layout = server_layout(bed, limit)
    calibration = bed.calibration(bed.streams if bed.ask.remote else layout.streams)
    # of many requests under way at once at a server, each waits for the others
    alone = bed.alone() if bed.ask.remote else calibration.seconds[1]
    if alone > limit:
        raise NoValidResult(
            f"no rate is valid: one query alone takes {1e3 * alone:.3g} ms and the limit "
            f"is {1e3 * limit:g} ms: use more threads, or a faster engine or precision"
        )

    def at(rate: float, bounds: Bounds, give_up: bool) -> Performance:
        words = f"trying {rate:,.5g} queries/s" if give_up else f"confirming {rate:,.5g} queries/s"
        return Performance(layout, rate, bed.measure(bounds, layout, rate, words, give_up=give_up))

    start = min(0.7 * calibration.rate_near(layout.batch), FASTEST_SERVED)
    return _highest(bed, bounds, at, start, start / 64)


def multi_stream(bed: Bed, bounds: Bounds) -> Performance:
    """The most samples that are answered within the interval, interval after interval."""
    limit = bounds.limit_seconds or math.inf
    layout = _throughput_layout(bed)

    def at(rate: float, bounds: Bounds, give_up: bool) -> Performance:
        shared = replace(layout, batch=min(layout.batch, math.ceil(rate / layout.streams)))
        words = f"trying {rate:.0f} streams" if give_up else f"confirming {rate:.0f} streams"
        return Performance(shared, rate, bed.measure(bounds, shared, rate, words, give_up=give_up))

    start = 0.7 * limit * min(bed.calibration(layout.streams).rate_near(layout.batch), FASTEST)
    return _highest(bed, bounds, at, start, 1.0, whole=True)


_PERFORM: dict[Scenario, Callable[[Bed, Bounds], Performance]] = {
    "SingleStream": single_stream,
    "Offline": offline,
    "Server": server,
    "MultiStream": multi_stream,
}


def _highest(
    bed: Bed,
    bounds: Bounds,
    at: Callable[[float, Bounds, bool], Performance],
    start: float,
    floor: float,
    *,
    whole: bool = False,
) -> Performance:
    """Search with short runs that give up early, then see the rate valid in two full runs; the second counts."""
    short = replace(
        bounds_of(bed.ask.network, bounds.scenario, official=False),
        min_seconds=PROBE_SECONDS,
        library=bounds.library,
        limit_seconds=bounds.limit_seconds,
    )
    rate = highest(
        lambda rate: at(rate, short, True).outcome.valid,
        start,
        tolerance=TOLERANCE[bounds.official],
        floor=floor,
        whole=whole,
    )
    tried = floor
    for steps in range(1, CONFIRMATIONS + 1):
        if rate is None or rate < floor:
            break
        tried = rate
        if at(rate, bounds, True).outcome.valid:
            confirmed = at(rate, bounds, False)
            if confirmed.outcome.valid:
                return confirmed
        rate *= STEP_DOWN**steps
        rate = float(math.floor(rate)) if whole else rate
    raise NoValidResult(
        f"no rate held {1e3 * (bounds.limit_seconds or 0):g} ms, down to {tried:.3g}: the machine is too busy "
        "to keep the latency, or the network too slow for it: quieten the machine, or use a faster engine"
    )


def _throughput_layout(bed: Bed) -> Layout:
    """One stream a thread: it costs nothing in throughput and isolates better."""
    streams = bed.streams
    return Layout(streams, bed.ask.batch or bed.calibration(streams).fastest_batch())


def server_layout(bed: Bed, limit: float) -> Layout:
    """One stream a thread where one thread answers well inside the limit, else one stream of all threads."""
    if bed.ask.remote:
        return Layout(bed.ask.streams or CALLS, bed.ask.batch or 1)  # the server forms the batches
    inside = limit / 3
    streams = bed.ask.streams
    if streams is None:
        streams = bed.threads if bed.calibration(bed.threads).seconds[1] < inside else 1
    calibration = bed.calibration(streams)
    # no sample of a batch is answered before all are, so a batch too must stay well inside the limit
    largest = max((batch for batch, seconds in calibration.seconds.items() if seconds < inside), default=1)
    return Layout(streams, bed.ask.batch or min(calibration.soonest_batch(), largest))
