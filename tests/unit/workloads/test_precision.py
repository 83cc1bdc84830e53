# SPDX-License-Identifier: Apache-2.0
import contextlib
import io
from typing import Any

import msgspec
import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from hypothesis import given, settings
from hypothesis import strategies as st

from septet.tensor import Array
from septet.workloads.coco import Category, Photo, Thing, Truth
from septet.workloads.precision import RECALLS, THRESHOLDS, evaluation, mean_average_precision


def made(seed: int, pictures: int = 12, categories: int = 4, crowds: float = 0.1) -> tuple[Truth, Array]:
    """Random things, and detections of which some are near them."""
    draw = np.random.default_rng(seed)
    photos = tuple(Photo(10 + 3 * n, f"{n}.jpg", 100, 120) for n in range(pictures))
    numbers = [1, 3, 7, 8, 20][:categories]
    things: list[Thing] = []
    rows: list[list[float]] = []
    for photo in photos:
        for _ in range(int(draw.integers(0, 5))):
            left, top = map(float, draw.uniform(0, 60, 2))
            width, height = map(float, draw.uniform(4, 40, 2))
            category = int(draw.choice(numbers[:-1]))  # of the last category there is nothing
            crowd = int(draw.random() < crowds)
            things.append(
                Thing(len(things), photo.id, category, (left, top, width, height), width * height, crowd)
            )
            for _ in range(int(draw.integers(0, 3))):
                near = np.array([left, top, width, height]) + draw.normal(0, 2.5, 4)
                rows.append([photo.id, *near, draw.choice([draw.random(), 0.5]), category])
        for _ in range(int(draw.integers(0, 4))):
            rows.append([photo.id, *draw.uniform(0, 50, 4), draw.random(), draw.choice([*numbers, 99])])
    return Truth(photos, tuple(things), tuple(Category(number, str(number)) for number in numbers)), np.array(
        rows, float
    ).reshape(-1, 7)


def by_pycocotools(truth: Truth, detections: Array) -> float:
    asked = evaluation(truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        asked.evaluate()
        asked.accumulate()
    precision = asked.eval["precision"][:, :, :, 0, -1]
    return float(precision[precision > -1].mean())


def by_faster_coco_eval(truth: Truth, detections: Array) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        content: Any = msgspec.to_builtins(truth)
        for number, entry in enumerate(content["annotations"], 1):
            entry |= {"id": number, "bbox": list(entry["bbox"])}
        wanted = COCO(content)
        known = np.isin(detections[:, 6], truth.numbers())
        found = wanted.loadRes(detections[known])
        asked = COCOeval_faster(wanted, found, "bbox")
        asked.run()
    return float(asked.stats[0])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31))
def test_it_is_what_others_say(seed: int) -> None:
    truth, detections = made(seed)
    if not any(thing.iscrowd == 0 for thing in truth.annotations) or len(detections) < 5:
        return
    seen = mean_average_precision(truth, detections)
    assert seen.value == pytest.approx(by_pycocotools(truth, detections), abs=1e-12)
    assert seen.value == pytest.approx(by_faster_coco_eval(truth, detections), abs=1e-6)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31))
def test_without_a_picture_it_is_what_it_is_of_the_others(seed: int) -> None:
    truth, detections = made(seed, pictures=6)
    if len({thing.image_id for thing in truth.annotations if thing.iscrowd == 0}) < 2:
        return
    seen = mean_average_precision(truth, detections)
    for place, photo in enumerate(truth.images):
        others = Truth(
            truth.images[:place] + truth.images[place + 1 :],
            tuple(thing for thing in truth.annotations if thing.image_id != photo.id),
            truth.categories,
        )
        wanted = by_pycocotools(others, detections[detections[:, 0] != photo.id])
        assert seen.without[place] == pytest.approx(wanted, abs=1e-12)


def test_what_is_right_in_all_is_one() -> None:
    truth, _ = made(3, crowds=0)
    rows = [[thing.image_id, *thing.bbox, 0.9, thing.category_id] for thing in truth.annotations]
    seen = mean_average_precision(truth, np.array(rows))
    assert seen.value == pytest.approx(1)
    assert seen.without == pytest.approx(1)


def test_no_detection_at_all_is_nothing() -> None:
    truth, _ = made(3)
    seen = mean_average_precision(truth, np.zeros((0, 7)))
    assert seen.value == 0
    assert seen.without.tolist() == [0] * len(truth.images)


def test_the_thresholds_are_cocos() -> None:
    truth, detections = made(3)
    params = evaluation(truth, detections).params
    assert params.iouThrs == pytest.approx(THRESHOLDS)
    assert params.recThrs == pytest.approx(RECALLS)
    assert params.maxDets[-1] == 100
