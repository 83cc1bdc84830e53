# SPDX-License-Identifier: Apache-2.0
import errno
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from networks_made import WIDTH, normalised_convolutions, perceptron, save, vectors
from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import load
from septet.errors import CandidateImpossible, ResultsNotWritten
from septet.optimize import graph
from septet.optimize.candidate import Recipe
from septet.optimize.passes import outputs
from septet.optimize.plan import plan
from septet.optimize.workshop import Workshop
from septet.tensor import Array, Tensors


def shop(path: Path, feeds: list[Tensors]) -> Workshop:
    return Workshop(path, lambda: feeds, path.parent / "files")


@pytest.fixture
def feeds() -> list[Tensors]:
    return [{"x": np.stack([sample["x"] for sample in vectors(16, seed)])} for seed in range(4)]


RECIPES = [
    Recipe("static", "minmax"),
    Recipe("static", "minmax", outputs=True),
    Recipe("static", "entropy"),
    Recipe("dynamic"),
]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_a_quantised_file_answers_nearly_the_same(
    tmp_path: Path, feeds: list[Tensors], recipe: Recipe, engine: str
) -> None:
    path = perceptron(tmp_path / "a.onnx")
    file = shop(path, feeds).file(recipe)
    assert file.stat().st_size < path.stat().st_size
    with load(engine, file, EngineConfig("int8"), Cpu.detect().partition()) as loaded:
        for want, feed in zip(outputs(path, feeds), feeds, strict=True):
            have = loaded.infer(feed)["scores"]
            assert np.linalg.norm(have - want["scores"]) < 0.15 * np.linalg.norm(want["scores"])


def test_kept_layers_stay_in_floating_point(tmp_path: Path, feeds: list[Tensors]) -> None:
    made = shop(perceptron(tmp_path / "a.onnx"), feeds)
    assert made.layers == ["layer0", "layer1", "layer2", "layer3"]
    model = onnx.load(made.file(Recipe("static", "minmax", kept=("layer1", "layer2"))))
    floats = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    assert {"w1", "w2"} <= floats
    assert floats.isdisjoint({"w0", "w3"})


@pytest.mark.parametrize("taken", ["clamped", "product"])
def test_a_clamp_beside_which_an_inner_graph_reads_stays(tmp_path: Path, feeds: list[Tensors], taken: str) -> None:
    """An If whose branches alone take what goes into a ReLU, or what comes out."""
    value = helper.make_tensor_value_info("chosen", onnx.TensorProto.FLOAT, ["N", WIDTH])
    branches = {
        f"{word}_branch": helper.make_graph([helper.make_node(kind, [taken], ["chosen"])], word, [], [value])
        for word, kind in (("then", "Identity"), ("else", "Neg"))
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], name="layer"),
        helper.make_node("Relu", ["product"], ["clamped"], name="relu"),
        helper.make_node("ReduceMax", ["x"], ["most"], name="most", keepdims=0),
        helper.make_node("Greater", ["most", "zero"], ["above"], name="above"),
        helper.make_node("If", ["above"], ["y"], name="if", **branches),
        *([helper.make_node("Add", ["y", "clamped"], ["z"], name="add")] if taken == "product" else []),
    ]
    constants: dict[str, Array] = {
        "w": np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32),
        "zero": np.array(0, np.float32),
    }
    path = save(tmp_path / "if.onnx", nodes, {"x": ["N", WIDTH]}, {nodes[-1].output[0]: ["N", WIDTH]}, constants)
    file = shop(path, feeds).file(Recipe("static", "minmax", outputs=True))
    with load("onnx", file, EngineConfig("int8"), Cpu.detect().partition()) as engine:
        for want, feed in zip(outputs(path, feeds), feeds, strict=True):
            (have,), (wanted,) = engine.infer(feed).values(), want.values()
            assert np.linalg.norm(have - wanted) < 0.15 * np.linalg.norm(wanted)


def test_a_file_is_made_once_and_the_same_each_time(tmp_path: Path, feeds: list[Tensors]) -> None:
    made, recipe = shop(perceptron(tmp_path / "a.onnx"), feeds), Recipe("static", "minmax")
    file = made.file(recipe)
    content, stamp = file.read_bytes(), file.stat().st_mtime_ns
    assert made.file(recipe).stat().st_mtime_ns == stamp
    made.drop(recipe)
    assert not file.exists()
    assert made.file(recipe).read_bytes() == content


def test_a_file_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    made = shop(perceptron(tmp_path / "a.onnx"), [{"wrong": np.zeros(3, np.float32)}])
    with pytest.raises(CandidateImpossible):
        made.file(Recipe("static", "minmax"))
    assert list((tmp_path / "files").iterdir()) == []


def test_dynamic_int8_is_planned_only_without_convolutions(tmp_path: Path) -> None:
    def planned(path: Path) -> set[str]:
        families = plan(graph.read(path), Cpu.detect())
        return {candidate.recipe.quantiser for family in families for candidate in family}

    assert "dynamic" in planned(perceptron(tmp_path / "a.onnx"))
    assert "dynamic" not in planned(normalised_convolutions(tmp_path / "b.onnx"))
    assert "static" in planned(tmp_path / "b.onnx")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("iostream error")]
)
def test_a_full_disk_is_no_fault_of_the_recipe(
    tmp_path: Path, feeds: list[Tensors], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    made = shop(perceptron(tmp_path / "a.onnx"), feeds)

    def fill(*_: object) -> None:
        raise error

    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    with monkeypatch.context() as patch:
        patch.setattr(graph, "write", fill)
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(ResultsNotWritten, match=r"No space left|the disk is full"):
            made.file(RECIPES[0])
    assert made.file(RECIPES[0]).is_file()
