# SPDX-License-Identifier: Apache-2.0
"""Agreement with FP32: what stands in for accuracy where there is no score. It is never called accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from septet.score import Score, mean, share
from septet.tensor import Array, Tensors, TensorSpec

ALIKE = 0.5
"""Scores that are further from FP32's than half their own length are others, whichever is the largest."""

_FLOATS = "fV"
"""numpy's kinds of floating point, ml_dtypes' bfloat16 among them."""


def classes_of(outputs: Sequence[TensorSpec]) -> str | None:
    """The output of a classifier, float [N, classes], by which it is told; None where the network is no
    classifier."""
    if len(outputs) != 1:
        return None
    shape, kind = outputs[0].shape, outputs[0].dtype.kind
    return outputs[0].name if kind == "f" and len(shape) == 2 and (shape[1] or 0) > 1 else None


def agreement(have: Sequence[Tensors], want: Sequence[Tensors], classes: str | None) -> Score:
    """How far the outputs of each sample agree with FP32's.

    Of a classifier, the share of samples of which both find the same class the likeliest, their scores not being
    wholly different. Of any other network, 1 less the relative distance of the outputs, but not less than 0,
    averaged over outputs: 1 − |x − y| ÷ |y|; of outputs that are no floats, the share of equal entries.
    """
    if classes is not None:
        same = [float(_same_class(mine[classes], theirs[classes])) for mine, theirs in _pairs(have, want)]
        return share("top-1 agreement", np.array(same))
    graded = all(array.dtype.kind in _FLOATS for theirs in want[:1] for array in theirs.values())
    parts = [
        np.mean([_closeness(mine[name], theirs[name]) for name in theirs]) for mine, theirs in _pairs(have, want)
    ]
    return mean("agreement of outputs", "%", np.array(parts, float), scale=100, graded=graded)


def _pairs(have: Sequence[Tensors], want: Sequence[Tensors]) -> list[tuple[Tensors, Tensors]]:
    return list(zip(have, want, strict=True))


def _same_class(mine: Array, theirs: Array) -> bool:
    """Whether both find the same class the likeliest, and are alike enough for that to be no accident."""
    return bool(mine.argmax() == theirs.argmax()) and _closeness(mine, theirs) >= ALIKE


def _closeness(mine: Array, theirs: Array) -> float:
    if mine.shape != theirs.shape:
        return 0.0
    if theirs.dtype.kind not in _FLOATS:
        return float(np.mean(mine == theirs))
    one, other = mine.astype(np.float64), theirs.astype(np.float64)
    if not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return 0.0
    finite = np.isfinite(other)  # a mask of −∞ is the same in both
    distance, length = (float(np.linalg.norm(array[finite])) for array in (one - other, other))
    if length == 0:
        return float(distance == 0)
    return max(0.0, 1 - distance / length)
