# SPDX-License-Identifier: Apache-2.0
"""v0.7's MultiStream, which LoadGen 6 no longer has: N samples every interval.

The rule (inference_rules.adoc of v0.7): a query of N samples falls due every interval; while one is
still being answered the next interval is skipped; the run is valid if the 99th percentile of query
latency is within the interval; the result is the highest such N. LoadGen 6 has only a closed loop of
that name, so this clock issues the queries itself, and every result that it makes says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import septet
from septet.errors import RunCrashed
from septet.harness.job import Job, Outcome
from septet.harness.rules import SEEDS
from septet.harness.target import Target
from septet.workloads.predictor import Rows

ISSUER = "Septet's interval clock (v0.7 MultiStream; not in LoadGen 6)"
_PATIENCE_SECONDS = 60.0


class Clock:
    """Issues one query of `streams` samples at each tick and takes its answers.

    Latency counts from the tick at which the query fell due.
    """

    def __init__(self, interval: float, streams: int, loaded: Sequence[int]) -> None:
        self.latencies: list[float] = []
        self.skipped = 0
        self.late = 0
        self._interval = interval
        self._streams = streams
        self._loaded = np.asarray(loaded)
        self._draw = np.random.default_rng(SEEDS.sample_index)
        self._answered = threading.Event()
        self._counting = threading.Lock()
        self._left = 0
        self._end = 0.0

    def complete(self, ids: Sequence[int], rows: Rows) -> None:
        """Count answers; the last one of a query ends it."""
        with self._counting:
            self._left -= len(ids)
            if self._left == 0:
                self._end = time.perf_counter()
                self._answered.set()

    def run(self, target: Target, enough: Callable[[Clock, float], bool]) -> float:
        """Tick until ``enough(self, seconds)``; returns the seconds that it took."""
        start = time.perf_counter()
        tick = 0
        while not enough(self, time.perf_counter() - start):
            due = start + tick * self._interval
            time.sleep(max(0.0, due - time.perf_counter()))
            self._ask(target, due)
            late = int((self._end - due) // self._interval)
            self.skipped += late
            tick += 1 + late
        return time.perf_counter() - start

    def _ask(self, target: Target, due: float) -> None:
        indices = self._draw.choice(self._loaded, self._streams).tolist()
        self._left = self._streams
        self._answered.clear()
        target.issue(range(self._streams), indices)
        if not self._answered.wait(_PATIENCE_SECONDS):
            raise RunCrashed(f"no answer within {_PATIENCE_SECONDS:g} s to a query of {self._streams} samples")
        self.latencies.append(self._end - due)
        self.late += self._end - due > self._interval


def run_interval(
    job: Job,
    clock: Clock,
    target: Target,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Outcome:
    """Run `clock` until the bounds of `job` are met; every latency goes into the job's folder."""
    bounds = job.bounds
    allowed = int((1 - (bounds.percentile or 0)) * bounds.min_queries)

    def enough(clock: Clock, seconds: float) -> bool:
        progress(min(seconds / bounds.min_seconds, len(clock.latencies) / bounds.min_queries))
        if job.give_up and clock.late > allowed:
            return True
        return seconds >= bounds.min_seconds and len(clock.latencies) >= bounds.min_queries

    seconds = clock.run(target, enough)
    outcome = _judge(job, clock, seconds)
    log = {"outcome": outcome, "latencies_ns": [round(latency * 1e9) for latency in clock.latencies]}
    (Path(job.folder) / "septet_interval_log.json").write_bytes(msgspec.json.encode(log))
    return outcome


def _judge(job: Job, clock: Clock, seconds: float) -> Outcome:
    bounds = job.bounds
    limit, percentile = bounds.limit_seconds or 0.0, bounds.percentile or 0.0
    latencies = np.asarray(clock.latencies)
    over = int((latencies > limit).sum())
    valid = over <= (1 - percentile) * len(latencies)
    settings: dict[str, Any] = {
        "scenario": bounds.scenario,
        "mode": "PerformanceOnly",
        "samples_per_query": round(job.rate),
        "interval_ns": round(limit * 1e9),
        "target_latency_percentile": percentile,
        "min_duration_ms": round(bounds.min_seconds * 1_000),
        "min_query_count": bounds.min_queries,
        "sample_index_rng_seed": SEEDS.sample_index,
    }
    return Outcome(
        valid=valid,
        reasons=[] if valid else [f"{over} of {len(latencies)} queries took longer than the interval"],
        figures=_figures(latencies, over, clock.skipped, seconds),
        settings=settings,
        issuer=ISSUER,
        version=septet.__version__,
        hopeless=len(latencies) < bounds.min_queries,
    )


def _figures(latencies: Any, over: int, skipped: int, seconds: float) -> dict[str, float]:
    percentiles = (50.0, 90.0, 95.0, 97.0, 99.0, 99.9)
    values = np.percentile(latencies, percentiles, method="inverted_cdf")
    return {
        "result_query_count": float(len(latencies)),
        "result_overlatency_query_count": float(over),
        "result_skipped_interval_count": float(skipped),
        "result_seconds": seconds,
        "result_min_latency_ns": float(latencies.min() * 1e9),
        "result_mean_latency_ns": float(latencies.mean() * 1e9),
        "result_max_latency_ns": float(latencies.max() * 1e9),
    } | {
        f"result_{percentile:.2f}_percentile_latency_ns": float(value * 1e9)
        for percentile, value in zip(percentiles, values, strict=True)
    }
