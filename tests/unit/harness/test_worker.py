# SPDX-License-Identifier: Apache-2.0
"""What a worker runs before a test, on the null engine."""

import io
from dataclasses import replace
from pathlib import Path

import pytest

from septet.harness.job import Job
from septet.harness.rules import Scenario
from septet.harness.scenario import bounds_of
from septet.harness.worker import Reporter, Worker
from septet.tensor import Tensors


def worker(folder: Path, scenario: Scenario, batch: int) -> Worker:
    bounds = replace(bounds_of("null", scenario, official=False), min_seconds=1.0)
    job = Job("null", "mini", "auto", None, "null", "f32", 1, 1, "performance", bounds, str(folder), batch)
    made = Worker(job, Reporter(io.BytesIO()))
    made.load(range(16))
    return made


@pytest.mark.parametrize(
    ("scenario", "sizes"),
    [("Offline", {1, 8}), ("Server", set(range(1, 9))), ("MultiStream", set(range(1, 9)))],
)
def test_every_size_of_batch_that_will_be_formed_is_warm(
    scenario: Scenario, sizes: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, seen = worker(tmp_path, scenario, 8), set()

    def predictor(inputs: Tensors) -> None:
        seen.add(len(next(iter(inputs.values()))))

    monkeypatch.setattr(made, "predictor", predictor)
    made.warm_up_for(16)
    assert seen == sizes
