# SPDX-License-Identifier: Apache-2.0
"""Priors: the boxes that a single-shot detector starts from, laid out over its feature maps.

Liu et al., «SSD: Single Shot MultiBox Detector», 2016, section 2.2. The two networks of v0.7 lay them out each in
its own way: as TensorFlow's object detection API does (`mobilenet_priors`), and as the first Caffe release did
(`resnet34_priors`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt

import numpy as np

from septet.tensor import Array

Shape = tuple[float, float]
"""Height and width, or width and height, of a prior as shares of the image's."""

MOBILENET_ASPECTS = (1.0, 2.0, 0.5, 3.0, 0.3333)
"""Width ÷ height of the priors at each place; the last is a third as the API's configuration spells it."""

_SMALLEST, _LARGEST = 0.2, 0.95


def mobilenet_priors(maps: Sequence[int]) -> Array:
    """Centre and size in the order (y, x, height, width), shares of the image: float32 [priors, 4].

    `maps` are the sides of the feature maps. Places go row by row, and all priors of a place stand together.
    Source: ssd_mobilenet_v1_coco_2018_01_28, ``ssd_anchor_generator``: scales from 0.2 to 0.95, one more prior of
    the geometric mean of this scale and the next, three reduced priors on the largest map.
    """
    steps = (_LARGEST - _SMALLEST) / (len(maps) - 1)
    scales = [_SMALLEST + steps * place for place in range(len(maps))] + [1.0]
    found = []
    for level, side in enumerate(maps):
        shapes = list(_mobilenet_shapes(level, scales[level], scales[level + 1]))
        places = [((row + 0.5) / side, (column + 0.5) / side) for row in range(side) for column in range(side)]
        found += [(*place, *shape) for place in places for shape in shapes]
    return np.array(found, np.float32)


def _mobilenet_shapes(level: int, scale: float, following: float) -> Iterator[Shape]:
    if level == 0:
        pairs = [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
    else:
        pairs = [(scale, aspect) for aspect in MOBILENET_ASPECTS] + [(sqrt(scale * following), 1.0)]
    for size, aspect in pairs:
        yield size / sqrt(aspect), size * sqrt(aspect)


def resnet34_priors(maps: Sequence[int], aspects: Sequence[Sequence[int]], scales: Sequence[float]) -> Array:
    """Centre and size in the order (x, y, width, height), shares of the image: float32 [priors, 4].

    `maps` are the sides of the feature maps, `aspects` the width ÷ height of the longish priors of each, and
    `scales` one size more than there are maps. All places of a map, row by row, stand together for its first
    shape, then for its second, and so on. Source: mlcommons/inference, models/ssd_r34.py, ``DefaultBoxes``.
    """
    found = []
    for level, side in enumerate(maps):
        places = [((column + 0.5) / side, (row + 0.5) / side) for row in range(side) for column in range(side)]
        for shape in _resnet34_shapes(aspects[level], scales[level], scales[level + 1]):
            found += [(*place, *shape) for place in places]
    return np.array(found, np.float32).clip(0, 1)


def _resnet34_shapes(aspects: Sequence[int], scale: float, following: float) -> Iterator[Shape]:
    between = sqrt(scale * following)
    yield scale, scale
    yield between, between
    for aspect in aspects:
        long, short = scale * sqrt(aspect), scale / sqrt(aspect)
        yield long, short
        yield short, long
