# SPDX-License-Identifier: Apache-2.0
"""Box scenes: the detectors' miniature data set, of things to find on textured grounds.

A scene shows one to six things, small and large, some in front of others: three of scikit-learn's handwritten
digits, and three drawn shapes. It is drawn from its split and index alone, so that there is no end of them and
each can be drawn again. Categories have gaps between their numbers, as COCO's have.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from septet.tensor import Array
from septet.workloads.digits import handwriting
from septet.workloads.split import Split, draws
from septet.workloads.texture import grain, mottled

COUNTS: dict[Split, int] = {"train": 100_000, "calibration": 500, "search": 1_000, "test": 1_000}

CATEGORIES = {1: "three", 2: "four", 4: "seven", 5: "ring", 7: "triangle", 9: "cross"}
"""Category numbers and names."""

_DIGITS = {1: 3, 2: 4, 4: 7}
_SIZES = ((160, 200), (200, 160), (180, 180))
"""Heights and widths of scenes."""

_MOST = 6
_SMALLEST, _LARGEST = 0.18, 0.65
"""How large things are, as shares of the shorter side."""

_CROWDED = 0.25
"""No thing covers more of another than this share of the smaller one's box."""

_INKED = 0.3
"""A pixel with at least this much ink belongs to the thing, and so to its box."""


@dataclass(frozen=True)
class Scene:
    """A picture and what is on it.

    `image` uint8 [H, W, 3] RGB; `boxes` float32 [things, 4], left, top, width and height in pixels;
    `categories` int64 [things].
    """

    image: Array
    boxes: Array
    categories: Array


class BoxScenes:
    """The scenes of one split, `count` of them (by default as many as `COUNTS` says)."""

    def __init__(self, split: Split, count: int | None = None) -> None:
        self.split = split
        self._count = COUNTS[split] if count is None else count
        self._glyphs = handwriting(split)

    def __len__(self) -> int:
        return self._count

    def scene(self, index: int) -> Scene:
        """Scene `index`; any index may be asked for."""
        draw = draws(self.split, index, len(CATEGORIES))
        height, width = _SIZES[int(draw.integers(len(_SIZES)))]
        picture = _ground(draw, height, width)
        found: list[tuple[Array, int]] = []
        for _ in range(int(draw.integers(1, _MOST + 1))):
            category = int(draw.choice(list(CATEGORIES)))
            self._put(draw, picture, found, category)
        picture += grain(draw, height, width) * np.float32(draw.uniform(0.02, 0.12))
        if draw.random() < 0.4:
            picture = cv2.GaussianBlur(picture, (0, 0), float(draw.uniform(0.5, 1.2)))
        boxes = np.array([box for box, _ in found], np.float32).reshape(-1, 4)
        categories = np.array([category for _, category in found], np.int64)
        return Scene(np.clip(picture, 0, 255).astype(np.uint8), boxes, categories)

    def _put(
        self, draw: np.random.Generator, picture: Array, found: list[tuple[Array, int]], category: int
    ) -> None:
        """Draw one thing into `picture` and note it in `found`, unless a few tries find no room."""
        height, width = picture.shape[:2]
        side = int(min(height, width) * np.exp(draw.uniform(np.log(_SMALLEST), np.log(_LARGEST))))
        ink = self._ink(draw, category, side)
        rows, columns = np.flatnonzero((ink > _INKED).any(1)), np.flatnonzero((ink > _INKED).any(0))
        for _ in range(8):
            top, left = int(draw.integers(height - side + 1)), int(draw.integers(width - side + 1))
            box = np.array([left + columns[0], top + rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1], np.float32)
            if all(_shared(box, other) <= _CROWDED for other, _ in found):
                part = picture[top : top + side, left : left + side]
                part += ink[..., None] * (_colour(draw, part) - part)
                found.append((box, category))
                return

    def _ink(self, draw: np.random.Generator, category: int, side: int) -> Array:
        """How much of each pixel the thing covers: float32 [side, side], 0…1."""
        if category in _DIGITS:
            glyphs = self._glyphs[_DIGITS[category]]
            return _written(draw, glyphs[int(draw.integers(len(glyphs)))], side)
        return _drawn(draw, CATEGORIES[category], side)


def _written(draw: np.random.Generator, glyph: Array, side: int) -> Array:
    """A digit, turned a little and stretched to about the whole of `side`."""
    turn = draw.uniform(-0.25, 0.25)
    size = side / 8 * draw.uniform(0.8, 1.0, 2)
    cos, sin = np.cos(turn), np.sin(turn)
    shape = np.array([[cos, -sin], [sin, cos]]) @ np.diag(size)
    middle = (side - 1) / 2
    matrix = np.column_stack([shape, middle - shape @ np.array([3.5, 3.5])]).astype(np.float32)
    ink: Array = cv2.warpAffine(glyph, matrix, (side, side), flags=cv2.INTER_LINEAR)
    return np.clip(1.6 * ink, 0, 1)


def _drawn(draw: np.random.Generator, name: str, side: int) -> Array:
    """A ring, triangle or cross, turned and stretched."""
    ink = np.zeros((side, side), np.uint8)
    middle, size = (side - 1) / 2, (side - 2) / 2 * draw.uniform(0.75, 1.0, 2)
    turn = draw.uniform(0, 2 * np.pi)
    thick = max(2, round(side * draw.uniform(0.1, 0.2)))
    if name == "ring":
        axes = (max(1, int(size[0] - thick / 2)), max(1, int(size[1] - thick / 2)))
        centre = (round(middle), round(middle))
        cv2.ellipse(ink, centre, axes, 0, 0, 360, 255, thick, cv2.LINE_AA)
    elif name == "triangle":
        corners = turn + np.array([0, 2, 4]) * np.pi / 3 + draw.uniform(-0.25, 0.25, 3)
        points = middle + np.column_stack([np.cos(corners), np.sin(corners)]) * size
        cv2.fillPoly(ink, [points.round().astype(np.int32)], 255, cv2.LINE_AA)
    else:
        for angle in (turn, turn + np.pi / 2):
            arm = np.array([np.cos(angle), np.sin(angle)]) * (size - thick / 2)
            ends = [tuple((middle + way * arm).round().astype(int).tolist()) for way in (-1, 1)]
            cv2.line(ink, ends[0], ends[1], 255, thick, cv2.LINE_AA)
    return ink.astype(np.float32) / 255


def _colour(draw: np.random.Generator, part: Array) -> Array:
    """A colour that stands out from the mean of `part` by 50 to 130 levels, lighter or darker: float32 [3]."""
    mean = part.mean((0, 1))
    way = 1.0 if mean.mean() < 128 else -1.0
    step: Array = mean + way * draw.uniform(50, 130) + draw.uniform(-30, 30, 3)
    return step.astype(np.float32)


def _ground(draw: np.random.Generator, height: int, width: int) -> Array:
    """A mottled, coloured ground, crossed by up to four strokes: float32 [height, width, 3]."""
    ground = mottled(draw, (6, 6), height, width)
    ground += draw.uniform(50, 205, 3).astype(np.float32)
    for _ in range(int(draw.integers(5))):
        (x0, x1), (y0, y1) = draw.integers(0, width, 2), draw.integers(0, height, 2)
        colour = tuple((ground[y0, x0] + draw.uniform(-60, 60)).tolist())
        cv2.line(ground, (int(x0), int(y0)), (int(x1), int(y1)), colour, int(draw.integers(1, 4)), cv2.LINE_AA)
    return ground


def _shared(box: Array, other: Array) -> float:
    """The share of the smaller of two boxes (left, top, width, height) that the other covers."""
    first = np.maximum(box[:2], other[:2])
    last = np.minimum(box[:2] + box[2:], other[:2] + other[2:])
    return float(np.maximum(last - first, 0).prod() / min(box[2:].prod(), other[2:].prod()))
