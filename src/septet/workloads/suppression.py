# SPDX-License-Identifier: Apache-2.0
"""Non-maximum suppression: of boxes of one class that show the same thing, only the best stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from septet.tensor import Array
from septet.workloads.boxes import decode, overlaps

_FIRST = 256
"""How many of the best candidates are looked at first; the others only where these leave too few boxes."""

_CUTS = (0.1, 0.01, 0.001)
"""Scores to try as a quick cut: comparing a million scores with one is much faster than partitioning them."""

BACKGROUND = 0
"""The column of scores that stands for «nothing here», which no box is made of."""


@dataclass(frozen=True)
class Suppression:
    """How boxes are chosen, class by class, and then over all classes.

    A candidate is a prior and a class with a score above `floor`. Of each class the `per_class` best (None: all)
    are taken from the best down; one goes where its overlap with one that stays is `overlap` or more. Of what
    stays in all classes the `total` best are the answer. `clip` cuts boxes at the image's edges beforehand, and
    those that lie wholly outside go.
    """

    floor: float
    overlap: float
    per_class: int | None
    total: int
    clip: bool

    def __call__(self, scores: Array, codes: Array, priors: Array) -> tuple[Array, Array, Array]:
        """Choose among `scores` float32 [priors, classes], whose boxes `codes` float32 [priors, 4] tell.

        Returns boxes float32 [n, 4], scores float32 [n] and classes int64 [n], the best first.

        Going down all classes at once gives the same answer as class by class, for a box only ever goes because
        of a better one; so the best candidates alone are enough as soon as `total` of them stay.
        """
        flat = scores.reshape(-1)
        count = _FIRST
        while True:
            found, whole = _best(flat, scores.shape[1], self.floor, count)
            places, classes = np.divmod(found, scores.shape[1])
            boxes = decode(codes[places], priors[places])
            stays = self._stays(boxes, classes)
            if whole or len(stays) >= self.total:
                stays = stays[: self.total]
                return self._clipped(boxes[stays]), flat[found[stays]], classes[stays]
            count *= 4

    def _stays(self, boxes: Array, classes: Array) -> Array:
        """The places of the boxes that stay, of `boxes` that lie from the best down."""
        boxes = self._clipped(boxes)
        stays = np.ones(len(boxes), np.bool_)
        if self.clip:
            stays &= (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        for members in _groups(classes):
            taken = members[stays[members]][: self.per_class]
            stays[members] = False
            stays[taken[_unbeaten(boxes[taken], self.overlap)]] = True
        return np.flatnonzero(stays)

    def _clipped(self, boxes: Array) -> Array:
        return boxes.clip(0, 1) if self.clip else boxes


def _best(flat: Array, classes: int, floor: float, count: int) -> tuple[Array, bool]:
    """The candidates among `flat` scores from the best down, at least `count`, and whether that is all of them.

    Those that score alike are all in or all out, and stand in order of their places.
    """
    for cut in (*(cut for cut in _CUTS if cut > floor), floor):
        above = (flat > cut).reshape(-1, classes)
        above[:, BACKGROUND] = False
        found = np.flatnonzero(above)
        if len(found) >= count:
            break
    scores = flat[found]
    whole = cut == floor
    if len(found) > count:
        least = np.partition(scores, -count)[-count]
        inside = scores >= least
        whole = whole and bool(inside.all())
        found, scores = found[inside], scores[inside]
    return found[np.argsort(-scores, kind="stable")], whole


def _groups(classes: Array) -> Iterator[Array]:
    """The places of each class in `classes`, ascending."""
    order = np.argsort(classes, kind="stable")
    ends = np.flatnonzero(np.diff(classes[order])) + 1
    yield from np.split(order, ends)


def _unbeaten(boxes: Array, overlap: float) -> Array:
    """Which of `boxes` of one class, from the best down, stay: bool [n]."""
    stays = np.ones(len(boxes), np.bool_)
    if len(boxes) < 2:
        return stays
    beats = np.triu(overlaps(boxes, boxes) >= overlap, 1)
    for place in np.flatnonzero(beats.any(axis=1)):
        if stays[place]:
            stays &= ~beats[place]
    return stays
