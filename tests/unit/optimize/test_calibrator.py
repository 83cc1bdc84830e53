# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import onnx
import pytest

from networks_made import normalised_convolutions, perceptron, vectors
from septet.optimize import calibrator, graph
from septet.tensor import Tensors


@pytest.fixture
def feeds() -> list[Tensors]:
    return [{"x": np.stack([sample["x"] for sample in vectors(16, seed)])} for seed in range(4)]


def test_minmax_is_the_whole_range(tmp_path: Path, feeds: list[Tensors]) -> None:
    path = perceptron(tmp_path / "a.onnx")
    found = calibrator.ranges(path, ["x", "product0"], feeds, "minmax")
    seen = np.concatenate([feed["x"] for feed in feeds])
    weight = graph.array(graph.constants(onnx.load(path))["w0"])
    assert found["x"].range_value == pytest.approx((seen.min(), seen.max()))
    assert found["product0"].range_value == pytest.approx(((seen @ weight).min(), (seen @ weight).max()), rel=1e-5)


@pytest.mark.parametrize("kind", ["percentile", "entropy"])
def test_the_others_cut_off_what_is_rare(tmp_path: Path, kind: calibrator.Calibrator) -> None:
    draw = np.random.default_rng(0)
    feed = {"x": draw.standard_normal((40_000, 24)).astype(np.float32)}
    feed["x"][0, 0] = 100
    low, high = calibrator.ranges(perceptron(tmp_path / "a.onnx"), ["x"], [feed], kind)["x"].range_value
    assert high < 30
    assert low > -30


def test_samples_are_run_again_for_tensors_that_do_not_fit(
    tmp_path: Path, feeds: list[Tensors], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tensors = perceptron(tmp_path / "a.onnx"), ["x", "product0", "h0", "product1"]
    at_once = calibrator.ranges(path, tensors, feeds, "percentile")
    monkeypatch.setattr(calibrator, "_AT_ONCE", 1)
    apart = calibrator.ranges(path, tensors, feeds, "percentile")
    assert [at_once[name].range_value for name in tensors] == [apart[name].range_value for name in tensors]


def test_float_tensors_around_layers_are_quantisable(tmp_path: Path) -> None:
    model = graph.read(normalised_convolutions(tmp_path / "a.onnx"))
    graph.know_shapes(model)
    assert calibrator.quantisable(model, ["Conv"]) == ["image", "c0", "r0", "c1"]
