# SPDX-License-Identifier: Apache-2.0
"""The area under the ROC curve, and what each score adds to it."""

from __future__ import annotations

import numpy as np

from septet.errors import DataError
from septet.tensor import Array


def auc(scores: Array, labels: Array) -> tuple[float, Array]:
    """The area, 0…1, and for each score its pseudo-value, float64 [n]; their mean is the area.

    A positive's placement is the share of negatives below it, a negative's the share of positives above it, ties
    counted half (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988); the area is the mean of either. Raises
    DataError where there is only one kind of label, or a score is not a number.
    """
    if np.isnan(scores).any():
        raise DataError(f"score {int(np.argmax(np.isnan(scores)))} is not a number")
    positive = labels.astype(bool)
    above, below = scores[positive], scores[~positive]
    if not len(above) or not len(below):
        raise DataError("the area under the curve needs labels of both kinds")
    placements = np.empty(len(scores))
    placements[positive] = _share_below(np.sort(below), above)
    placements[~positive] = 1 - _share_below(np.sort(above), below)
    area = float(placements[positive].mean())
    shares = np.where(positive, len(above), len(below)) / len(scores)
    return area, area + (placements - area) / shares


def _share_below(ordered: Array, scores: Array) -> Array:
    """The share of `ordered` that each of `scores` is above, ties counted half."""
    lower = np.searchsorted(ordered, scores, "left")
    upper = np.searchsorted(ordered, scores, "right")
    share: Array = (lower + upper) / (2 * len(ordered))
    return share
