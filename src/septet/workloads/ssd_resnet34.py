# SPDX-License-Identifier: Apache-2.0
"""SSD-ResNet-34 on COCO at 1200 × 1200, and its trained miniature on box scenes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx

from septet.pipelines import detector
from septet.tensor import Array
from septet.workloads import resnet34
from septet.workloads.card import Card, Counts
from septet.workloads.coco import ScenePictures
from septet.workloads.priors import resnet34_priors
from septet.workloads.resnet34 import SSD_RESNET34, SSD_RESNET34_MINI, ResNet34
from septet.workloads.split import Split
from septet.workloads.ssd import Net, Ssd, open_pictures
from septet.workloads.suppression import Suppression
from septet.workloads.weights import Unchecked, find, trained
from septet.workloads.workload import Asked, Size

OFFICIAL = Unchecked("https://zenodo.org/record/3228411/files/resnet34-ssd1200.onnx")
"""v0.7's ONNX file, with its suppression inside."""

CHOOSE = Suppression(floor=0.05, overlap=0.5, per_class=200, total=200, clip=False)
"""As ``decode_single`` in the reference's models/ssd_r34.py."""

SEED = 1200


class SsdResNet34(Ssd):
    """Detection with the categories' places, from 1, as classes."""

    name: ClassVar[str] = "ssd-resnet34"
    card: ClassVar[Card] = Card(
        full=Counts(19_972_534, 432.8e9, "one image, 1200×1200"),
        mini=Counts(365_196, 206e6, "one image, 160×160"),
        official=(),
        bring="COCO 2017 validation: annotations/instances_val2017.json and its 5,000 photos in val2017/; "
        "or any folder of photos, for speed",
        weights=OFFICIAL.words,
    )

    @classmethod
    def open(cls, size: Size, asked: Asked) -> SsdResNet34:
        return _mini(asked.split, asked.count) if size == "mini" else _full(asked)

    def categories(self, classes: Array) -> Array:
        """Class 1 is the first category of the annotations, and so on without gaps."""
        numbers = np.array([0, *self._pictures.truth.numbers()])
        known = (classes > 0) & (classes < len(numbers))
        return np.where(known, numbers[np.where(known, classes, 0)], 0)


def net_of(net: ResNet34) -> Net:
    """What the graph of `net` means."""
    return Net(
        side=net.image,
        classes=net.classes,
        priors=resnet34_priors(net.maps(), net.aspects, net.scales),
        xy=True,
        choose=CHOOSE,
        prepare=detector.ssd_resnet34(net.image),
        whole=("bboxes", "scores", "labels"),
    )


def _full(asked: Asked) -> SsdResNet34:
    pictures = open_pictures(asked.data)
    found = find(asked.weights, OFFICIAL, _write_made_up, f"ssd-resnet34-full-synthetic-{SEED}")
    return SsdResNet34("full", net_of(SSD_RESNET34), found, pictures)


def _write_made_up(path: Path) -> None:
    onnx.save(resnet34.build(SSD_RESNET34, resnet34.synthetic(SSD_RESNET34, SEED)), path)


def _mini(split: Split, count: int | None) -> SsdResNet34:
    found = trained(SsdResNet34.name, partial(resnet34.build, SSD_RESNET34_MINI))
    return SsdResNet34("mini", net_of(SSD_RESNET34_MINI), found, ScenePictures(split, count))
