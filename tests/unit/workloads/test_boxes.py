# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from septet.workloads.boxes import areas, corners, decode, encode, overlaps


@given(st.integers(0, 2**31))
def test_what_is_encoded_is_decoded(seed: int) -> None:
    draw = np.random.default_rng(seed)
    priors = np.column_stack([draw.random((20, 2)), draw.uniform(0.05, 1, (20, 2))]).astype(np.float32)
    first = draw.random((20, 2))
    boxes = np.column_stack([first, first + draw.uniform(0.01, 1, (20, 2))]).astype(np.float32)
    assert decode(encode(boxes, priors), priors) == pytest.approx(boxes, abs=1e-4)


def test_a_code_of_zeros_is_the_prior() -> None:
    priors = np.array([[0.5, 0.25, 0.4, 0.2]], np.float32)
    assert decode(np.zeros((1, 4), np.float32), priors) == pytest.approx(corners(priors))
    assert corners(priors)[0] == pytest.approx([0.3, 0.15, 0.7, 0.35])


def test_the_scales_are_a_tenth_and_a_fifth() -> None:
    prior = np.array([[0.5, 0.5, 0.2, 0.4]], np.float32)
    moved = decode(np.array([[1, -2, 5 * np.log(2), 0]], np.float32), prior)
    assert moved[0] == pytest.approx([0.52 - 0.2, 0.42 - 0.2, 0.52 + 0.2, 0.42 + 0.2])


def test_overlaps() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 6, 6], [1, 1, 1, 1]], np.float32)
    assert areas(boxes).tolist() == [4, 4, 1, 0]
    assert overlaps(boxes, boxes)[0] == pytest.approx([1, 1 / 7, 0, 0])
    assert overlaps(boxes, boxes)[3] == pytest.approx([0, 0, 0, 0])
