# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, load
from septet.errors import UsageError
from septet.optimize.subject import PARTS
from septet.workloads.exam import MiniatureExam, _spans, subject_of
from septet.workloads.workload import Asked, miniatures


@pytest.fixture(autouse=True)
def own_cache(session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPTET_CACHE", str(session_cache))


def fp32(path: Path | None) -> Engine:
    return load("onnx", path, EngineConfig(), Cpu.detect().partition())


@pytest.fixture(params=miniatures())
def exam(request: pytest.FixtureRequest, own_cache: None) -> MiniatureExam:
    return MiniatureExam(request.param)


def test_a_miniature_is_examined_by_its_own_metric(exam: MiniatureExam) -> None:
    score = exam.exam("search", fp32, 24)
    assert score.samples >= 20
    assert score.value > 20 if score.unit == "%" else score.value > 0.2


def test_its_parts_are_its_splits(exam: MiniatureExam) -> None:
    parts = [exam._parts[part] for part in PARTS]
    assert len({workload.data for workload in parts}) == 3
    firsts = [next(iter(workload.sample(0).values())) for workload in parts]
    assert not any(
        firsts[one].shape == firsts[other].shape and np.array_equal(firsts[one], firsts[other])
        for one, other in ((0, 1), (0, 2), (1, 2))
    )
    assert exam.most("final") > exam.count("final")


def test_calibration_is_what_its_engine_gets(exam: MiniatureExam) -> None:
    feeds = exam.feeds("calibration", fp32, 4, 2)
    assert len(feeds) == 2
    with fp32(exam.model) as engine:
        assert all(set(feed) == {spec.name for spec in engine.inputs} for feed in feeds)
        assert exam.reads is not None
        assert exam.reads <= {spec.name for spec in engine.outputs}


def test_spans_do_not_meet_and_shrink_alike() -> None:
    for length in (3, 10, 1_000):
        spans = _spans(length, {"calibration": 8, "search": 4, "final": 4})
        indices = [index for span in spans.values() for index in span]
        assert len(indices) == len(set(indices))
        assert max(indices) < max(length, 3)
        assert all(len(span) for span in spans.values())


def test_nothing_is_nothing_to_optimise() -> None:
    with pytest.raises(UsageError, match="nothing to optimise"):
        subject_of("null", "mini", Asked())
