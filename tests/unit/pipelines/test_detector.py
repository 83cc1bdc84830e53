# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from septet.pipelines.detector import Levels, ssd_mobilenet, ssd_resnet34, stretch
from septet.tensor import Array


def weights(source: int, target: int) -> Array:
    """How much of each source pixel is in each target pixel, bilinearly: float64 [target, source]."""
    found = np.zeros((target, source))
    for place in range(target):
        at = min(max((place + 0.5) * source / target - 0.5, 0), source - 1)
        below = int(at)
        found[place, below] += 1 - (at - below)
        found[place, min(below + 1, source - 1)] += at - below
    return found


@settings(deadline=None, max_examples=20)
@given(st.integers(8, 200), st.integers(8, 200), st.integers(0, 2**31))
def test_images_are_preprocessed_as_the_words_say(height: int, width: int, seed: int) -> None:
    side = 60
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    rows, columns = weights(height, side), weights(width, side)
    resized = np.einsum("ih,hwc,jw->cij", rows, image.astype(float), columns, optimize=True)
    assert stretch(image, side).transpose(2, 0, 1) == pytest.approx(resized, abs=2e-3)
    assert ssd_mobilenet(side)(image) == pytest.approx((resized - 127.5) / 127.5, abs=1e-4)
    means, spreads = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    wanted = (resized / 255 - np.reshape(means, (3, 1, 1))) / np.reshape(spreads, (3, 1, 1))
    assert ssd_resnet34(side)(image) == pytest.approx(wanted, abs=1e-4)
    off = Levels(side)(image).transpose(2, 0, 1) - np.floor(resized)
    assert np.abs(off[np.abs(resized - np.round(resized)) > 0.01]).max(initial=0) == 0


def test_what_comes_out() -> None:
    image = np.zeros((375, 500, 3), np.uint8)
    image[..., 0] = 255  # red
    one, other = ssd_mobilenet(300)(image), ssd_resnet34(1200)(image)
    assert (one.shape, one.dtype, one.flags.c_contiguous) == ((3, 300, 300), np.dtype(np.float32), True)
    assert (other.shape, other.dtype, other.flags.c_contiguous) == ((3, 1200, 1200), np.dtype(np.float32), True)
    assert one[:, 7, 7] == pytest.approx([1, -1, -1])
    assert other[:, 7, 7] == pytest.approx([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225], rel=1e-5)
    assert Levels(300)(image).shape == (300, 300, 3)
