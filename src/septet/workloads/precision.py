# SPDX-License-Identifier: Apache-2.0
"""Mean average precision as COCO defines it, and what it is without each picture.

pycocotools matches detections with things; its matches are kept picture by picture, and accumulated here, so that
precision can be had without any one picture at little cost. COCO's mAP is the mean over ten thresholds of overlap
(0.5 … 0.95), 101 recalls, and all categories that are there: cocodataset.org, «Detection evaluation».
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from septet.tensor import Array
from septet.workloads.coco import Truth

RECALLS = np.linspace(0, 1, 101)
THRESHOLDS = np.linspace(0.5, 0.95, 10)


@dataclass(frozen=True)
class Precision:
    """mAP, 0…1, and float64 [pictures], what it is when each of them is left out."""

    value: float
    without: Array


@dataclass(frozen=True)
class Ranking:
    """All detections of one category, the surest first.

    `right` and `wrong` bool [thresholds, detections]; one that matches what need not be found is neither.
    `pictures` int64 [detections] are the places of their pictures, `things` int64 [pictures] how many there are
    to be found on each.
    """

    right: Array
    wrong: Array
    pictures: Array
    things: Array

    def precision(self, without: int | None = None) -> float:
        """The mean over thresholds and recalls, without the picture at that place; NaN where nothing is to be
        found."""
        total = int(self.things.sum()) - (0 if without is None else int(self.things[without]))
        if total == 0:
            return float("nan")
        right, wrong = self.right, self.wrong
        if without is not None:
            stays = self.pictures != without
            right, wrong = right[:, stays], wrong[:, stays]
        return float(np.mean([_average(*pair, total) for pair in zip(right, wrong, strict=True)]))

    def matters(self) -> Array:
        """The places of the pictures without which precision may differ: bool [pictures].

        Those on which something is to be found, and those with a detection before the last right one.
        """
        found = self.things > 0
        last = np.flatnonzero(self.right.any(axis=0))
        if len(last):
            found[self.pictures[: last[-1] + 1]] = True
        return found


def mean_average_precision(truth: Truth, detections: Array) -> Precision:
    """mAP of `detections` float64 [n, 7]: picture's number, left, top, width, height, score, category.

    Detections of a category that `truth` does not have are left out, as in COCO.
    """
    rankings = _rankings(truth, detections)
    whole = np.array([ranking.precision() for ranking in rankings])
    without = np.tile(whole, (len(truth.images), 1))
    for category, ranking in enumerate(rankings):
        for picture in np.flatnonzero(ranking.matters()):
            without[picture, category] = ranking.precision(int(picture))
    return Precision(float(np.nanmean(whole)), _means(without))


def evaluation(truth: Truth, detections: Array) -> COCOeval:
    """pycocotools' evaluation of `detections`, set up and quiet: over all sizes of things."""
    with contextlib.redirect_stdout(io.StringIO()):
        wanted, found = COCO(), COCO()
        wanted.dataset = msgspec.to_builtins(truth)
        for number, entry in enumerate(wanted.dataset["annotations"], 1):
            entry["id"] = number  # pycocotools takes a match with thing 0 for none, and tuples for no boxes
            entry["bbox"] = list(entry["bbox"])
        wanted.createIndex()
        found.dataset = wanted.dataset | {"annotations": _entries(detections)}
        found.createIndex()
        asked = COCOeval(wanted, found, "bbox")
        asked.params.imgIds = [photo.id for photo in truth.images]
        asked.params.areaRng, asked.params.areaRngLbl = asked.params.areaRng[:1], asked.params.areaRngLbl[:1]
    return asked


def _entries(detections: Array) -> list[dict[str, object]]:
    return [
        {
            "id": number,
            "image_id": int(image),
            "category_id": int(category),
            "bbox": [left, top, width, height],
            "area": width * height,
            "iscrowd": 0,
            "score": score,
        }
        for number, (image, left, top, width, height, score, category) in enumerate(detections.tolist(), 1)
    ]


def _rankings(truth: Truth, detections: Array) -> list[Ranking]:
    asked = evaluation(truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        asked.evaluate()
    place = {photo.id: at for at, photo in enumerate(truth.images)}
    matches: dict[int, list[dict[str, Array]]] = {number: [] for number in asked.params.catIds}
    for entry in asked.evalImgs:
        if entry is not None:
            matches[entry["category_id"]].append(entry)
    return [_ranking(entries, place) for entries in matches.values()]


def _ranking(entries: Sequence[dict[str, Array]], place: dict[int, int]) -> Ranking:
    """One category's matches, picture by picture, as one ranking."""
    things = np.zeros(len(place), np.int64)
    pictures: list[int] = []
    for entry in entries:
        at = place[int(entry["image_id"])]
        things[at] = len(entry["gtIgnore"]) - int(np.count_nonzero(entry["gtIgnore"]))
        pictures += [at] * len(entry["dtScores"])
    none = np.zeros((len(THRESHOLDS), 0))
    scores = np.concatenate([np.zeros(0), *(entry["dtScores"] for entry in entries)])
    matched = np.concatenate([none, *(entry["dtMatches"] for entry in entries)], axis=1) > 0
    ignored = np.concatenate([none, *(entry["dtIgnore"] for entry in entries)], axis=1) > 0
    order = np.argsort(-scores, kind="stable")
    right, wrong = matched & ~ignored, ~matched & ~ignored
    return Ranking(right[:, order], wrong[:, order], np.array(pictures, np.int64)[order], things)


def _average(right: Array, wrong: Array, total: int) -> float:
    """The mean precision over `RECALLS` of one ranking at one threshold."""
    steps = np.flatnonzero(right)  # precision is at its best where something right has just been found
    if len(steps) == 0:
        return 0.0
    hits = np.arange(1, len(steps) + 1)
    precision = hits / (hits + np.cumsum(wrong)[steps] + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(hits / total, RECALLS)
    return float(precision[reached[reached < len(steps)]].sum() / len(RECALLS))


def _means(without: Array) -> Array:
    """The mean of each row over what is not NaN; 0 where all is."""
    known = ~np.isnan(without)
    return np.asarray(np.where(known, without, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1))
