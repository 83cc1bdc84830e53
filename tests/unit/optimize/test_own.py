# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import septet
from networks_made import WIDTH, perceptron, save, vectors
from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, load
from septet.errors import DataError, ModelInvalid, ModelNotFound, SeptetError, UnknownNetwork, UsageError
from septet.optimize.own import OwnModel
from septet.optimize.samples import Given
from septet.optimize.subject import PARTS
from septet.tensor import Tensors


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return perceptron(tmp_path / "mine.onnx")


def fp32(path: Path | None) -> Engine:
    return load("onnx", path, EngineConfig(), Cpu.detect().partition())


def test_the_parts_are_disjoint_and_whole(model: Path) -> None:
    subject = OwnModel(model, vectors(100))
    parts = [set(subject._parts[part]) for part in PARTS]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 100
    assert all(len(part) >= 20 for part in parts)


def test_without_a_score_it_is_agreement_and_says_so(model: Path) -> None:
    subject = OwnModel(model, vectors(40))
    assert subject.judged == "agreement"
    assert "not accuracy" in subject.notes[0]
    score = subject.exam("search", fp32, 10)
    assert (score.metric, score.value) == ("top-1 agreement", 100)


def test_samples_come_from_files_folders_and_functions(model: Path, tmp_path: Path) -> None:
    samples = vectors(20)
    np.savez(tmp_path / "all.npz", x=np.stack([sample["x"] for sample in samples]), label=np.arange(20))
    for kind in ("npz", "npy"):
        (tmp_path / kind).mkdir()
    for place, sample in enumerate(samples):
        np.savez(tmp_path / "npz" / f"{place:03}.npz", x=sample["x"])
        np.save(tmp_path / "npy" / f"{place:03}.npy", sample["x"])
    files: list[Given] = [tmp_path / "all.npz", str(tmp_path / "npz"), tmp_path / "npy"]
    given: list[Given] = [*files, samples, lambda: iter(samples), "networks_made:twenty_vectors"]
    for data in given:
        subject = OwnModel(model, data)
        assert sum(subject.count(part) for part in PARTS) == 20
        np.testing.assert_array_equal(subject._sample(3)["x"], samples[3]["x"])


def two_inputs(path: Path) -> Path:
    """``left`` float32 [N, L, 4], ``right`` float32 [N, L, 4] -> ``sum``: L is free, and names are unusual."""
    nodes = [
        helper.make_node("MatMul", ["left/input:0", "w"], ["a"], name="m"),
        helper.make_node("Add", ["a", "right input"], ["sum.out"], name="s"),
    ]
    shape: list[int | str] = ["N", "L", 4]
    constants = {"w": np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)}
    return save(path, nodes, {"left/input:0": shape, "right input": shape}, {"sum.out": shape}, constants)


def test_several_inputs_free_dimensions_and_odd_names(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    samples = [
        {
            name: draw.standard_normal((2 + place % 5, 4)).astype(np.float32)
            for name in ("left/input:0", "right input")
        }
        for place in range(60)
    ]
    found = septet.optimize(
        two_inputs(tmp_path / "two.onnx"), data=samples, output=tmp_path / "s", repository=tmp_path / "models"
    )
    assert found.ledger.judged == "agreement"
    assert 'name: "left/input:0"' in (found.entry / "config.pbtxt").read_text()
    assert "dims: [ -1, 4 ]" in (found.entry / "config.pbtxt").read_text()


def test_weights_outside_and_a_fixed_batch(tmp_path: Path) -> None:
    model = onnx.load(perceptron(tmp_path / "a.onnx"))
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = 1
    (tmp_path / "far").mkdir()
    path = tmp_path / "far" / "fixed.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    found = septet.optimize(path, data=vectors(60), output=tmp_path / "s", repository=tmp_path / "models")
    assert found.ledger.product is not None
    assert "max_batch_size: 0" in (found.entry / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ("no.npz", DataError, "cannot be read"),
        ("nowhere", DataError, "neither"),
        ("no_module:samples", UsageError, "not module:function"),
        ("networks_made:nothing", UsageError, "not module:function"),
        ([{"y": np.zeros(WIDTH, np.float32)}] * 20, DataError, "has no x"),
        ([{"x": np.zeros(3, np.float32)}] * 20, DataError, r"\[3\], the network takes x: float32\[24\]"),
        ([{"x": np.array(["a"] * WIDTH)}] * 20, DataError, "the network takes"),
        ([{"x": np.zeros(WIDTH, np.float32)}] * 3, DataError, "too few"),
        ([], DataError, "no samples"),
        ([np.zeros(WIDTH)] * 20, DataError, "not arrays by input name"),
        (None, UsageError, "--data"),
    ],
)  # fmt: skip
def test_bad_samples_are_told(model: Path, data: object, error: type[SeptetError], words: str) -> None:
    with pytest.raises(error, match=words):
        septet.optimize(model, data=data, output=model.parent / "s", repository=model.parent / "m")  # type: ignore[arg-type]


def test_bad_models_are_told(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        OwnModel(tmp_path / "none.onnx", vectors(20))
    (tmp_path / "half.onnx").write_bytes(model.read_bytes()[:500])
    with pytest.raises(ModelInvalid):
        OwnModel(tmp_path / "half.onnx", vectors(20))
    with pytest.raises(UnknownNetwork, match="no network is called so, and no file"):
        septet.optimize("resnet5")


def test_operators_that_no_engine_knows_are_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Frobnicate", ["r"], ["f"], domain="com.example"),
        helper.make_node("Whirl", ["f"], ["y"], domain="com.example"),
    ]
    x, y = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4])] for name in ("x", "y"))
    made = helper.make_model(
        helper.make_graph(nodes, "odd", x, y),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)],
        ir_version=8,
    )
    onnx.save(made, tmp_path / "odd.onnx")
    with pytest.raises(ModelInvalid, match=r"com\.example\.Frobnicate, com\.example\.Whirl"):
        OwnModel(tmp_path / "odd.onnx", vectors(20))


@pytest.mark.parametrize("said", [[0.5], [2.0] * 8, [float("nan")] * 8])
def test_a_score_that_is_none_is_told(model: Path, said: list[float]) -> None:
    subject = OwnModel(model, vectors(20), lambda answers, indices: said)
    with pytest.raises(UsageError, match="the score gave"):
        subject.exam("search", fp32, 8)


def test_a_score_gets_outputs_without_batch_and_the_places_of_samples(model: Path) -> None:
    seen: list[tuple[Tensors, int]] = []

    def score(answers: list[Tensors], indices: list[int]) -> list[float]:
        seen.extend(zip(answers, indices, strict=True))
        return [1.0] * len(answers)

    samples = vectors(40)
    OwnModel(model, samples, score).exam("search", fp32, 12)  # type: ignore[arg-type]
    with fp32(model) as engine:
        for answer, index in seen:
            want = engine.infer({"x": samples[index]["x"][None]})["scores"][0]
            np.testing.assert_allclose(answer["scores"], want, rtol=1e-5)
