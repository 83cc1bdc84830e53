# SPDX-License-Identifier: Apache-2.0
"""ResNet-50 v1.5 on ImageNet, and its trained miniature on digit scenes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx

from septet.engines.engine import LoadEngine
from septet.engines.model import OnnxFile
from septet.errors import ModelInvalid
from septet.pipelines.image import Classifier
from septet.score import Score, share
from septet.tensor import Array, Tensors
from septet.workloads import digits, resnet
from septet.workloads.card import Card, Counts
from septet.workloads.imagenet import Images, MadeUpImages, open_images
from septet.workloads.predictor import EnginePredictor, Predictor
from septet.workloads.resnet import RESNET50, RESNET_MINI, ResNet
from septet.workloads.split import Split
from septet.workloads.weights import Found, Official, find, trained
from septet.workloads.workload import Asked, Size, Workload

OFFICIAL = Official(
    url="https://zenodo.org/record/2592612/files/resnet50_v1.onnx",
    md5="a638cf028b5870da29e09ccc2f7182e7",
)
"""v0.7's ONNX file. Its MD5 is from MLCommons' mlperf-automations, script/get-ml-model-resnet50/meta.yaml."""

SEED = 50
MADE_UP = 1_024


class SceneImages(Images):
    """Digit scenes as a data set of labelled images."""

    labelled = True

    def __init__(self, split: Split, count: int | None = None) -> None:
        self._scenes = digits.DigitScenes(split, count)
        self.words = f"digit scenes, {split} split, {len(self._scenes):,} images"

    def __len__(self) -> int:
        return len(self._scenes)

    def image(self, index: int) -> Array:
        return self._scenes.image(index)

    def label(self, index: int) -> int:
        return self._scenes.label(index)


class ResNet50(Workload):
    """Image classification; the metric is top-1 in %."""

    name: ClassVar[str] = "resnet50"
    largest_only: ClassVar[bool] = True
    card: ClassVar[Card] = Card(
        full=Counts(25_557_032, 8.18e9, "one image, 224×224"),
        mini=Counts(248_012, 8.13e6, "one image, 64×64"),
        official=(OFFICIAL,),
        bring="ImageNet 2012 validation: its 50,000 photos and val_map.txt in one folder; "
        "or any folder of photos, for speed",
    )

    def __init__(self, size: Size, net: ResNet, found: Found, images: Images) -> None:
        self.size = size
        self.model = found.path
        self.origin = found.origin
        self.data = images.words
        self.notes = found.notes
        self._file = found.read()
        self._input = _image_input(self._file, found.path, net)
        self._output, self._first_class = _class_output(self._file, found.path, net)
        self._images = images
        self._prepare = Classifier(net.image)

    @classmethod
    def open(cls, size: Size, asked: Asked) -> ResNet50:
        return _mini(asked.split, asked.count) if size == "mini" else _full(asked)

    def __len__(self) -> int:
        return len(self._images)

    def sample(self, index: int) -> Tensors:
        """The preprocessed image: float32 [3, side, side]."""
        return {self._input: self._prepare(self._images.image(index))}

    def predictor(self, load: LoadEngine) -> Predictor:
        return EnginePredictor(load(self.model), self.respond)

    def respond(self, outputs: Tensors) -> Array:
        """The class of each image, int64 [N, 1]."""
        answer = outputs[self._output]
        classes = answer if answer.ndim == 1 else answer.argmax(axis=1)
        return (classes - self._first_class).astype(np.int64).reshape(-1, 1)

    @property
    def scored(self) -> bool:
        return self.origin != "synthetic" and self._images.labelled

    def score(self, responses: Mapping[int, bytes]) -> Score:
        """Top-1 in %, with Wilson's interval."""
        answers = [int(np.frombuffer(response, np.int64)[0]) for response in self.answers(responses)]
        right = np.array([answer == self._images.label(index) for index, answer in enumerate(answers)], float)
        return share("top-1", right)


def _full(asked: Asked) -> ResNet50:
    images = open_images(asked.data) if asked.data else MadeUpImages(MADE_UP)
    found = find(asked.weights, OFFICIAL, _write_made_up, f"resnet50-full-synthetic-{SEED}")
    return ResNet50("full", RESNET50, found, images)


def _write_made_up(path: Path) -> None:
    onnx.save(resnet.build(RESNET50, resnet.synthetic(RESNET50, SEED)), path)


def _mini(split: Split, count: int | None) -> ResNet50:
    found = trained(ResNet50.name, partial(resnet.build, RESNET_MINI))
    return ResNet50("mini", RESNET_MINI, found, SceneImages(split, count))


def _image_input(file: OnnxFile, path: Path, net: ResNet) -> str:
    spec = file.inputs[0]
    side = net.image
    fits = spec.dtype == np.float32 and len(spec.shape) == 4
    if len(file.inputs) != 1 or not fits or spec.shape[1:] not in ((3, side, side), (3, None, None)):
        have = "; ".join(map(str, file.inputs))
        raise ModelInvalid(f"{path}: takes ({have}), not one float32 image [?, 3, {side}, {side}]")
    return spec.name


def _class_output(file: OnnxFile, path: Path, net: ResNet) -> tuple[str, int]:
    """The output to read, scores or the class itself, and the number that its first class has.

    The official graph counts a background class first: 1,001 scores, and classes from 1 on.
    """
    scores = [spec for spec in file.outputs if spec.dtype == np.float32 and len(spec.shape) == 2]
    for spec in scores:
        if spec.shape[1] in (net.classes, net.classes + 1):
            return spec.name, spec.shape[1] - net.classes
    classes = [spec for spec in file.outputs if spec.dtype.kind == "i" and len(spec.shape) == 1]
    if classes and not scores:
        return classes[0].name, 0
    have = "; ".join(map(str, file.outputs))
    raise ModelInvalid(f"{path}: gives ({have}), not scores of {net.classes} classes")
