# SPDX-License-Identifier: Apache-2.0
"""Jobs in processes of their own, on the null engine: what they give back, and how they end."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest

from septet.errors import ModelNotFound, RunCrashed
from septet.harness import process
from septet.harness.job import Job, Mode, Progress
from septet.harness.logs import ISSUER, read_accuracy
from septet.harness.rules import SCENARIOS, SEEDS, Scenario
from septet.harness.scenario import bounds_of

RATES = {"SingleStream": 50_000.0, "MultiStream": 100.0, "Server": 500.0, "Offline": 50_000.0}


def job(folder: Path, scenario: Scenario, mode: Mode = "performance", **changes: object) -> Job:
    bounds = replace(bounds_of("null", scenario, official=False), min_seconds=1.0)
    made = Job(
        network="null",
        size="mini",
        weights="auto",
        data=None,
        engine="null",
        precision="f32",
        threads=1,
        streams=1,
        mode=mode,
        bounds=bounds,
        folder=str(folder),
        batch=256,
        rate=RATES[scenario],
    )
    return msgspec.structs.replace(made, **changes)


def silent(progress: Progress) -> None:
    """Progress that nobody looks at."""


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_runs(scenario: Scenario, tmp_path: Path) -> None:
    told: list[Progress] = []
    outcome = process.test(job(tmp_path, scenario), told.append)
    assert outcome.figures["result_query_count"] >= 1
    assert all(0 <= progress.fraction <= 1 for progress in told)
    assert {"opening", "loading samples", "running"} <= {progress.step for progress in told}
    assert (outcome.issuer == ISSUER) == (scenario != "MultiStream")
    assert outcome.settings["sample_index_rng_seed"] == SEEDS.sample_index


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_accuracy_goes_through_loadgens_log(scenario: Scenario, tmp_path: Path) -> None:
    process.test(job(tmp_path, scenario, "accuracy"), silent)
    answers = read_accuracy(tmp_path)
    assert {index: int.from_bytes(answer, "little") for index, answer in answers.items()} == {
        index: index for index in range(1_024)
    }


def test_loadgen_is_told_the_seeds_and_bounds_that_the_rules_say(tmp_path: Path) -> None:
    process.test(job(tmp_path, "Server"), silent)
    log = (tmp_path / "mlperf_log_detail.txt").read_text()
    for key, value in (
        ("effective_qsl_rng_seed", SEEDS.qsl),
        ("effective_schedule_rng_seed", SEEDS.schedule),
        ("effective_target_latency_ns", 1_000_000),
        ("effective_min_duration_ms", 1_000),
    ):
        assert f'"key": "{key}", "value": {value}' in log
    assert 'is_error": true' not in log


def test_a_hopeless_run_gives_up_early(tmp_path: Path) -> None:
    bounds = replace(bounds_of("null", "Server", official=False), min_seconds=30.0, limit_seconds=1e-9)
    start = time.monotonic()
    outcome = process.test(job(tmp_path, "Server", bounds=bounds, give_up=True), silent)
    assert outcome.hopeless
    assert not outcome.valid
    assert time.monotonic() - start < 15


def test_calibration_times_calls_by_batch(tmp_path: Path) -> None:
    calibration = process.calibrate(job(tmp_path, "Offline", "calibrate"), silent)
    assert {1, 2, 4} <= set(calibration.seconds)
    assert calibration.rate(calibration.fastest_batch()) >= calibration.rate(1)
    assert calibration.soonest_batch() <= calibration.fastest_batch()


def test_an_error_in_the_process_comes_back_as_itself(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="needs a model file"):
        process.test(job(tmp_path, "Offline", engine="onnx"), silent)


def workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "septet.harness.worker" in child.cmdline()]


def test_a_killed_process_is_told_as_such(tmp_path: Path) -> None:
    bounds = replace(bounds_of("null", "Server", official=False), min_seconds=30.0)

    def kill(progress: Progress) -> None:
        if progress.step == "running":
            for worker in workers():
                worker.kill()

    with pytest.raises(RunCrashed, match="signal 9"):
        process.test(job(tmp_path, "Server", bounds=bounds), kill)
    assert workers() == []


def test_an_interrupt_leaves_no_process(tmp_path: Path) -> None:
    bounds = replace(bounds_of("null", "Server", official=False), min_seconds=30.0)

    def interrupt(progress: Progress) -> None:
        if progress.step == "running":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.test(job(tmp_path, "Server", bounds=bounds), interrupt)
    assert workers() == []


def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    bounds = replace(bounds_of("null", "Server", official=False), min_seconds=60.0)
    (tmp_path / "job.json").write_bytes(msgspec.json.encode(job(tmp_path, "Server", bounds=bounds)))
    code = (
        "import sys, msgspec; from pathlib import Path; from septet.harness import process, job;"
        "process.test(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=job.Job), lambda p: None)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "job.json")])
    worker = _child_of(parent.pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    worker.wait(timeout=10)


def _child_of(pid: int) -> psutil.Process:
    for _ in range(200):
        if children := psutil.Process(pid).children():
            return children[0]
        threading.Event().wait(0.05)
    raise AssertionError("no worker was started")
