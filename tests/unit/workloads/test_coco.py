# SPDX-License-Identifier: Apache-2.0
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from septet.errors import DataError
from septet.workloads.coco import Coco, PlainPictures, ScenePictures, read_truth, scene_truth
from septet.workloads.imagenet import MadeUpImages
from septet.workloads.scenes import CATEGORIES, BoxScenes
from septet.workloads.ssd import open_pictures

SOUND: dict[str, Any] = {
    "info": {"year": 2017},
    "images": [
        {"id": 139, "file_name": "000000000139.jpg", "height": 30, "width": 40, "license": 2},
        {"id": 285, "file_name": "000000000285.jpg", "height": 40, "width": 30},
        {"id": 632, "file_name": "000000000632.jpg", "height": 20, "width": 20},
    ],
    "annotations": [
        {"id": 7, "image_id": 139, "category_id": 1, "bbox": [1.5, 2, 10, 20.5], "area": 150.5, "iscrowd": 0},
        {"id": 8, "image_id": 285, "category_id": 90, "bbox": [0, 0, 30.3, 40], "area": 1200, "iscrowd": 1},
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}],
}


def write(folder: Path, content: Any) -> Path:
    """COCO's layout: `content`, and the photos that it names."""
    (folder / "annotations").mkdir()
    (folder / "val2017").mkdir()
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "annotations" / "instances_val2017.json").write_text(text)
    for photo in SOUND["images"]:
        image = np.full((photo["height"], photo["width"], 3), photo["id"] % 256, np.uint8)
        cv2.imwrite(str(folder / "val2017" / photo["file_name"]), image)
    return folder


def test_the_official_layout(tmp_path: Path) -> None:
    pictures = open_pictures(write(tmp_path, SOUND))
    assert isinstance(pictures, Coco)
    assert pictures.labelled
    assert len(pictures) == 3  # the third, on which nothing is, stays
    assert [pictures.image(index).shape[:2] for index in range(3)] == [(30, 40), (40, 30), (20, 20)]
    assert pictures.truth.numbers() == [1, 90]
    assert pictures.truth.annotations[1].iscrowd == 1
    assert "3 pictures with 2 labelled boxes" in pictures.words


@pytest.mark.parametrize(
    ("part", "at", "change", "words"),
    [
        ("annotations", 0, {"bbox": [1, 2, -3, 4]}, "annotation 7: its box [1.0, 2.0, -3.0, 4.0] has a negative"),
        ("annotations", 0, {"area": -1}, "negative size"),
        ("annotations", 0, {"bbox": [35, 2, 10, 4]}, "reaches out of 000000000139.jpg, which is 40 × 30"),
        ("annotations", 0, {"bbox": [-5, 2, 10, 4]}, "reaches out of"),
        ("annotations", 0, {"bbox": [1, 2, 3]}, "not COCO's annotations"),
        ("annotations", 0, {"bbox": [1, 2, None, 3]}, "not COCO's annotations"),
        ("annotations", 0, {"image_id": 5}, "annotation 7 is of image 5, which is not there"),
        ("annotations", 0, {"category_id": 2}, "annotation 7 is of category 2, which is not there"),
        ("annotations", 0, {"id": 8}, "annotation 8 is there 2 times"),
        ("images", 0, {"id": 285}, "image 285 is there 2 times"),
        ("categories", 0, {"id": 90}, "category 90 is there 2 times"),
        ("images", 0, {"file_name": "./000000000285.jpg"}, "000000000285.jpg is the photo of 2 images"),
        ("images", 0, {"file_name": "none.jpg"}, "1 of 3 photos are missing, the first is"),
        ("images", 0, {"height": "tall"}, "not COCO's annotations"),
    ],
)
def test_annotations_that_are_not_sound_are_refused(
    tmp_path: Path, part: str, at: int, change: dict[str, Any], words: str
) -> None:
    content = deepcopy(SOUND)
    content[part][at] |= change
    with pytest.raises(DataError, match=r"instances_val2017\.json") as caught:
        open_pictures(write(tmp_path, content))
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", json.dumps(SOUND)[:-40], "[]", b"\xff\xfe\x00"])
def test_broken_json_is_named(tmp_path: Path, text: str | bytes) -> None:
    folder = write(tmp_path, SOUND)
    path = folder / "annotations" / "instances_val2017.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=r"instances_val2017\.json: not COCO's annotations"):
        open_pictures(folder)


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_an_empty_part_is_named(tmp_path: Path, part: str) -> None:
    with pytest.raises(DataError, match="names no two images, no box or no category"):
        open_pictures(write(tmp_path, SOUND | {part: []}))


def test_missing_annotations_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json"):
        read_truth(tmp_path / "none.json")


def test_a_photo_of_another_size_than_annotated_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, SOUND)
    cv2.imwrite(str(folder / "val2017" / "000000000285.jpg"), np.zeros((30, 40, 3), np.uint8))
    with pytest.raises(DataError, match=r"000000000285\.jpg: is 40 × 30 pixels, annotated as 30 × 40"):
        open_pictures(folder).image(1)


def test_a_photo_cut_short_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, SOUND)
    path = folder / "val2017" / "000000000139.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"000000000139\.jpg"):
        open_pictures(folder).image(0)


def test_scenes_are_annotated_as_coco_is(tmp_path: Path) -> None:
    scenes = [BoxScenes("search").scene(index) for index in range(5)]
    truth = scene_truth(scenes)
    assert truth.numbers() == list(CATEGORIES)
    assert len(truth.annotations) == sum(len(scene.boxes) for scene in scenes)
    path = tmp_path / "scenes.json"
    path.write_bytes(msgspec.json.encode(truth))
    assert read_truth(path) == truth
    assert ScenePictures("search", 5).truth == truth


def test_other_pictures_are_not_labelled(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((30, 40, 3), np.uint8))
    for pictures in (open_pictures(None), open_pictures(tmp_path), PlainPictures(MadeUpImages(2))):
        assert not pictures.labelled
        assert pictures.image(0).ndim == 3
        with pytest.raises(DataError, match="nothing is known"):
            _ = pictures.truth
