# SPDX-License-Identifier: Apache-2.0
"""Boxes: their overlap, and the code by which a network says how a box differs from a prior.

A box is two corners in the order (y, x, y, x) or (x, y, x, y); a prior is centre and size in the same order of
axes. Nothing here depends on which of the two it is.
"""

from __future__ import annotations

import numpy as np

from septet.tensor import Array

CENTRE_SCALE, SIZE_SCALE = 0.1, 0.2
"""What codes of centres and of sizes are multiplied by, in both networks (the API writes 1 ÷ 10 and 1 ÷ 5)."""

_TINY = np.float32(1e-12)


def decode(codes: Array, priors: Array) -> Array:
    """Corners of the boxes that `codes` say of `priors`, both float32 [..., 4] -> float32 [..., 4]."""
    centres = priors[..., :2] + np.float32(CENTRE_SCALE) * codes[..., :2] * priors[..., 2:]
    halves = np.exp(np.float32(SIZE_SCALE) * codes[..., 2:]) * (priors[..., 2:] * np.float32(0.5))
    return np.concatenate([centres - halves, centres + halves], axis=-1)


def encode(boxes: Array, priors: Array) -> Array:
    """The codes that `decode` turns into `boxes`: corners and priors float32 [..., 4] -> float32 [..., 4]."""
    centres, sizes = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    moves = (centres - priors[..., :2]) / priors[..., 2:] / CENTRE_SCALE
    codes: Array = np.concatenate([moves, np.log(sizes / priors[..., 2:]) / SIZE_SCALE], axis=-1)
    return codes.astype(np.float32)


def corners(priors: Array) -> Array:
    """Centre and size -> corners, both [..., 4]."""
    return np.concatenate([priors[..., :2] - priors[..., 2:] / 2, priors[..., :2] + priors[..., 2:] / 2], axis=-1)


def overlaps(some: Array, others: Array) -> Array:
    """Intersection over union of each of `some` [n, 4] with each of `others` [m, 4]: [n, m]; 0 for empty boxes."""
    return paired_overlaps(some[:, None], others[None])


def paired_overlaps(some: Array, others: Array) -> Array:
    """Intersection over union of `some` with `others`, both [..., 4], box by box: [...]; 0 for empty boxes."""
    high = np.minimum(some[..., 2], others[..., 2]) - np.maximum(some[..., 0], others[..., 0])
    wide = np.minimum(some[..., 3], others[..., 3]) - np.maximum(some[..., 1], others[..., 1])
    inner = np.maximum(high, 0) * np.maximum(wide, 0)
    return np.asarray(inner / np.maximum(areas(some) + areas(others) - inner, _TINY))


def areas(boxes: Array) -> Array:
    """The area of each box: [..., 4] -> [...]."""
    return np.asarray((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))
