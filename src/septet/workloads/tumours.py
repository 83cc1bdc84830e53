# SPDX-License-Identifier: Apache-2.0
"""Made-up heads with tumours of three nested regions: 3D U-Net's miniature data set.

Each volume has BraTS's four modalities. No modality shows all regions: the whole is bright in FLAIR and T2, the
core dark in T1, what enhances bright in T1ce. Blobs that are bright in one modality only, a field that changes
slowly and noise are there to mislead. A volume is drawn from its split and index alone.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from septet.tensor import Array
from septet.workloads.split import Split, draws

COUNTS: dict[Split, int] = {"train": 100_000, "calibration": 50, "search": 200, "test": 300}

SIDE = 36
"""Of a volume; the head within it is smaller than 32."""

#                            flair   t1  t1ce   t2
_EDEMA = np.array([0.55, -0.15, -0.05, 0.45])
_CORE = np.array([0.25, -0.40, -0.20, 0.35])
_ENHANCING = np.array([0.35, -0.10, 0.60, 0.25])


class Heads:
    """The volumes of one split, `count` of them (by default as many as `COUNTS` says)."""

    labelled = True

    def __init__(self, split: Split, count: int | None = None) -> None:
        self.split = split
        self._count = COUNTS[split] if count is None else count
        self.words = f"made-up heads, {split} split, {self._count:,} volumes"

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        """What errors call volume `index`."""
        return f"made-up head {index}"

    def volume(self, index: int) -> Array:
        """Its modalities, float32 [4, 36, 36, 36]; any index may be asked for."""
        draw = draws(self.split, index)
        return _modalities(draw, *_anatomy(draw))

    def seen(self, index: int) -> Array:
        """Where a modality is not zero, bool [36, 36, 36]: within the head."""
        head, _ = _anatomy(draws(self.split, index))
        return head

    def labels(self, index: int) -> Array:
        """The classes of its voxels, uint8 [36, 36, 36]: 1 edema, 2 core, 3 enhancing."""
        _, classes = _anatomy(draws(self.split, index))
        return classes


def _anatomy(draw: np.random.Generator) -> tuple[Array, Array]:
    """Where the head is, bool [36, 36, 36], and the classes of its voxels."""
    middle = SIDE / 2 + draw.uniform(-1, 1, 3)
    head = _distance(middle, draw.uniform(11.5, 14.5, 3)) < 1
    return head, _tumour(draw, head)


def _modalities(draw: np.random.Generator, head: Array, classes: Array) -> Array:
    """What the four modalities show of it, float32 [4, 36, 36, 36]."""
    tissue = 1 + 0.12 * _smooth(draw, 2.0) + 0.1 * (_smooth(draw, 4.0) > 0.5)
    modalities = np.stack([tissue + 0.05 * _smooth(draw, 1.5) for _ in range(4)])
    for number, contrast in enumerate((_EDEMA, _CORE, _ENHANCING), 1):
        shown = contrast * draw.uniform(0.45, 1.1) + 0.05 * draw.standard_normal(4)
        modalities += shown[:, None, None, None] * gaussian_filter((classes == number).astype(float), 0.6)
    for _ in range(int(draw.integers(1, 5))):
        blob = _distance(_place(draw, head), draw.uniform(1.2, 4.5, 3)) < 1
        modalities[draw.integers(4)] += draw.uniform(-0.4, 0.6) * gaussian_filter(blob.astype(float), 0.6)
    modalities *= 1 + 0.15 * np.stack([_smooth(draw, 8.0) for _ in range(4)])
    modalities += draw.uniform(0.05, 0.2) * draw.standard_normal(modalities.shape)
    modalities *= draw.uniform(50, 400, (4, 1, 1, 1))
    return np.where(head, np.maximum(modalities, 1e-3), 0).astype(np.float32)


def _tumour(draw: np.random.Generator, head: Array) -> Array:
    """Three nested regions with uneven borders; some tumours have no core, some nothing that enhances."""
    place, radii = _place(draw, head), draw.uniform(6.0, 10.0, 3)
    depth = 1 - _distance(place, radii) + 0.25 * _smooth(draw, 2.0)
    inner = depth - draw.uniform(0.15, 0.35)
    innermost = inner - draw.uniform(0.0, 0.15) + 0.15 * _smooth(draw, 1.5)
    classes = np.zeros(head.shape, np.uint8)
    classes[(depth > 0) & head] = 1
    if draw.random() < 0.93:
        classes[(inner > 0) & head] = 2
        if draw.random() < 0.9:
            classes[(inner > 0) & (innermost > 0) & head] = 3
    return classes


def _place(draw: np.random.Generator, head: Array) -> Array:
    places = np.argwhere(head)
    return np.asarray(places[draw.integers(len(places))], float)


def _distance(middle: Array, radii: Array) -> Array:
    """How far voxels lie from `middle`, the surface of the ellipsoid being 1."""
    x, y, z = (((np.arange(SIDE) - at) / radius) ** 2 for at, radius in zip(middle, radii, strict=True))
    distance: Array = np.sqrt(x[:, None, None] + y[:, None] + z)
    return distance


def _smooth(draw: np.random.Generator, width: float) -> Array:
    """Noise smoothed over `width` voxels, of deviation 1."""
    noise = gaussian_filter(draw.standard_normal((SIDE,) * 3), width, mode="wrap")
    smooth: Array = noise / noise.std()
    return smooth
