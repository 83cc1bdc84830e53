# SPDX-License-Identifier: Apache-2.0
"""What the harness itself costs.

1. With the null engine, which computes nothing: samples per second Offline, and the latency of a Server run
   at 30,000 queries a second.
2. With a real engine: LoadGen's Offline throughput over that of a bare loop on the same engine, the same
   batches and the same samples, taken in turn. At full size, where a sample costs tens of milliseconds, and on
   the miniature, where it costs less than a tenth of one: there a few microseconds of Python show.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from ledger import Row, report
from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import load
from septet.harness.ask import Ask, Layout
from septet.harness.bed import Bed
from septet.harness.job import Progress
from septet.harness.library import Library
from septet.harness.scenario import Bounds, bounds_of
from septet.workloads.workload import Asked, Size, open_workload

ROUNDS = 5
SERVER_RATE = 30_000.0
NETWORK, ENGINE, PRECISION = "resnet50", "openvino", "f32"
SECONDS: dict[Size, float] = {"full": 10.0, "mini": 3.0}
WEIGHTS: dict[Size, str] = {"full": "synthetic", "mini": "trained"}


def silent(words: str, progress: Progress) -> None:
    """Progress is not shown while something is timed."""


def null_rows(folder: Path) -> list[Row]:
    """Offline throughput and Server latency with nothing to compute."""
    bed = Bed(Ask("null", folder, engine="null", threads=1), silent)
    offline, server = (bounds_of("null", scenario, official=False) for scenario in ("Offline", "Server"))
    layout = Layout(1, 4_096)
    rates = [bed.measure(offline, layout, 1e6, "null").figures["result_samples_per_second"] for _ in range(ROUNDS)]
    outcomes = [bed.measure(server, Layout(1, 256), SERVER_RATE, "null") for _ in range(ROUNDS)]
    scheduled = [o.figures["result_scheduled_samples_per_sec"] for o in outcomes if o.valid]
    p99 = [o.figures["result_99.00_percentile_latency_ns"] / 1e6 for o in outcomes]
    return [
        Row("null engine, Offline", statistics.median(rates), "samples/s", floor=600_000),
        Row(
            "null engine, Server, valid rate",
            statistics.median(scheduled or [0.0]),
            "queries/s",
            floor=29_900,
        ),
        Row("null engine, Server, p99", statistics.median(p99), "ms", ceiling=1.0),
    ]


FLOORS: dict[Size, float | None] = {"full": 0.97, "mini": None}
"""The claim is about the network. A sample of the miniature takes 75 µs: handing its answer over shows there."""


class BareLoop:
    """The same engine without LoadGen: each stream's thread runs batch after batch."""

    def __init__(self, size: Size, layout: Layout, threads: int) -> None:
        self._workload = open_workload(NETWORK, size, asked(size))
        config = EngineConfig(PRECISION, threads, layout.streams)
        partition = Cpu.detect().partition()
        self._predictor = self._workload.predictor(lambda path: load(ENGINE, path, config, partition))
        self._library = Library(self._workload)
        self._layout = layout

    def samples_per_second(self, bounds: Bounds) -> float:
        """Throughput over ``bounds.min_seconds``."""
        loaded = range(min(len(self._workload), bounds.library))
        self._library.load(loaded)
        done = [0] * self._layout.streams
        start = time.perf_counter()

        def work(place: int) -> None:
            turn = place
            while time.perf_counter() - start < bounds.min_seconds:
                indices = [(turn * self._layout.batch + k) * 7 % len(loaded) for k in range(self._layout.batch)]
                self._predictor(self._library.gather(indices))
                done[place] += self._layout.batch
                turn += self._layout.streams

        threads = [threading.Thread(target=work, args=(place,)) for place in range(self._layout.streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done) / (time.perf_counter() - start)


def asked(size: Size) -> Asked:
    """Speed needs no trained weights at full size, and looks for none."""
    return Asked("synthetic" if size == "full" else "auto")


def real_rows(folder: Path, size: Size) -> list[Row]:
    """LoadGen's Offline throughput over a bare loop's, in turn."""
    ask = Ask(NETWORK, folder, size=size, weights=asked(size).weights, engine=ENGINE, precision=PRECISION)
    bed = Bed(ask, silent)
    bounds = replace(bounds_of(NETWORK, "Offline", official=False), min_seconds=SECONDS[size])
    layout = Layout(bed.threads, bed.calibration(bed.threads).fastest_batch())
    bare = BareLoop(size, layout, bed.threads)
    rate = bare.samples_per_second(bounds)
    ratios, harness = [], []
    for _ in range(ROUNDS):
        before = bare.samples_per_second(bounds)
        seen = bed.measure(bounds, layout, rate, size).figures["result_samples_per_second"]
        after = bare.samples_per_second(bounds)
        harness.append(seen)
        ratios.append(2 * seen / (before + after))
    shape = f"{layout.streams} streams, batch {layout.batch}"
    name = f"{NETWORK} {size} ({WEIGHTS[size]}), {ENGINE} {PRECISION}, {shape}"
    return [
        Row(f"{name}: LoadGen Offline", statistics.median(harness), "samples/s"),
        Row(f"{name}: LoadGen ÷ bare loop", statistics.median(ratios), "×", floor=FLOORS[size]),
    ]


def main() -> None:
    """Measure, print, and where asked write and judge."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        report(
            lambda: [*null_rows(place), *real_rows(place, "full"), *real_rows(place, "mini")],
            title="Harness overhead",
        )


if __name__ == "__main__":
    main()
