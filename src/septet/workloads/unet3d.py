# SPDX-License-Identifier: Apache-2.0
"""3D U-Net on BraTS 2019, and its trained miniature on made-up heads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import onnx

from septet.engines.engine import LoadEngine
from septet.engines.model import OnnxFile
from septet.errors import DataError, ModelInvalid
from septet.pipelines.volume import Place, place_of, prepare, seen
from septet.score import Score
from septet.tensor import Array, Tensors
from septet.workloads import unet
from septet.workloads.brats import Brats, dice, mean_of_regions
from septet.workloads.card import Card, Counts
from septet.workloads.predictor import EnginePredictor, Predictor
from septet.workloads.split import Split
from septet.workloads.tumours import Heads
from septet.workloads.unet import UNET_3D, UNET_3D_MINI, UNet
from septet.workloads.weights import Found, Unchecked, find, trained
from septet.workloads.workload import Asked, Size, Workload

OFFICIAL = Unchecked("https://zenodo.org/record/3928973/files/224_224_160.onnx")
"""v0.7's ONNX file."""

SEED = 3
MADE_UP = 16


class Volumes(Protocol):
    """Volumes of four modalities: of BraTS, made-up heads with tumours, or noise."""

    words: str
    labelled: bool

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What errors call volume `index`."""

    def volume(self, index: int) -> Array:
        """Its modalities, float32 [4, X, Y, Z]."""

    def seen(self, index: int) -> Array:
        """Where any of its modalities is not zero, bool [X, Y, Z]."""

    def labels(self, index: int) -> Array:
        """The classes of its voxels, uint8 [X, Y, Z]; only where `labelled`."""


class MadeUpVolumes:
    """Seeded ellipsoids of noise about as large as heads in BraTS, for speed where no data is given."""

    labelled = False
    words = f"{MADE_UP} made-up volumes"
    _sides = (240, 240, 155)

    def __len__(self) -> int:
        return MADE_UP

    def name(self, index: int) -> str:
        return f"made-up volume {index}"

    def volume(self, index: int) -> Array:
        draw = np.random.default_rng((SEED, index))
        axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in self._sides), indexing="ij", sparse=True)
        head = sum((axis / reach) ** 2 for axis, reach in zip(axes, (0.55, 0.7, 0.85), strict=True)) < 1
        noise = draw.standard_normal((4, *self._sides), np.float32) + np.float32(5)
        volume: Array = np.where(head, noise, np.float32(0))
        return volume

    def seen(self, index: int) -> Array:
        return seen(self.volume(index))

    def labels(self, index: int) -> Array:
        raise DataError("made-up volumes have no labels")


class UNet3D(Workload):
    """Segmentation of tumours; the metric is the mean Dice score of the three regions."""

    name: ClassVar[str] = "3d-unet"
    largest_only: ClassVar[bool] = True
    card: ClassVar[Card] = Card(
        full=Counts(29_695_520, 3.258e12, "one volume, 4×224×224×160"),
        mini=Counts(285_376, 9.21e8, "one volume, 4×32×32×32"),
        official=(),
        bring="BraTS 2019 training data: HGG/CASE/CASE_flair.nii.gz, _t1, _t1ce, _t2 and _seg, and beside HGG the "
        "reference's fold1_validation.txt, without which all cases are taken",
        weights=OFFICIAL.words,
    )

    def __init__(self, size: Size, net: UNet, found: Found, volumes: Volumes) -> None:
        self.size = size
        self.model = found.path
        self.origin = found.origin
        self.data = volumes.words
        self.notes = found.notes
        self._input, self._output = _names(found.read(), found.path, net)
        self._volumes = volumes
        self._net = net

    @classmethod
    def open(cls, size: Size, asked: Asked) -> UNet3D:
        return _mini(asked.split, asked.count) if size == "mini" else _full(asked)

    def __len__(self) -> int:
        return len(self._volumes)

    def sample(self, index: int) -> Tensors:
        """The volume, cropped, normalised and padded: float32 [4, X, Y, Z]."""
        name = self._volumes.name(index)
        return {self._input: prepare(self._volumes.volume(index), self._net.volume, name).tensor}

    def place(self, index: int) -> Place:
        """Where the voxels of volume `index` lie in its tensor, by which labels are brought back to its source."""
        return place_of(self._volumes.seen(index), self._net.volume, self._volumes.name(index))

    def predictor(self, load: LoadEngine) -> Predictor:
        return EnginePredictor(load(self.model), self.respond)

    def respond(self, outputs: Tensors) -> Array:
        """The likeliest class of each voxel, uint8 [N, X, Y, Z].

        The reference logs half-precision scores, 8 GB for the whole set; only their largest counts.
        """
        classes: Array = outputs[self._output].argmax(axis=1).astype(np.uint8)
        return classes

    @property
    def scored(self) -> bool:
        return self.origin != "synthetic" and self._volumes.labelled

    def score(self, responses: Mapping[int, bytes]) -> Score:
        """The Dice score of each region, averaged over volumes, then over the three regions: 0…1."""
        scores = [self._dice(index, responses.get(index, b"")) for index in range(len(self))]
        return mean_of_regions(np.array(scores))

    def keep(self, responses: Mapping[int, bytes], folder: Path) -> None:
        """The segmentations of BraTS's cases, ``CASE.nii.gz`` with its labels, each lying where its case does."""
        if isinstance(self._volumes, Brats):
            folder.mkdir(parents=True, exist_ok=True)
            for index, response in responses.items():
                self._volumes.write(index, self._restored(index, response), folder)

    def _dice(self, index: int, response: bytes) -> Array:
        return dice(self._restored(index, response), self._volumes.labels(index))

    def _restored(self, index: int, response: bytes) -> Array:
        """The classes of the voxels of volume `index`, uint8. Raises DataError where bytes are missing."""
        shape = self._net.volume
        if len(response) != np.prod(shape):
            raise DataError(f"{self._volumes.name(index)}: its answer has {len(response)} bytes, not one a voxel")
        return self.place(index).restored(np.frombuffer(response, np.uint8).reshape(shape))


def _full(asked: Asked) -> UNet3D:
    volumes = Brats(asked.data) if asked.data else MadeUpVolumes()
    found = find(asked.weights, OFFICIAL, _write_made_up, f"3d-unet-full-synthetic-{SEED}")
    return UNet3D("full", UNET_3D, found, volumes)


def _write_made_up(path: Path) -> None:
    onnx.save(unet.build(UNET_3D, unet.synthetic(UNET_3D, SEED)), path)


def _mini(split: Split, count: int | None) -> UNet3D:
    found = trained(UNet3D.name, partial(unet.build, UNET_3D_MINI))
    return UNet3D("mini", UNET_3D_MINI, found, Heads(split, count))


def _names(file: OnnxFile, path: Path, net: UNet) -> tuple[str, str]:
    """The names of the file's input and output. Raises ModelInvalid."""
    shape = (net.channels, *net.volume)
    volumes = [spec.name for spec in file.inputs if spec.dtype == np.float32 and spec.shape[1:] == shape]
    logits = [spec.name for spec in file.outputs if len(spec.shape) == 5 and spec.shape[1] in (net.classes, None)]
    if len(volumes) != 1 or len(file.inputs) != 1 or not logits:
        have = "; ".join(map(str, (*file.inputs, *file.outputs)))
        want = ", ".join(map(str, shape))
        raise ModelInvalid(f"{path}: has ({have}), not float32 [?, {want}] in and {net.classes} classes out")
    return volumes[0], logits[0]
