# SPDX-License-Identifier: Apache-2.0
"""Volumes of several modalities to tensors and back, as nnU-Net does it: crop, normalise, pad.

Source: mlcommons/inference v0.7.1, vision/medical_imaging/3d-unet, preprocess.py, and the nnU-Net that it calls.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from scipy.ndimage import binary_fill_holes

from septet.errors import DataError
from septet.tensor import Array

_TINY = 1e-8
"""Added to a standard deviation, so that a flat modality divides by something."""


_APART = 1e-3
"""Millimetres by which headers of one place may differ."""

_UNREADABLE = (OSError, ImageFileError, EOFError, ValueError, zlib.error)


@dataclass(frozen=True)
class Place:
    """Where a volume's voxels go: `box` is the part of the `source` that is kept, and lies in the tensor from
    `offset` on."""

    source: tuple[int, ...]
    box: tuple[slice, ...]
    offset: tuple[int, ...]

    @property
    def inside(self) -> tuple[slice, ...]:
        """Where the box lies in the tensor."""
        sides = (part.stop - part.start for part in self.box)
        return tuple(slice(begin, begin + side) for begin, side in zip(self.offset, sides, strict=True))

    def restored(self, labels: Array) -> Array:
        """Labels [X, Y, Z] of the tensor as labels of the source; what was cut away is 0."""
        whole = np.zeros(self.source, labels.dtype)
        whole[self.box] = labels[self.inside]
        return whole


@dataclass(frozen=True)
class Prepared(Place):
    """A volume ready for the network, float32 [channels, X, Y, Z], and where its voxels were."""

    tensor: Array


def prepare(volume: Array, shape: Sequence[int], name: str) -> Prepared:
    """Crop to what is not zero, normalise each modality within it, pad to `shape` around the middle.

    `volume` is float32 [channels, X, Y, Z]; `name` is what an error calls it. Raises DataError for values that are
    not finite, an empty volume, or one that is larger than `shape` when cropped.
    """
    if not np.isfinite(volume).all():
        raise DataError(f"{name}: {int((~np.isfinite(volume)).sum()):,} voxels are not finite numbers")
    filled = binary_fill_holes(seen(volume))
    place = place_of(filled, shape, name)
    kept = _normalised(volume[:, *place.box], filled[place.box])
    padding = [
        (0, 0),
        *((part.start, most - part.stop) for part, most in zip(place.inside, shape, strict=True)),
    ]
    return Prepared(place.source, place.box, place.offset, np.pad(kept, padding))


def seen(volume: Array) -> Array:
    """Where any modality of a volume [channels, X, Y, Z] is not zero: bool [X, Y, Z]."""
    there: Array = (volume != 0).any(axis=0)
    return there


def place_of(there: Array, shape: Sequence[int], name: str) -> Place:
    """Where `prepare` puts a volume whose voxels are not zero where `there`, bool [X, Y, Z], is true.

    Holes do not matter, which lie within the box. Raises DataError as `prepare` does.
    """
    if not there.any():
        raise DataError(f"{name}: the volume is empty")
    box = _box(there)
    sides = tuple(part.stop - part.start for part in box)
    if any(have > most for have, most in zip(sides, shape, strict=True)):
        raise DataError(f"{name}: {_times(sides)} voxels are not zero, more than the {_times(shape)} that fit")
    offset = tuple((most - have) // 2 for have, most in zip(sides, shape, strict=True))
    return Place(there.shape, box, offset)


def _box(mask: Array) -> tuple[slice, ...]:
    """The smallest box around what is true."""
    axes = range(mask.ndim)
    seen = [np.flatnonzero(mask.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]
    return tuple(slice(int(places[0]), int(places[-1]) + 1) for places in seen)


def _normalised(volume: Array, mask: Array) -> Array:
    """Each modality with mean 0 and deviation 1 within the mask, 0 outside: float32."""
    within = volume[:, mask].astype(np.float64)
    scaled = (within - within.mean(axis=1, keepdims=True)) / (within.std(axis=1, keepdims=True) + _TINY)
    normalised = np.zeros(volume.shape, np.float32)
    normalised[:, mask] = scaled
    return normalised


def read(path: Path) -> Array:
    """The voxels of a NIfTI file, float32 [X, Y, Z]. Raises DataError, naming the file."""
    try:
        image = nibabel.load(path)
        if image.get_data_dtype().kind not in "iuf":
            raise DataError(f"{path}: its voxels are {image.get_data_dtype()}, not numbers")
        voxels = np.asarray(image.dataobj, np.float32)
        _require_sound(path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    while voxels.ndim > 3 and voxels.shape[-1] == 1:  # some tools add an axis of one point in time
        voxels = voxels[..., 0]
    if voxels.ndim != 3:
        raise DataError(f"{path}: has {voxels.ndim} dimensions, not 3")
    if not np.isfinite(voxels).all():
        raise DataError(f"{path}: {int((~np.isfinite(voxels)).sum()):,} voxels are not finite numbers")
    return voxels


def _require_sound(path: Path) -> None:
    """Read a compressed file to its end, where its checksum is, which the voxels alone do not reach."""
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            while file.read(1 << 20):
                pass


def require_alike(paths: Sequence[Path]) -> None:
    """Raise DataError unless all headers have as many voxels, in the same places, as the first."""
    shape, affine = _header(paths[0])
    for path in paths[1:]:
        its_shape, its_affine = _header(path)
        if its_shape != shape:
            raise DataError(f"{path}: {_times(its_shape)} voxels, but {paths[0].name} has {_times(shape)}")
        if not np.allclose(its_affine, affine, atol=_APART):
            raise DataError(f"{path}: its voxels lie elsewhere than those of {paths[0].name} (another affine)")


def _header(path: Path) -> tuple[tuple[int, ...], Array]:
    """How many voxels a file has along each axis, and where they lie, float64 [4, 4]."""
    try:
        image = nibabel.load(path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    shape, affine = tuple(image.shape), np.asarray(image.affine)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape, affine


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a readable NIfTI volume: {' '.join(str(error).split())[:120]}")


def read_all(paths: Sequence[Path]) -> Array:
    """Modalities of one case, float32 [channels, X, Y, Z]. Raises DataError where they do not fit each other."""
    volumes = [read(path) for path in paths]
    for path, volume in zip(paths, volumes, strict=True):
        if volume.shape != volumes[0].shape:
            have, want = _times(volume.shape), _times(volumes[0].shape)
            raise DataError(f"{path}: {have} voxels, but {paths[0].name} has {want}")
    return np.stack(volumes)


def write(labels: Array, like: Path, to: Path) -> None:
    """Write labels, uint8 [X, Y, Z], as NIfTI in the place that `like` has. Raises DataError."""
    try:
        affine = nibabel.load(like).affine
        nibabel.save(nibabel.Nifti1Image(labels.astype(np.uint8), affine), to)
    except (OSError, ImageFileError) as error:
        raise DataError(f"{to}: not written: {error}") from error


def _times(sides: Sequence[int]) -> str:
    return "×".join(map(str, sides))
