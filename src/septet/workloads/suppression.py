# SPDX-License-Identifier: Apache-2.0
"""Non-maximum suppression: of boxes of one class that show the same thing, only the best stays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from septet.tensor import Array
from septet.workloads.boxes import decode, paired_overlaps

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
            count *= 2

    def _stays(self, boxes: Array, classes: Array) -> Array:
        """The places of the boxes that stay, of `boxes` that lie from the best down."""
        boxes = self._clipped(boxes)
        there = np.arange(len(boxes))
        if self.clip:
            there = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
        order, ranks = _ranked(there, classes, self.per_class)
        better, worse = _pairs(ranks)
        boxes = boxes[order]
        beats = paired_overlaps(boxes[better], boxes[worse]) >= self.overlap
        stays = [True] * len(order)
        for one, other in zip(better[beats].tolist(), worse[beats].tolist(), strict=True):
            if stays[one]:  # settled: all that might beat it came before
                stays[other] = False
        return np.sort(order[np.array(stays, np.bool_)])

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


def _ranked(places: Array, classes: Array, most: int | None) -> tuple[Array, Array]:
    """`places`, ascending, put together by their classes, and the rank of each in its class; `most` of a class."""
    order = places[np.argsort(classes[places], kind="stable")]
    grouped = classes[order]
    starts = np.flatnonzero(np.diff(grouped, prepend=-1))
    ranks = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    if most is None:
        return order, ranks
    return order[ranks < most], ranks[ranks < most]


def _pairs(ranks: Array) -> tuple[Array, Array]:
    """All pairs within classes, as places among those that have `ranks`: the better of each, and the worse,
    in order of the worse."""
    places = np.arange(len(ranks))
    worse = np.repeat(places, ranks)
    first = np.repeat(np.cumsum(ranks) - ranks, ranks)
    better = np.arange(len(worse)) - first + np.repeat(places - ranks, ranks)
    return better, worse
