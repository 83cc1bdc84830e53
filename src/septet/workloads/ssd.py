# SPDX-License-Identifier: Apache-2.0
"""What the two single-shot detectors have in common: answers, their suppression, and their score."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from septet.engines.engine import Engine, LoadEngine
from septet.engines.model import OnnxFile
from septet.errors import DataError, ModelInvalid
from septet.pipelines.detector import Detector, Levels
from septet.score import Score, jackknife
from septet.tensor import Array, Tensors, TensorSpec
from septet.workloads.coco import ANNOTATIONS, Coco, Pictures, PlainPictures
from septet.workloads.imagenet import MadeUpImages, open_images
from septet.workloads.precision import mean_average_precision
from septet.workloads.predictor import AskedOnce, Numbers, OneByOne, Predictor
from septet.workloads.suppression import Suppression
from septet.workloads.weights import Found
from septet.workloads.workload import Size, Workload

INDEX = "sample index"
"""The tensor that carries a sample's index beside its image: v0.7 wants it in each row of an answer."""

ROW = 7
"""An answer's row: sample index, top, left, bottom, right as shares of the image, score, class."""

MADE_UP = 256

Seen = tuple[Array, Array, Array]
"""Boxes float32 [n, 4] (top, left, bottom, right), scores float32 [n], classes [n] of one picture."""

Read = Callable[[Tensors], list[Seen]]
"""Turns a file's outputs into what was found on each picture of the batch."""


@dataclass(frozen=True)
class Net:
    """What the graph of a detector means.

    `side` of the image, `classes` with the background, `priors` float32 [priors, 4] whose first axis is x where
    `xy`, and how boxes are chosen. `prepare` makes the image. `whole` names the outputs of the official file,
    which chooses boxes itself, in the order boxes, scores, classes, and, where it gives one, their count.
    """

    side: int
    classes: int
    priors: Array
    xy: bool
    choose: Suppression
    prepare: Detector
    whole: tuple[str, ...]


class SsdPredictor(AskedOnce):
    """An engine and what turns its outputs into rows."""

    def __init__(self, engine: Engine, read: Read) -> None:
        super().__init__(engine)
        self._read = read

    def feeds(self, batch: Tensors) -> Tensors:
        """The images of a batch."""
        return {name: array for name, array in batch.items() if name != INDEX}

    def answers(self, batch: Tensors, outputs: Tensors) -> list[Array]:
        """A row for each thing found, an array for each image."""
        found = self._read(Numbers(outputs))
        return [rows(int(index), *parts) for index, parts in zip(batch[INDEX], found, strict=True)]


class Ssd(Workload):
    """Detection; the metric is mAP in %."""

    def __init__(self, size: Size, net: Net, found: Found, pictures: Pictures) -> None:
        self.size = size
        self.model = found.path
        self.origin = found.origin
        self.data = pictures.words
        self.notes = found.notes
        self._net = net
        self._pictures = pictures
        self._file = found.read()
        self._input, self._prepare = _image_input(self._file, found.path, net)
        self.read = _reader(self._file, found.path, net)

    def __len__(self) -> int:
        return len(self._pictures)

    def sample(self, index: int) -> Tensors:
        """The preprocessed image, float32 [3, side, side] or, where the file wants it, uint8 [side, side, 3]; and
        int64 [], its index."""
        image = self._prepare(self._pictures.image(index))
        return {self._input.name: image, INDEX: np.array(index)}

    def predictor(self, load: LoadEngine) -> Predictor:
        predictor = SsdPredictor(load(self.model), self.read)
        return OneByOne(predictor) if self._input.shape[0] == 1 else predictor  # some files take single pictures

    @property
    def scored(self) -> bool:
        return self.origin != "synthetic" and self._pictures.labelled

    def score(self, responses: Mapping[int, bytes]) -> Score:
        """mAP in %, with the jackknife's interval over pictures."""
        truth = self._pictures.truth
        answers = [_answer(f"{self.data}: sample {at}", at, one) for at, one in enumerate(self.answers(responses))]
        photos = np.repeat(np.arange(len(self)), [len(answer) for answer in answers])
        answered = np.concatenate([np.zeros((0, ROW)), *answers])
        sizes = np.array([(photo.height, photo.width) * 2 for photo in truth.images], float)[photos]
        top, left, bottom, right = (answered[:, 1:5] * sizes).T
        numbers = self.categories(answered[:, 6].astype(np.int64))
        images = np.array([photo.id for photo in truth.images])[photos]
        table = np.column_stack([images, left, top, right - left, bottom - top, answered[:, 5], numbers])
        seen = mean_average_precision(truth, table)
        return jackknife("mAP", "%", seen.value, seen.without, scale=100)

    @abstractmethod
    def categories(self, classes: Array) -> Array:
        """The category numbers of `classes` int64 [n], 0 for a class that stands for none."""


def rows(index: int, boxes: Array, scores: Array, classes: Array) -> Array:
    """An answer: float32 [n, 7]."""
    answer = np.empty((len(scores), ROW), np.float32)
    answer[:, 0], answer[:, 1:5], answer[:, 5], answer[:, 6] = index, boxes, scores, classes
    return answer


def _answer(where: str, index: int, response: bytes) -> Array:
    """The rows of an answer. Raises DataError, naming `where`, unless they are rows, and of sample `index`."""
    if len(response) % (4 * ROW):
        raise DataError(f"{where}: an answer of {len(response)} bytes is not rows of {ROW} float32")
    answer = np.frombuffer(response, np.float32).reshape(-1, ROW).astype(float)
    if not np.isfinite(answer).all():
        raise DataError(f"{where}: its answer holds what is not a number")
    if (answer[:, 0] != index).any():
        raise DataError(f"{where}: its answer is sample {answer[0, 0]:.0f}'s")
    return answer


def open_pictures(folder: Path | None) -> Pictures:
    """COCO in `folder`, or any images in it, or made-up ones where it is None. Raises DataError."""
    if folder is None:
        return PlainPictures(MadeUpImages(MADE_UP))
    return Coco(folder) if (folder / ANNOTATIONS).exists() else PlainPictures(open_images(folder))


def _image_input(file: OnnxFile, path: Path, net: Net) -> tuple[TensorSpec, Callable[[Array], Array]]:
    """The one input, and what prepares an image for it."""
    spec, side = file.inputs[0], net.side
    if len(file.inputs) == 1 and len(spec.shape) == 4:
        if spec.dtype == np.float32 and spec.shape[1:] in ((3, side, side), (3, None, None)):
            return spec, net.prepare
        if spec.dtype == np.uint8 and len(net.whole) == 4 and spec.shape[3] == 3:
            return spec, Levels(side)
    have = "; ".join(map(str, file.inputs))
    raise ModelInvalid(f"{path}: takes ({have}), not one float32 image [?, 3, {side}, {side}]")


def _reader(file: OnnxFile, path: Path, net: Net) -> Read:
    """How the file's outputs are read: codes and scores of all priors, or boxes that it chose itself."""
    names = {spec.name.partition(":")[0]: spec.name for spec in file.outputs}
    if all(name in names for name in net.whole):
        return lambda outputs: _chosen([outputs[names[name]] for name in net.whole], net)
    count, classes = len(net.priors), net.classes
    codes = _output(file, (count, 4))
    scores = _output(file, (count, classes))
    if codes is None or scores is None:
        have = "; ".join(map(str, file.outputs))
        raise ModelInvalid(
            f"{path}: gives ({have}), neither codes [?, {count}, 4] and scores [?, {count}, {classes}] "
            f"nor {', '.join(net.whole)}"
        )
    return lambda outputs: [_choose(*pair, net) for pair in zip(outputs[scores], outputs[codes], strict=True)]


def _output(file: OnnxFile, tail: tuple[int, ...]) -> str | None:
    return next((spec.name for spec in file.outputs if spec.shape[1:] == tail and spec.dtype == np.float32), None)


def _choose(scores: Array, codes: Array, net: Net) -> Seen:
    boxes, scores, classes = net.choose(scores, codes, net.priors)
    return boxes[:, [1, 0, 3, 2]] if net.xy else boxes, scores, classes


def _chosen(outputs: Sequence[Array], net: Net) -> list[Seen]:
    """What a file chose itself: boxes [N, n, 4], scores [N, n], classes [N, n] and perhaps counts [N].

    All of it counts: v0.7's reader of SSD-ResNet-34's ONNX file still cut at a score of 0.5, later ones at the
    file's own 0.05, as that of its PyTorch original always did.
    """
    boxes, scores, classes = outputs[:3]
    boxes = boxes[..., [1, 0, 3, 2]] if net.xy else boxes
    counts = outputs[3].astype(np.int64).tolist() if len(outputs) > 3 else [scores.shape[1]] * len(scores)
    parts = zip(boxes, scores, classes, counts, strict=True)
    return [(box[:count], score[:count], number[:count]) for box, score, number, count in parts]
