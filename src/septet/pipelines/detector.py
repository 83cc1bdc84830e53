# SPDX-License-Identifier: Apache-2.0
"""Images to tensors, as the v0.7 reference does it for its two detectors.

Source: mlcommons/inference v0.7.1, vision/classification_and_detection/python/dataset.py,
``pre_process_coco_pt_mobilenet``, ``pre_process_coco_mobilenet`` and ``pre_process_coco_resnet34``. All three
resize pixels that are floating-point numbers already, so that nothing is rounded on the way.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from septet.tensor import Array


@dataclass(frozen=True)
class Detector:
    """Stretch to a square, subtract means, divide: uint8 [H, W, 3] RGB -> float32 [3, side, side].

    `means` and `spreads` are those of red, green and blue, in levels of 0…255.
    """

    side: int
    means: tuple[float, float, float]
    spreads: tuple[float, float, float]

    def __call__(self, image: Array) -> Array:
        """Preprocess one image of any size."""
        stretched = stretch(image, self.side)
        planes = np.empty((3, self.side, self.side), np.float32)
        # plane by plane: five times as fast as three colours side by side. A product and a sum instead of the
        # reference's difference and quotient are off by a rounding at most
        for plane, mean, spread in zip(range(3), self.means, self.spreads, strict=True):
            np.multiply(stretched[..., plane], np.float32(1 / spread), out=planes[plane])
            planes[plane] -= np.float32(mean / spread)
        return planes


def ssd_mobilenet(side: int) -> Detector:
    """SSD-MobileNet's: levels to -1…1."""
    return Detector(side, (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))


def ssd_resnet34(side: int) -> Detector:
    """SSD-ResNet-34's: shares of 255, less ImageNet's means, in ImageNet's standard deviations."""
    red, green, blue = 0.485 * 255, 0.456 * 255, 0.406 * 255
    return Detector(side, (red, green, blue), (0.229 * 255, 0.224 * 255, 0.225 * 255))


@dataclass(frozen=True)
class Levels:
    """Stretch to a square of whole levels: uint8 [H, W, 3] RGB -> uint8 [side, side, 3], as TensorFlow's
    SSD-MobileNet takes them; fractions are cut, not rounded, as in the reference."""

    side: int

    def __call__(self, image: Array) -> Array:
        """Preprocess one image of any size."""
        return stretch(image, self.side).astype(np.uint8)


def stretch(image: Array, side: int) -> Array:
    """Resize to `side` × `side` whatever the shape was, bilinear: uint8 [H, W, 3] -> float32 [side, side, 3]."""
    return cv2.resize(image.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
