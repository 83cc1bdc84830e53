# SPDX-License-Identifier: Apache-2.0
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from septet.workloads.digits import CLASSES, COUNTS, SHARES, DigitScenes, handwriting
from septet.workloads.split import Split

SPLITS: list[Split] = list(SHARES)


@pytest.mark.parametrize("split", SPLITS)
def test_a_scene_is_the_same_whenever_it_is_drawn(split: Split) -> None:
    forwards = [DigitScenes(split).image(index) for index in range(5)]
    backwards = [DigitScenes(split).image(index) for index in reversed(range(5))]
    assert all(np.array_equal(one, other) for one, other in zip(forwards, reversed(backwards), strict=True))
    assert not np.array_equal(forwards[0], forwards[1])


def test_scenes_of_two_splits_differ() -> None:
    first = {split: DigitScenes(split).image(0) for split in SPLITS}
    assert all(not np.array_equal(first[one], first[other]) for one, other in combinations(SPLITS, 2))


def test_no_handwriting_is_in_two_splits() -> None:
    seen = {
        split: {glyph.tobytes() for glyphs in handwriting(split).values() for glyph in glyphs} for split in SPLITS
    }
    for one, other in combinations(SPLITS, 2):
        assert seen[one].isdisjoint(seen[other])
    assert sum(map(len, seen.values())) == pytest.approx(1_797, abs=10)


def test_handwriting_is_that_of_scikit_learn() -> None:
    digits = load_digits()
    theirs = {(image / 16).astype(np.float32).tobytes() for image in digits.images}
    ours = {glyph.tobytes() for split in SPLITS for glyphs in handwriting(split).values() for glyph in glyphs}
    assert ours <= theirs


def test_images_and_labels() -> None:
    scenes = DigitScenes("test")
    assert len(scenes) == COUNTS["test"]
    image = scenes.image(3)
    assert image.shape == (80, 96, 3)
    assert image.dtype == np.uint8
    assert image.std() > 5
    counts = Counter(scenes.label(index) for index in range(5_000))
    assert set(counts) == set(range(CLASSES))
    assert max(counts.values()) < 2.5 * min(counts.values())


def test_a_count_may_be_asked_for() -> None:
    assert len(DigitScenes("train", 12)) == 12
    assert DigitScenes("train", 12).label(1_000_000) in range(CLASSES)
