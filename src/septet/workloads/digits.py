# SPDX-License-Identifier: Apache-2.0
"""Digit scenes: the miniature's data set, composed from real handwriting.

Each scene shows a number from 00 to 99, written with two of scikit-learn's 1,797 handwritten digits, which are
warped, coloured, crossed by strokes and put on a textured ground. A scene is drawn from its split and index
alone, so that there is no end of them and each can be drawn again.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from septet.tensor import Array
from septet.workloads.split import Split, draws
from septet.workloads.texture import grain, mottled

SHARES: dict[Split, float] = {"train": 0.6, "calibration": 0.1, "search": 0.1, "test": 0.2}
"""How the handwritten digits are shared out; no digit is in two splits."""

COUNTS: dict[Split, int] = {"train": 50_000, "calibration": 500, "search": 4_000, "test": 5_000}

CLASSES = 100
HEIGHT, WIDTH = 80, 96
_GLYPH = 40.0
"""About how large a digit is drawn, in pixels."""


class DigitScenes:
    """The scenes of one split, `count` of them (by default as many as `COUNTS` says)."""

    def __init__(self, split: Split, count: int | None = None) -> None:
        self.split = split
        self._count = COUNTS[split] if count is None else count
        self._glyphs = handwriting(split)

    def __len__(self) -> int:
        return self._count

    def label(self, index: int) -> int:
        """The number that scene `index` shows, 0…99; any index may be asked for."""
        return int(draws(self.split, index).integers(CLASSES))

    def image(self, index: int) -> Array:
        """Scene `index`, uint8 [80, 96, 3] RGB; any index may be asked for."""
        draw = draws(self.split, index)
        number = int(draw.integers(CLASSES))
        scene = _ground(draw)
        for place, digit in enumerate(divmod(number, 10)):
            glyphs = self._glyphs[digit]
            ink = _warp(draw, glyphs[int(draw.integers(len(glyphs)))], place)
            scene += ink[..., None] * _colour_step(draw)
        _strike(draw, scene)
        scene += grain(draw, HEIGHT, WIDTH) * np.float32(draw.uniform(0.04, 0.22))
        if draw.random() < 0.5:
            scene = cv2.GaussianBlur(scene, (0, 0), float(draw.uniform(0.5, 1.3)))
        return np.clip(scene, 0, 255).astype(np.uint8)


@cache
def handwriting(split: Split) -> dict[int, Array]:
    """The split's handwriting by digit: float32 [count, 8, 8], ink 0…1."""
    rows = np.loadtxt(_written(), delimiter=",")
    found: dict[int, Array] = {}
    for digit in range(10):
        images = rows[rows[:, -1] == digit, :-1].reshape(-1, 8, 8).astype(np.float32) / 16
        images = images[np.random.default_rng(digit).permutation(len(images))]
        begin, end = (round(len(images) * part) for part in _span(split))
        found[digit] = images[begin:end]
    return found


def _written() -> Path:
    """scikit-learn's file of digits, 64 pixels and the digit a line: importing scikit-learn would take
    a second."""
    package = find_spec("sklearn")
    assert package is not None
    assert package.submodule_search_locations is not None
    return Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")


def _span(split: Split) -> tuple[float, float]:
    """Where the split's share begins and ends, of 1."""
    order = list(SHARES)
    before = sum(SHARES[other] for other in order[: order.index(split)])
    return before, before + SHARES[split]


def _ground(draw: np.random.Generator) -> Array:
    """A mottled, coloured ground: float32 [80, 96, 3]."""
    ground = mottled(draw, (5, 6), HEIGHT, WIDTH)
    ground += draw.uniform(60, 195, 3).astype(np.float32)
    return ground


def _warp(draw: np.random.Generator, glyph: Array, place: int) -> Array:
    """The digit turned, slanted, sized and put left (place 0) or right (place 1): float32 [80, 96]."""
    turn, slant = draw.uniform(-0.35, 0.35), draw.uniform(-0.3, 0.3)
    size = _GLYPH / 8 * draw.uniform(0.7, 1.15, 2)
    cos, sin = np.cos(turn), np.sin(turn)
    shape = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, slant], [0, 1]]) @ np.diag(size)
    centre = np.array([WIDTH * (0.35 + 0.3 * place), HEIGHT * 0.5]) + draw.uniform(-5, 5, 2)
    matrix = np.column_stack([shape, centre - shape @ np.array([3.5, 3.5])]).astype(np.float32)
    ink: Array = cv2.warpAffine(glyph, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
    return ink


def _colour_step(draw: np.random.Generator) -> Array:
    """By how much full ink changes red, green and blue: mostly one way, lighter or darker."""
    way = 1.0 if draw.random() < 0.5 else -1.0
    step: Array = (way * draw.uniform(45, 120) + draw.uniform(-30, 30, 3)).astype(np.float32)
    return step


def _strike(draw: np.random.Generator, scene: Array) -> None:
    """Up to three strokes across the scene."""
    for _ in range(int(draw.integers(4))):
        (x0, x1), (y0, y1) = draw.integers(0, WIDTH, 2), draw.integers(0, HEIGHT, 2)
        colour = tuple(draw.uniform(0, 255, 3).tolist())
        cv2.line(scene, (int(x0), int(y0)), (int(x1), int(y1)), colour, int(draw.integers(1, 4)), cv2.LINE_AA)
