# SPDX-License-Identifier: Apache-2.0
"""SSD-MobileNet-v1 on COCO at 300 × 300, and its trained miniature on box scenes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx

from septet.pipelines import detector
from septet.tensor import Array
from septet.workloads import mobilenet
from septet.workloads.card import Card, Counts
from septet.workloads.coco import ScenePictures
from septet.workloads.mobilenet import SSD_MOBILENET, SSD_MOBILENET_MINI, MobileNet
from septet.workloads.priors import mobilenet_priors
from septet.workloads.split import Split
from septet.workloads.ssd import Net, Ssd, open_pictures
from septet.workloads.suppression import Suppression
from septet.workloads.weights import Unchecked, find, trained
from septet.workloads.workload import Asked, Size

OFFICIAL = Unchecked("https://zenodo.org/record/3163026/files/ssd_mobilenet_v1_coco_2018_01_28.onnx")
"""v0.7's ONNX file, with its suppression inside."""

CHOOSE = Suppression(
    floor=1e-8,
    overlap=float(np.nextafter(np.float32(0.6), np.float32(1))),
    per_class=None,
    total=100,
    clip=True,
)
"""As in the official graph, v0.7's model of record: its pipeline.config has a score threshold of 1e-8, an IoU
threshold of 0.6, which a box may reach but not exceed, and at most 100 boxes in all. The reference's PyTorch port
says 0.3, and notes itself that a lower one scores better and takes longer: Septet takes the one that is right. The
config's limit of 100 boxes a class cannot bind before that of 100 in all does."""

SEED = 300


class SsdMobileNet(Ssd):
    """Detection with COCO's category numbers as classes."""

    name: ClassVar[str] = "ssd-mobilenet"
    card: ClassVar[Card] = Card(
        full=Counts(6_819_839, 2.474e9, "one image, 300×300"),
        mini=Counts(343_390, 45.5e6, "one image, 160×160"),
        official=(),
        bring="COCO 2017 validation: annotations/instances_val2017.json and its 5,000 photos in val2017/; "
        "or any folder of photos, for speed",
        weights=OFFICIAL.words,
    )

    @classmethod
    def open(cls, size: Size, asked: Asked) -> SsdMobileNet:
        return _mini(asked.split, asked.count) if size == "mini" else _full(asked)

    def categories(self, classes: Array) -> Array:
        """Classes are category numbers as they are."""
        return classes


def net_of(net: MobileNet) -> Net:
    """What the graph of `net` means."""
    return Net(
        side=net.image,
        classes=net.classes,
        priors=mobilenet_priors(net.maps()),
        xy=False,
        choose=CHOOSE,
        prepare=detector.ssd_mobilenet(net.image),
        whole=("detection_boxes", "detection_scores", "detection_classes", "num_detections"),
    )


def _full(asked: Asked) -> SsdMobileNet:
    pictures = open_pictures(asked.data)
    found = find(asked.weights, OFFICIAL, _write_made_up, f"ssd-mobilenet-full-synthetic-{SEED}")
    return SsdMobileNet("full", net_of(SSD_MOBILENET), found, pictures)


def _write_made_up(path: Path) -> None:
    onnx.save(mobilenet.build(SSD_MOBILENET, mobilenet.synthetic(SSD_MOBILENET, SEED)), path)


def _mini(split: Split, count: int | None) -> SsdMobileNet:
    found = trained(SsdMobileNet.name, partial(mobilenet.build, SSD_MOBILENET_MINI))
    return SsdMobileNet("mini", net_of(SSD_MOBILENET_MINI), found, ScenePictures(split, count))
