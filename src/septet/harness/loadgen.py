# SPDX-License-Identifier: Apache-2.0
"""MLPerf LoadGen: the only module that imports `mlperf_loadgen`.

LoadGen's configuration is global to its process, so a process runs one test and no more. Settings are
set attribute by attribute from `Bounds`; LoadGen's own configuration files are never read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlperf_loadgen as lg
import numpy as np

from septet.harness.job import Job, Outcome
from septet.harness.logs import read_outcome
from septet.harness.rules import SEEDS
from septet.harness.target import Target
from septet.workloads.predictor import Rows

_ACCURACY_SAMPLES_PER_QUERY = 8


def complete(ids: Sequence[int], rows: Rows) -> None:
    """Hand the answers `rows` for the queries `ids` to LoadGen, which copies them before this returns."""
    response = lg.QuerySampleResponse
    if isinstance(rows, np.ndarray):
        address, size = rows.__array_interface__["data"][0], rows[0].nbytes
        step = rows.strides[0]
        answers = [response(id_, address + place * step, size) for place, id_ in enumerate(ids)]
    else:
        answers = [response(id_, row.ctypes.data, row.nbytes) for id_, row in zip(ids, rows, strict=True)]
    lg.QuerySamplesComplete(answers)


def settings_for(job: Job) -> dict[str, Any]:
    """The attributes of LoadGen's TestSettings for `job`, by name."""
    bounds = job.bounds
    settings: dict[str, Any] = {
        "scenario": job.bounds.scenario,
        "mode": "AccuracyOnly" if job.mode == "accuracy" else "PerformanceOnly",
        "min_duration_ms": round(bounds.min_seconds * 1_000),
        "min_query_count": bounds.min_queries,
        "qsl_rng_seed": SEEDS.qsl,
        "sample_index_rng_seed": SEEDS.sample_index,
        "schedule_rng_seed": SEEDS.schedule,
    }
    return settings | _scenario_settings(job)


def _scenario_settings(job: Job) -> dict[str, Any]:
    bounds = job.bounds
    match bounds.scenario:
        case "SingleStream":
            return {
                "single_stream_expected_latency_ns": max(1, round(1e9 / job.rate)),
                "single_stream_target_latency_percentile": bounds.percentile,
            }
        case "Server":
            return {
                "server_target_qps": job.rate,
                "server_target_latency_ns": round((bounds.limit_seconds or 0) * 1e9),
                "server_target_latency_percentile": bounds.percentile,
                "server_num_issue_query_threads": 0,
            }
        case "Offline":
            # the one query's samples: the larger of the minimum count and 1.1 × rate × duration
            return {
                "offline_expected_qps": job.rate,
                "min_query_count": max(bounds.min_samples, bounds.min_queries),
            }
        case "MultiStream":
            return {"multi_stream_samples_per_query": _ACCURACY_SAMPLES_PER_QUERY}


def run_test(
    job: Job,
    target: Target,
    samples: int,
    load: Callable[[Sequence[int]], None],
    unload: Callable[[], None],
) -> Outcome:
    """Run the one LoadGen test of this process, its logs into ``job.folder``.

    `samples` is the size of the data set; `load` and `unload` fill and empty the library.
    """
    settings = settings_for(job)
    folder = Path(job.folder)
    library = lg.ConstructQSL(
        samples, min(samples, job.bounds.library), lambda indices: load(indices), lambda indices: unload()
    )
    system = lg.ConstructFastSUT(target.issue, lambda: None)
    try:
        lg.StartTestWithLogSettings(
            system, library, _test_settings(settings), _log_settings(folder), str(folder / "no-audit.config")
        )
    finally:
        lg.DestroyFastSUT(system)
        lg.DestroyQSL(library)
    return read_outcome(folder, settings)


def _test_settings(settings: dict[str, Any]) -> Any:
    test = lg.TestSettings()
    named = {"scenario": lg.TestScenario, "mode": lg.TestMode}
    for name, value in settings.items():
        setattr(test, name, getattr(named[name], value) if name in named else value)
    return test


def _log_settings(folder: Path) -> Any:
    output = lg.LogOutputSettings()
    output.outdir = str(folder)
    output.copy_summary_to_stdout = False
    log = lg.LogSettings()
    log.log_output = output
    log.enable_trace = False
    return log
