# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, load
from septet.errors import DataError, FetchError, ModelInvalid, ModelNotFound, UsageError
from septet.harness.library import Library
from septet.tensor import Array
from septet.workloads import ssd_mobilenet, ssd_resnet34
from septet.workloads.coco import Truth
from septet.workloads.ssd import INDEX, Ssd, rows
from septet.workloads.weights import shipped
from septet.workloads.workload import Asked, miniatures, open_workload

NETWORKS = {"ssd-mobilenet": ssd_mobilenet, "ssd-resnet34": ssd_resnet34}
SIDES = {"ssd-mobilenet": 300, "ssd-resnet34": 1200}

Outputs = dict[str, Array]

BOXES = np.array([[[0.1, 0.2, 0.5, 0.6], [0.3, 0.3, 0.4, 0.9], [0, 0, 0, 0]]], np.float32)
SCORES = np.array([[0.9, 0.6, 0]], np.float32)
CLASSES = np.array([[18, 44, 1]])
TENSORFLOW: Outputs = {
    "num_detections:0": np.array([2], np.float32),
    "detection_boxes:0": BOXES,
    "detection_scores:0": SCORES,
    "detection_classes:0": CLASSES.astype(np.float32),
}
PYTORCH: Outputs = {"bboxes": BOXES, "labels": CLASSES, "scores": SCORES}


@pytest.fixture(autouse=True)
def own_cache(session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPTET_CACHE", str(session_cache))


def opened(network: str, asked: Asked, size: Any = "full") -> Ssd:
    if size == "mini" and network not in miniatures():
        pytest.skip(f"the miniature of {network} has no trained weights yet")
    found = open_workload(network, size, asked)
    assert isinstance(found, Ssd)
    return found


def file(path: Path, name: str, dtype: Any, shape: list[Any], outputs: Outputs) -> Path:
    """An ONNX file with one input, which gives `outputs` whatever it is shown."""
    nodes = [
        helper.make_node("Constant", [], [key], value=numpy_helper.from_array(array))
        for key, array in outputs.items()
    ]
    kind = helper.np_dtype_to_tensor_dtype
    infos = [helper.make_tensor_value_info(key, kind(a.dtype), a.shape) for key, a in outputs.items()]
    inputs = [helper.make_tensor_value_info(name, kind(np.dtype(dtype)), shape)]
    graph = helper.make_graph(nodes, "detector", inputs, infos)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def engine(path: Path | None) -> Engine:
    return load("onnx", path, EngineConfig(), Cpu.detect().partition())


def answers(workload: Ssd, indices: list[int]) -> list[Array]:
    library = Library(workload)
    library.load(indices)
    with workload.predictor(engine) as predict:
        return list(predict(library.gather(indices)))


@pytest.mark.parametrize("network", list(NETWORKS))
def test_the_miniature_answers_about_as_well_as_its_recipe_said(network: str) -> None:
    mini = opened(network, Asked(), "mini")
    assert (mini.origin, mini.scored, mini.notes) == ("trained", True, ())
    assert len(mini) == 1_000
    few = list(range(150))
    found = answers(mini, few)
    nothing = dict.fromkeys(range(len(mini)), b"")
    score = mini.score(nothing | {index: row.tobytes() for index, row in zip(few, found, strict=True)})
    assert (score.metric, score.unit, score.samples) == ("mAP", "%", 1_000)
    # of 15 % of the things, at most about that many recalls are reached
    assert 0.4 * 15 < score.value < 0.97 * 15


@pytest.mark.parametrize("network", list(NETWORKS))
def test_the_shipped_weights_are_small(network: str) -> None:
    if network not in miniatures():
        pytest.skip(f"the miniature of {network} has no trained weights yet")
    assert shipped(network).stat().st_size < 1.5e6


@pytest.mark.parametrize("network", list(NETWORKS))
def test_synthetic_weights_say_so_and_are_not_scored(network: str) -> None:
    for asked in (Asked(weights="synthetic"), Asked()):
        full = opened(network, asked)
        assert full.origin == "synthetic"
        assert full.notes[0].startswith("synthetic weights: speed only")
        assert not full.scored
        side = SIDES[network]
        sample = full.sample(1)
        assert sample["image"].shape == (3, side, side)
        assert sample[INDEX].tolist() == 1
    assert "https://zenodo.org/record/" in full.notes[0]


@pytest.mark.parametrize("network", list(NETWORKS))
def test_files_that_cannot_be_checked_are_not_fetched(network: str) -> None:
    with pytest.raises(FetchError, match=r"fetch https://zenodo\.org/record/\d+/files/.*\.onnx yourself"):
        opened(network, Asked(weights="official"))


def test_tensorflows_file_is_shown_levels_and_chooses_itself(tmp_path: Path) -> None:
    path = file(tmp_path / "tf.onnx", "image_tensor:0", np.uint8, [None, None, None, 3], TENSORFLOW)
    mine = opened("ssd-mobilenet", Asked(weights=str(path)))
    assert mine.origin == "user"
    levels = mine.sample(0)["image_tensor:0"]
    assert (levels.shape, levels.dtype) == ((300, 300, 3), np.dtype(np.uint8))
    (row,) = answers(mine, [5])
    assert row == pytest.approx(
        np.array([[5, 0.1, 0.2, 0.5, 0.6, 0.9, 18], [5, 0.3, 0.3, 0.4, 0.9, 0.6, 44]], np.float32)
    )


def test_pytorchs_file_for_single_pictures_is_asked_one_by_one(tmp_path: Path) -> None:
    path = file(tmp_path / "pt.onnx", "image", np.float32, [1, 3, 1200, 1200], PYTORCH)
    mine = opened("ssd-resnet34", Asked(weights=str(path)))
    first, second = answers(mine, [4, 2])
    assert (first[:, 0].tolist(), second[:, 0].tolist()) == ([4, 4, 4], [2, 2, 2])
    assert first[0, 1:] == pytest.approx([0.2, 0.1, 0.6, 0.5, 0.9, 18])  # x comes first in this file
    assert first[:, 1:].tolist() == second[:, 1:].tolist()


def test_a_users_file_of_codes_and_scores_is_chosen_from(tmp_path: Path) -> None:
    codes, scores = np.zeros((1, 1_917, 4), np.float32), np.zeros((1, 1_917, 91), np.float32)
    scores[0, 1_916, 18] = 0.75
    path = file(tmp_path / "raw.onnx", "x", np.float32, [None, 3, 300, 300], {"a": scores, "b": codes})
    (row,) = answers(opened("ssd-mobilenet", Asked(weights=str(path))), [7])
    half = (0.95**0.5) / 2
    assert row == pytest.approx(
        np.array([[7, 0.5 - half, 0.5 - half, 0.5 + half, 0.5 + half, 0.75, 18]], np.float32)
    )


@pytest.mark.parametrize("network", list(NETWORKS))
def test_files_that_do_not_fit_are_told(tmp_path: Path, network: str) -> None:
    side = SIDES[network]
    with pytest.raises(ModelNotFound, match="auto, official or synthetic"):
        opened(network, Asked(weights=str(tmp_path / "none.onnx")))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x01garbage")
    with pytest.raises(ModelInvalid, match=r"broken\.onnx"):
        opened(network, Asked(weights=str(broken)))
    small = file(tmp_path / "small.onnx", "image", np.float32, [None, 3, 64, 64], PYTORCH)
    with pytest.raises(ModelInvalid, match=rf"not one float32 image \[\?, 3, {side}, {side}\]"):
        opened(network, Asked(weights=str(small)))
    other = file(tmp_path / "other.onnx", "image", np.float32, [None, 3, side, side], {"scores": SCORES})
    with pytest.raises(ModelInvalid, match="neither codes"):
        opened(network, Asked(weights=str(other)))


@pytest.mark.parametrize("network", list(NETWORKS))
def test_the_miniature_takes_no_weights_or_data(network: str) -> None:
    with pytest.raises(UsageError, match="go with --size full"):
        opened(network, Asked(weights="synthetic"), "mini")


def perfect(truth: Truth, classes: dict[int, int]) -> dict[int, bytes]:
    """Answers that are right in all."""
    found: dict[int, bytes] = {}
    for index, photo in enumerate(truth.images):
        mine = [thing for thing in truth.annotations if thing.image_id == photo.id]
        boxes = np.array([thing.bbox for thing in mine], np.float32).reshape(-1, 4)
        edges = np.column_stack([boxes[:, [1, 0]], boxes[:, [1, 0]] + boxes[:, [3, 2]]])
        shares = edges / np.array([photo.height, photo.width] * 2, np.float32)
        numbers = np.array([classes[thing.category_id] for thing in mine])
        found[index] = rows(index, shares, np.full(len(mine), 0.9), numbers).tobytes()
    return found


def classes_of(network: str, truth: Truth) -> dict[int, int]:
    if network == "ssd-mobilenet":
        return {number: number for number in truth.numbers()}
    return {number: place for place, number in enumerate(truth.numbers(), 1)}


@pytest.mark.parametrize("network", list(NETWORKS))
def test_map_is_scored_from_logged_bytes(network: str) -> None:
    mini = opened(network, Asked(), "mini")
    truth = mini._pictures.truth
    right = perfect(truth, classes_of(network, truth))
    score = mini.score(right)
    assert score.value == pytest.approx(100, abs=0.01)
    worse = mini.score(right | dict.fromkeys(range(300), b""))
    assert worse.value == pytest.approx(70, abs=3)
    assert worse.low < worse.value < worse.high
    assert worse.high - worse.low < 10
    assert worse.per_sample.mean() == pytest.approx(worse.value / 100)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"123", "box scenes, .*: sample 3: an answer of 3 bytes is not rows of 7 float32"),
        (
            np.array([4, 0, 0, 1, 1, 0.5, 1], np.float32).tobytes(),
            "box scenes, .*: sample 3: its answer is sample 4's",
        ),
        (
            np.array([3, 0, 0, np.nan, 1, 0.5, 1], np.float32).tobytes(),
            "box scenes, .*: sample 3: its answer holds what is not",
        ),
    ],
)
def test_answers_that_are_none_are_refused(answer: bytes, words: str) -> None:
    mini = opened("ssd-mobilenet", Asked(), "mini")
    nothing = dict.fromkeys(range(len(mini)), b"")
    with pytest.raises(DataError, match=words):
        mini.score(nothing | {3: answer})
    with pytest.raises(DataError, match="sample 17 has no answer"):
        mini.score({index: answer for index, answer in nothing.items() if index != 17})


@pytest.mark.parametrize("network", list(NETWORKS))
def test_all_of_cocos_numbers_map_right(network: str, tmp_path: Path) -> None:
    """80 categories with the gaps of the official file: 91 classes for one network, 80 + 1 for the other."""
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": 100, "width": 200} for n in (9, 11)],
        "annotations": [
            {"id": n, "image_id": 9 + n % 2 * 2, "category_id": n, "bbox": [n, n, 9, 9], "area": 81, "iscrowd": 0}
            for n in COCO_NUMBERS
        ],
        "categories": [{"id": n, "name": str(n)} for n in COCO_NUMBERS],
    }
    for folder in ("annotations", "val2017"):
        (tmp_path / folder).mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    for name in ("9.jpg", "11.jpg"):
        cv2.imwrite(str(tmp_path / "val2017" / name), np.zeros((100, 200, 3), np.uint8))
    path = tmp_path / "official.onnx"
    if network == "ssd-mobilenet":
        file(path, "image_tensor:0", np.uint8, [None, None, None, 3], TENSORFLOW)
    else:
        file(path, "image", np.float32, [1, 3, 1200, 1200], PYTORCH)
    mine = opened(network, Asked(str(path), tmp_path))
    assert (mine.scored, len(mine)) == (True, 2)
    truth = mine._pictures.truth
    assert mine.score(perfect(truth, classes_of(network, truth))).value == pytest.approx(100)
    assert mine.categories(np.array([1, 80 if network == "ssd-resnet34" else 90])).tolist() == [1, 90]
    if network == "ssd-resnet34":
        assert mine.categories(np.array([0, 12, 81, -1])).tolist() == [0, 13, 0, 0]


COCO_NUMBERS = [n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


@pytest.mark.parametrize("network", list(NETWORKS))
def test_a_folder_of_photos_is_for_speed(network: str, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((30, 40, 3), np.uint8))
    full = opened(network, Asked("synthetic", tmp_path))
    assert (len(full), full.scored) == (1, False)
