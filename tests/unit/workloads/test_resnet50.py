# SPDX-License-Identifier: Apache-2.0
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import load
from septet.errors import DataError, ModelInvalid, ModelNotFound, UsageError
from septet.workloads import weights
from septet.workloads.resnet import RESNET50
from septet.workloads.resnet50 import ResNet50
from septet.workloads.workload import Asked, open_workload


@pytest.fixture(autouse=True)
def own_cache(session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPTET_CACHE", str(session_cache))


def classifier(path: Path, outputs: dict[str, tuple[int, list[str | int | None]]], side: int = 224) -> Path:
    """An ONNX file with one image input and `outputs`, that computes nothing of use."""
    nodes = [
        helper.make_node("ReduceMean", ["input_tensor:0"], [name], name=name, axes=[1, 2, 3], keepdims=0)
        for name in outputs
    ]
    inputs = [helper.make_tensor_value_info("input_tensor:0", TensorProto.FLOAT, ["N", 3, side, side])]
    infos = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()]
    graph = helper.make_graph(nodes, "classifier", inputs, infos)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_the_miniature_answers_about_as_well_as_its_recipe_said() -> None:
    mini = open_workload("resnet50", "mini", Asked())
    assert isinstance(mini, ResNet50)
    assert (mini.origin, mini.scored, mini.notes, len(mini)) == ("trained", True, (), 5_000)
    with load("onnx", mini.model, EngineConfig(), Cpu.detect().partition()) as engine:
        indices = range(600)
        batch = mini.collate([mini.sample(index) for index in indices])
        answers = mini.respond(engine.infer(batch))
    right = [answers[index, 0] == mini._images.label(index) for index in indices]
    assert 0.78 < np.mean(right) < 0.97


def test_the_shipped_weights_are_small() -> None:
    assert weights.shipped("resnet50").stat().st_size < 1.5e6


def test_the_miniature_takes_no_weights_or_data() -> None:
    with pytest.raises(UsageError, match="go with --size full"):
        open_workload("resnet50", "mini", Asked(weights="synthetic"))


def test_synthetic_weights_say_so_and_are_not_scored() -> None:
    full = open_workload("resnet50", "full", Asked(weights="synthetic"))
    assert full.origin == "synthetic"
    assert full.notes == ("synthetic weights: speed only",)
    assert not full.scored
    assert full.sample(0)["image"].shape == (3, 224, 224)


def test_an_unreachable_official_file_falls_back_and_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEPTET_CACHE", str(tmp_path))
    official = weights.Official("http://127.0.0.1:9/resnet50_v1.onnx", "0" * 32)
    model = classifier(tmp_path / "made.onnx", {"scores": (TensorProto.FLOAT, ["N", 1_000])})

    def write(path: Path) -> None:
        shutil.copy(model, path)

    for _ in range(2):
        found = weights.find("auto", official, write, "made")
        assert found.origin == "synthetic"
        assert (
            "synthetic weights: speed only (the official file cannot be had: http://127.0.0.1:9/" in found.notes[0]
        )
        monkeypatch.setattr(weights, "fetch", lambda *_, **__: pytest.fail("asked again"))


@pytest.mark.parametrize(
    ("outputs", "answers", "wanted"),
    [
        ({"scores": (TensorProto.FLOAT, ["N", 1_000])}, np.eye(1_000, dtype=np.float32)[[7, 9]], [7, 9]),
        (
            {"softmax_tensor:0": (TensorProto.FLOAT, ["N", 1_001])},
            np.eye(1_001, dtype=np.float32)[[8, 10]],
            [7, 9],
        ),
        ({"class": (TensorProto.INT64, ["N"])}, np.array([7, 9]), [7, 9]),
    ],
    ids=["1000", "1001", "arg-max"],
)
def test_a_users_file_is_read_by_what_it_gives(
    tmp_path: Path, outputs: dict[str, tuple[int, list[str | int | None]]], answers: object, wanted: list[int]
) -> None:
    path = classifier(tmp_path / "mine.onnx", outputs)
    mine = open_workload("resnet50", "full", Asked(weights=str(path)))
    assert isinstance(mine, ResNet50)
    assert mine.origin == "user"
    assert list(mine.sample(0)) == ["input_tensor:0"]
    responses = mine.respond({next(iter(outputs)): np.asarray(answers)})
    assert np.asarray(responses).tolist() == [[label] for label in wanted]
    assert np.asarray(responses).dtype == np.int64


def test_files_that_do_not_fit_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="auto, official or synthetic"):
        open_workload("resnet50", "full", Asked(weights=str(tmp_path / "none.onnx")))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x01garbage")
    with pytest.raises(ModelInvalid, match=r"broken\.onnx"):
        open_workload("resnet50", "full", Asked(weights=str(broken)))
    small = classifier(tmp_path / "small.onnx", {"scores": (TensorProto.FLOAT, ["N", 1_000])}, side=64)
    with pytest.raises(ModelInvalid, match=r"not one float32 image \[\?, 3, 224, 224\]"):
        open_workload("resnet50", "full", Asked(weights=str(small)))
    other = classifier(tmp_path / "other.onnx", {"scores": (TensorProto.FLOAT, ["N", 10])})
    with pytest.raises(ModelInvalid, match=f"not scores of {RESNET50.classes} classes"):
        open_workload("resnet50", "full", Asked(weights=str(other)))


def test_top_1_is_scored_from_logged_bytes() -> None:
    mini = open_workload("resnet50", "mini", Asked())
    assert isinstance(mini, ResNet50)
    labels = [mini._images.label(index) for index in range(len(mini))]
    answers = {index: np.int64(label).tobytes() for index, label in enumerate(labels)}
    assert mini.score(answers).value == 100
    wrong = answers | {index: np.int64(-1).tobytes() for index in range(500)}
    score = mini.score(wrong)
    assert score.value == pytest.approx(90)
    assert score.low < 90 < score.high
    assert score.samples == 5_000
    with pytest.raises(DataError, match="sample 17 has no answer"):
        mini.score({index: answer for index, answer in answers.items() if index != 17})
