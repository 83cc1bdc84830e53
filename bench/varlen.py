# SPDX-License-Identifier: Apache-2.0
"""What it gains to run each sequence at its own length, instead of padding all to 384.

1. ``offline``: BERT-large with seeded weights at SQuAD's lengths, one query of many windows through the target
   that LoadGen's Offline asks, on one thread: CPU time a window, own length and padded in turn.
2. ``server``: the same under LoadGen's Server, on all cores, with batches of like lengths: the highest rate at
   which queries keep a latency. BERT-large on two cores cannot keep v0.7's 130 ms, so the limit is a multiple of
   what one padded window takes alone; v0.7's is 20 times that of a T4 (6.46 ms, NVIDIA's results). Probes are of
   so few queries that a 99th percentile would be the worst of them: nine in ten must keep the limit. Both sides
   get LoadGen's same arrivals, faster or slower.
3. ``mini``: the miniature under v0.7's real 130 ms, as ``septet bench`` searches it.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ledger import Row, report
from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import load
from septet.harness.ask import Ask
from septet.harness.bed import Bed
from septet.harness.job import Progress
from septet.harness.library import Library
from septet.harness.perform import perform, server_layout
from septet.harness.scenario import bounds_of
from septet.harness.search import highest
from septet.harness.target import QueuedTarget
from septet.workloads.predictor import Predictor, Rows
from septet.workloads.workload import Asked, Workload, open_workload

ENGINE = "openvino"
PRECISION = "bf16" if Cpu.detect().bf16 else "f32"

WINDOWS, AMONG = 32, 2_048
"""So many windows are run, spread evenly over the lengths of so many."""

ROUNDS, BATCH = 3, 4
LIMIT = 4.0
"""The limit in Server, in latencies of one padded window on all cores."""

QUERIES, SECONDS, KEPT = 50, 60.0, 0.9
"""Of a probe: so long that a queue that only grows is seen to."""

TOLERANCE = 0.1


def silent(words: str, progress: Progress) -> None:
    """Progress is not shown while something is timed."""


@dataclass
class Side:
    """One way of running windows: at their own length or padded."""

    workload: Workload
    predictor: Predictor
    library: Library

    @classmethod
    def open(cls, padded: bool) -> Side:
        workload = open_workload("bert", "full", Asked("synthetic", padded=padded))
        config, partition = EngineConfig(PRECISION, 1, 1), Cpu.detect().partition()
        predictor = workload.predictor(lambda path: load(ENGINE, path, config, partition))
        return cls(workload, predictor, Library(workload))

    def milliseconds(self, indices: Sequence[int]) -> float:
        """CPU time a window of one query of `indices`, by this process, from issue to the last answer."""
        answered: list[int] = []

        def complete(ids: Sequence[int], rows: Rows) -> None:
            answered.extend(ids)

        def fail(error: BaseException) -> None:
            raise error

        target = QueuedTarget(self.predictor, self.library, complete, workers=1, batch=BATCH, fail=fail)
        start = time.process_time()
        target.issue(range(len(indices)), indices)
        target.close()
        spent = time.process_time() - start
        assert sorted(answered) == list(range(len(indices)))
        return 1e3 * spent / len(indices)


def spread(workload: Workload) -> list[int]:
    """Windows whose lengths are spread as those of all."""
    lengths = [workload.length(workload.sample(index)) for index in range(AMONG)]
    places = ((np.arange(WINDOWS) + 0.5) / WINDOWS * AMONG).astype(int)
    return [int(index) for index in np.argsort(lengths, kind="stable")[places]]


def offline_rows() -> list[Row]:
    """CPU time a window, one thread: each at its own length, and padded."""
    sides = {"own length": Side.open(padded=False), "padded to 384": Side.open(padded=True)}
    indices = spread(sides["own length"].workload)
    for side in sides.values():
        side.library.load(indices)
        side.milliseconds(indices[:: WINDOWS // 8])
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            times[name].append(side.milliseconds(indices))
    own, padded = (statistics.median(times[name]) for name in sides)
    mean = statistics.mean(
        sides["own length"].workload.length(sides["own length"].workload.sample(i)) for i in indices
    )
    title = f"BERT-large (synthetic), {ENGINE} {PRECISION}, 1 thread, Offline, batch {BATCH}"
    return [
        Row(f"{title}: windows, mean {mean:.0f} tokens, own length", own, "CPU ms a window"),
        Row(f"{title}: padded to 384", padded, "CPU ms a window"),
        Row(f"{title}: padded ÷ own length", padded / own, "×", floor=2.0),
    ]


def server_rows() -> list[Row]:
    """The highest rate that keeps the limit in Server: each at its own length, and padded."""
    with tempfile.TemporaryDirectory() as folder:
        beds = {
            padded: Bed(Ask("bert", Path(folder) / str(padded), "full", "synthetic", padded=padded, engine=ENGINE,
                            precision=PRECISION), silent)
            for padded in (True, False)
        }  # fmt: skip
        limit = LIMIT * beds[True].calibration(1).seconds[1]
        rates = {padded: _highest_rate(bed, limit) for padded, bed in beds.items()}
    title = f"BERT-large (synthetic), {ENGINE} {PRECISION}, {beds[True].threads} threads, Server"
    within = f"{KEPT:.0%} of {QUERIES} queries within {limit:.2f} s ({LIMIT:g} padded windows)"
    return [
        Row(f"{title}, {within}: own length", rates[False], "queries/s"),
        Row(f"{title}: padded to 384", rates[True], "queries/s"),
        Row(f"{title}: own length ÷ padded", rates[False] / rates[True], "×", floor=1.6),
    ]


def _highest_rate(bed: Bed, limit: float) -> float:
    layout = server_layout(bed, limit)
    bounds = replace(
        bounds_of("bert", "Server", official=False),
        min_seconds=SECONDS,
        min_queries=QUERIES,
        limit_seconds=limit,
        percentile=KEPT,
    )

    def keeps(rate: float) -> bool:
        outcome = bed.measure(bounds, layout, rate, "probing", give_up=True)
        kept = not outcome.hopeless and outcome.figures["result_90.00_percentile_latency_ns"] <= 1e9 * limit
        way = "padded" if bed.ask.padded else "own length"
        print(f"{way}, {layout}: {rate:.3g} queries/s {'kept' if kept else 'missed'}", file=sys.stderr, flush=True)
        return kept

    start = 0.5 * bed.calibration(layout.streams).rate_near(layout.batch)
    return highest(keeps, start, tolerance=TOLERANCE, floor=start / 8) or 0.0


def mini_rows() -> list[Row]:
    """The miniature under v0.7's own limit, as the product searches its rate."""
    bounds = bounds_of("bert", "Server", official=False)
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        for padded in (True, False):
            ask = Ask("bert", Path(folder) / str(padded), padded=padded, engine=ENGINE, precision=PRECISION)
            found = perform(Bed(ask, silent), bounds)
            rates[padded] = found.outcome.figures["result_scheduled_samples_per_sec"]
    title = f"BERT's miniature (trained), {ENGINE} {PRECISION}, all cores, Server within 130 ms, LoadGen VALID"
    return [
        Row(f"{title}: own length", rates[False], "queries/s"),
        Row(f"{title}: padded to 384", rates[True], "queries/s"),
        Row(f"{title}: own length ÷ padded", rates[False] / rates[True], "×"),
    ]


def main() -> None:
    """Measure, print, and where asked write and judge."""
    report({"offline": offline_rows, "server": server_rows, "mini": mini_rows}, title="Variable length")


if __name__ == "__main__":
    main()
