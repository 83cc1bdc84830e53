# SPDX-License-Identifier: Apache-2.0
"""BraTS 2019: brains of four modalities, and their tumours' three nested regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from septet.errors import DataError
from septet.pipelines.volume import read, read_all, require_alike, seen, write
from septet.score import Score, mean
from septet.tensor import Array

MODALITIES = ("flair", "t1", "t1ce", "t2")
"""In the order of the network's channels."""

CLASSES = {0: 0, 2: 1, 1: 2, 4: 3}
"""BraTS label -> class of the network, as nnU-Net converts: edema, core that does not enhance, enhancing core."""

REGIONS = {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
"""Regions that are scored, as classes."""

FOLD = "fold1_validation.txt"
"""A list of cases, one a line, as the reference's folder ``folds`` has it; without it all cases are taken."""


class Brats:
    """The cases of a folder in the official layout: ``HGG/CASE/CASE_flair.nii.gz`` and so on.

    Raises DataError for a case that is there twice or lacks a modality, a listed case that is missing or listed
    twice, labels that only some cases have, and files of one case that do not lie on each other.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        there = _cases(folder)
        if not there:
            raise DataError(f"{folder}: holds no case (CASE/CASE_flair.nii.gz)")
        names = _listed(folder / FOLD, there) if (folder / FOLD).exists() else sorted(there)
        self._cases = [(name, there[name]) for name in names]
        for name, place in self._cases:
            for modality in MODALITIES:
                if not (place / f"{name}_{modality}.nii.gz").is_file():
                    raise DataError(f"{place}: lacks {name}_{modality}.nii.gz")
        self.labelled = _labelled(self._cases)
        for name, place in self._cases:
            require_alike([place / f"{name}_{part}.nii.gz" for part in (*MODALITIES, *["seg"] * self.labelled)])
        self.words = f"{folder.name}: {len(self._cases):,} {'labelled' if self.labelled else 'unlabelled'} volumes"

    def __len__(self) -> int:
        return len(self._cases)

    def name(self, index: int) -> str:
        """What errors call case `index`: its folder."""
        return str(self._cases[index][1])

    def volume(self, index: int) -> Array:
        """Its modalities, float32 [4, X, Y, Z]."""
        name, place = self._cases[index]
        return read_all([place / f"{name}_{modality}.nii.gz" for modality in MODALITIES])

    def seen(self, index: int) -> Array:
        """Where any of its modalities is not zero, bool [X, Y, Z]."""
        return seen(self.volume(index))

    def labels(self, index: int) -> Array:
        """The classes of its voxels, uint8 [X, Y, Z]. Raises DataError for a label that BraTS does not have."""
        name, place = self._cases[index]
        path = place / f"{name}_seg.nii.gz"
        voxels = read(path)
        known = np.isin(voxels, list(CLASSES))
        if not known.all():
            raise DataError(f"{path}: label {voxels[~known][0]:g} is not among 0, 1, 2, 4")
        return as_classes(voxels)

    def write(self, index: int, classes: Array, folder: Path) -> None:
        """Write the `classes` of case `index`, uint8 [X, Y, Z], into `folder` as its labels. Raises DataError."""
        name, place = self._cases[index]
        write(as_labels(classes), place / f"{name}_{MODALITIES[0]}.nii.gz", folder / f"{name}.nii.gz")


def as_classes(labels: Array) -> Array:
    """BraTS labels as classes of the network, uint8."""
    classes = np.zeros(labels.shape, np.uint8)
    for label, number in CLASSES.items():
        classes[labels == label] = number
    return classes


def as_labels(classes: Array) -> Array:
    """Classes of the network as BraTS labels, uint8."""
    table = np.zeros(len(CLASSES), np.uint8)
    for label, number in CLASSES.items():
        table[number] = label
    found: Array = table[classes]
    return found


def dice(classes: Array, truth: Array) -> Array:
    """The Dice score of each region, 2·|A∩B| ÷ (|A| + |B|), float64 [3]; NaN where the region is in neither, which
    is left out of means, as nnU-Net's evaluation of regions does."""
    scores = []
    for members in REGIONS.values():
        ours, theirs = np.isin(classes, members), np.isin(truth, members)
        total = int(ours.sum()) + int(theirs.sum())
        scores.append(2 * int((ours & theirs).sum()) / total if total else np.nan)
    return np.array(scores)


def _cases(folder: Path) -> dict[str, Path]:
    """The folder of each case, by its name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*_flair.nii.gz")):
        name = path.name.removesuffix("_flair.nii.gz")
        if name in found:
            raise DataError(f"{path.parent}: case {name} is in {found[name]} too")
        found[name] = path.parent
    return found


def _labelled(cases: list[tuple[str, Path]]) -> bool:
    """Whether the cases have labels, which either all or none of them must have."""
    labels = [place / f"{name}_seg.nii.gz" for name, place in cases]
    missing = [path for path in labels if not path.is_file()]
    if missing and len(missing) < len(labels):
        raise DataError(f"{missing[0]}: missing, though {len(labels) - len(missing):,} other cases have labels")
    return not missing


def mean_of_regions(scores: Array) -> Score:
    """The Dice score of each region, averaged over volumes, then over the regions: 0…1. `scores` is float64
    [volumes, 3]; a region that is in no volume at all says nothing."""
    known = ~np.isnan(scores)
    regions = known.any(axis=0)
    shares = len(scores) / np.maximum(known.sum(axis=0), 1) / regions.sum()
    return mean("mean Dice", "", (np.where(known, scores, 0) * shares)[:, regions].sum(axis=1), graded=True)


def _listed(path: Path, there: dict[str, Path]) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8 (byte {error.start})") from error
    for number, name in enumerate(names, 1):
        if name not in there:
            raise DataError(f"{path}, line {number}: no case is called {name}")
        if name in names[: number - 1]:
            raise DataError(f"{path}, line {number}: {name} is listed twice")
    if not names:
        raise DataError(f"{path}: names no case")
    return names
