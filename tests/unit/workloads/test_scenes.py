# SPDX-License-Identifier: Apache-2.0
from itertools import combinations

import numpy as np
import pytest

from septet.workloads.digits import SHARES
from septet.workloads.scenes import CATEGORIES, COUNTS, BoxScenes
from septet.workloads.split import Split

SPLITS: list[Split] = list(SHARES)


@pytest.mark.parametrize("split", SPLITS)
def test_a_scene_is_the_same_whenever_it_is_drawn(split: Split) -> None:
    forwards = [BoxScenes(split).scene(index) for index in range(4)]
    backwards = [BoxScenes(split).scene(index) for index in reversed(range(4))]
    for one, other in zip(forwards, reversed(backwards), strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.boxes, other.boxes)
    assert not np.array_equal(forwards[0].image[:100, :100], forwards[1].image[:100, :100])


def test_scenes_of_two_splits_differ() -> None:
    first = {split: BoxScenes(split).scene(0) for split in SPLITS}
    assert all(not np.array_equal(first[one].boxes, first[other].boxes) for one, other in combinations(SPLITS, 2))


def test_things_are_few_and_many_small_and_large_and_inside() -> None:
    scenes = [BoxScenes("search").scene(index) for index in range(200)]
    counts = [len(scene.boxes) for scene in scenes]
    assert (min(counts), max(counts)) == (1, 6)
    shares = []
    for scene in scenes:
        height, width = scene.image.shape[:2]
        assert scene.image.dtype == np.uint8
        assert (scene.boxes[:, :2] >= 0).all()
        assert (scene.boxes[:, :2] + scene.boxes[:, 2:] <= [width, height]).all()
        assert (scene.boxes[:, 2:] >= 4).all()
        shares += (scene.boxes[:, 2:].max(axis=1) / min(height, width)).tolist()
    assert np.quantile(shares, 0.1) < 0.2
    assert np.quantile(shares, 0.9) > 0.4
    seen = np.concatenate([scene.categories for scene in scenes])
    assert set(seen.tolist()) == set(CATEGORIES)


def test_a_count_may_be_asked_for() -> None:
    assert len(BoxScenes("test")) == COUNTS["test"] >= 500
    assert len(BoxScenes("train", 12)) == 12
    assert len(BoxScenes("train", 12).scene(1_000_000).boxes)
