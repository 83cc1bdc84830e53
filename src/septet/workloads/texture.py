# SPDX-License-Identifier: Apache-2.0
"""What lies under and over made-up pictures: mottled grounds and grain."""

from __future__ import annotations

import cv2
import numpy as np

from septet.tensor import Array


def mottled(draw: np.random.Generator, knots: tuple[int, int], height: int, width: int) -> Array:
    """Coloured mottles around 0, stretched from `knots`, rows and columns: float32 [height, width, 3]."""
    coarse = draw.standard_normal((*knots, 3), np.float32) * np.float32(draw.uniform(5, 30))
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def grain(draw: np.random.Generator, height: int, width: int) -> Array:
    """Noise of triangular distribution, -255…255: the sum of two uniform draws, cheaper than a normal one."""
    dice = draw.integers(0, 256, (2, height, width, 3), np.uint8)
    noise: Array = dice[0].astype(np.float32) - dice[1]
    return noise
