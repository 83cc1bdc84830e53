# SPDX-License-Identifier: Apache-2.0
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from septet.harness.interval import Clock, run_interval
from septet.harness.job import Job, Outcome
from septet.harness.scenario import bounds_of
from septet.harness.target import Complete, Target

INTERVAL = 0.01


class Answering(Target):
    """Answers every query after `seconds` of its own list, from another thread."""

    def __init__(self, complete: Complete, seconds: Sequence[float]) -> None:
        self.complete = complete
        self.seconds = iter(seconds)
        self.asked: list[list[int]] = []

    def issue(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        self.asked.append(list(indices))
        threading.Thread(target=self._answer, args=(list(ids), next(self.seconds))).start()

    def _answer(self, ids: list[int], seconds: float) -> None:
        time.sleep(seconds)
        self.complete(ids, np.zeros((len(ids), 1)))

    def close(self) -> None:
        """Nothing to put away."""


def run(tmp_path: Path, seconds: Sequence[float], *, give_up: bool = False) -> tuple[Outcome, Clock, Answering]:
    bounds = bounds_of("null", "MultiStream", official=False)
    bounds = replace(bounds, min_seconds=0.01, min_queries=len(seconds), limit_seconds=INTERVAL)
    job = Job(
        "null",
        "mini",
        "auto",
        None,
        "null",
        "f32",
        1,
        1,
        "performance",
        bounds,
        str(tmp_path),
        4,
        3.0,
        give_up,
    )
    clock = Clock(INTERVAL, 3, range(100, 110))
    target = Answering(clock.complete, seconds)
    return run_interval(job, clock, target), clock, target


def test_queries_in_time_are_valid(tmp_path: Path) -> None:
    outcome, _, target = run(tmp_path, [0.001] * 30)
    assert outcome.figures["result_query_count"] == 30
    assert all(len(asked) == 3 and set(asked) <= set(range(100, 110)) for asked in target.asked)
    assert outcome.figures["result_seconds"] >= 29 * INTERVAL
    assert "not in LoadGen" in outcome.issuer
    assert len(msgspec.json.decode((tmp_path / "septet_interval_log.json").read_bytes())["latencies_ns"]) == 30


def test_a_late_answer_skips_intervals(tmp_path: Path) -> None:
    outcome, clock, _ = run(tmp_path, [0.001, 3.5 * INTERVAL, 0.001, 0.001])
    assert clock.skipped >= 3
    assert not outcome.valid
    assert outcome.figures["result_overlatency_query_count"] >= 1
    assert clock.latencies[1] >= 3.5 * INTERVAL


def test_a_hopeless_run_ends_early(tmp_path: Path) -> None:
    outcome, clock, _ = run(tmp_path, [2 * INTERVAL] * 50, give_up=True)
    assert outcome.hopeless
    assert not outcome.valid
    assert len(clock.latencies) < 5


def test_the_same_samples_are_drawn_every_time(tmp_path: Path) -> None:
    first, second = (run(tmp_path, [0.0] * 5)[2].asked for _ in range(2))
    assert first == second


@pytest.mark.parametrize("percentile", ["50.00", "90.00", "99.00", "99.90"])
def test_percentiles_are_of_the_latencies(tmp_path: Path, percentile: str) -> None:
    outcome, clock, _ = run(tmp_path, [0.001] * 20)
    seen = outcome.figures[f"result_{percentile}_percentile_latency_ns"] / 1e9
    assert seen == pytest.approx(sorted(clock.latencies)[int(np.ceil(float(percentile) / 100 * 20)) - 1])
