# SPDX-License-Identifier: Apache-2.0
"""Train a detector's miniature on box scenes: what ``ssd-mobilenet.py`` and ``ssd-resnet34.py`` share.

The network that is trained is the very description that the ONNX graph is built from: `Tape` has the methods of
`septet.workloads.graph.Graph`, and runs each layer on torch tensors as it is named. One seed gives one set of
weights; another seed gives the same mAP within its confidence interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, load
from septet.harness.library import Library
from septet.tensor import Array, Tensors
from septet.workloads.boxes import corners, encode, overlaps
from septet.workloads.coco import ScenePictures
from septet.workloads.scenes import BoxScenes, Scene
from septet.workloads.split import Split
from septet.workloads.ssd import Net, Ssd
from septet.workloads.weights import Found
from training import Losses, asked, drawn_ahead, fit, repeatable, save

WEIGHT_DECAY = 1e-3
MOMENTUM = 0.05
"""How fast the running statistics of batch normalisation follow."""

MATCH = 0.5
"""A prior is to find the thing that it overlaps by at least this; and each thing has its best prior."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits [N, priors, classes] and wanted classes int64 [N, priors] -> the sum of the loss over all of them."""


@dataclass(frozen=True)
class Recipe:
    """What is trained: the `network`, the `graph` module that describes it, its workload, and how.

    `numbers` gives the class of each category number, `prior` is the logit of all classes to start from, `rate`
    the learning rate's peak, `batch` how many scenes a step sees.
    """

    network: Any
    graph: ModuleType
    net: Net
    workload: type[Ssd]
    numbers: Mapping[int, int]
    loss: Loss
    prior: float
    rate: float
    batch: int
    steps: int


class Tape:
    """Runs layers on tensors as they are described, with weights by name."""

    def __init__(self, start: Tensors) -> None:
        self.weights = {name: torch.from_numpy(np.array(array)) for name, array in start.items()}
        self.training = True

    def trained(self) -> list[Tensor]:
        """The weights that gradients reach: all but running statistics."""
        found = [weight for name, weight in self.weights.items() if ".running_" not in name]
        return [weight.requires_grad_() for weight in found]

    def conv(
        self,
        name: str,
        source: Tensor,
        *,
        stride: int = 1,
        padding: int | Sequence[int] = 0,
        groups: int = 1,
    ) -> Tensor:
        if not isinstance(padding, int):
            top, left, bottom, right = padding
            source, padding = F.pad(source, (left, right, top, bottom)), 0
        weight, bias = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        return F.conv2d(source, weight, bias, stride, padding, 1, groups)

    def batch_norm(self, name: str, source: Tensor, *, epsilon: float = 1e-5) -> Tensor:
        parts = [self.weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(source, *parts, self.training, MOMENTUM, epsilon)

    def relu(self, name: str, source: Tensor) -> Tensor:
        return F.relu(source)

    def relu6(self, name: str, source: Tensor) -> Tensor:
        return F.relu6(source)

    def add(self, name: str, one: Tensor, other: Tensor) -> Tensor:
        return one + other

    def concat(self, name: str, sources: Sequence[Tensor], *, axis: int) -> Tensor:
        return torch.cat(list(sources), axis)

    def reshape(self, name: str, source: Tensor, shape: Sequence[int]) -> Tensor:
        return source.reshape([source.shape[place] if dim == 0 else dim for place, dim in enumerate(shape)])

    def transpose(self, name: str, source: Tensor, order: Sequence[int]) -> Tensor:
        return source.permute(*order)

    def max_pool(self, name: str, source: Tensor, *, kernel: int, stride: int, padding: int) -> Tensor:
        return F.max_pool2d(source, kernel, stride, padding)


def each(logits: Tensor, wanted: Tensor) -> Tensor:
    """The loss of classes that are each asked for themselves; class 0, the background, is not asked for."""
    target = F.one_hot(wanted, logits.shape[-1]).float()[..., 1:]
    cross = F.binary_cross_entropy_with_logits(logits[..., 1:], target, reduction="none").sum(-1)
    return mined(cross, wanted)


def either(logits: Tensor, wanted: Tensor) -> Tensor:
    """The loss of classes that exclude each other."""
    return mined(F.cross_entropy(logits.transpose(1, 2), wanted, reduction="none"), wanted)


def mined(cross: Tensor, wanted: Tensor) -> Tensor:
    """The sum of the losses `cross` [N, priors] of matched priors and of three times as many others that are
    farthest wrong: Liu et al., «SSD», 2016, section 2.2."""
    matched = wanted > 0
    others = cross.detach().masked_fill(matched, 0)
    rank = others.argsort(1, descending=True).argsort(1)
    return (cross * (matched | (rank < 3 * matched.sum(1, keepdim=True)))).sum()


def match(scene: Scene, recipe: Recipe) -> tuple[Array, Array]:
    """What each prior is to say of `scene`: codes float32 [priors, 4] and classes int64 [priors]."""
    height, width = scene.image.shape[:2]
    boxes = scene.boxes / np.array([width, height, width, height], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    boxes = boxes if recipe.net.xy else boxes[:, [1, 0, 3, 2]]
    codes, classes = np.zeros_like(recipe.net.priors), np.zeros(len(recipe.net.priors), np.int64)
    if len(boxes):
        shared = overlaps(boxes, corners(recipe.net.priors))
        shared[np.arange(len(boxes)), shared.argmax(1)] = 2
        best, found = shared.argmax(0), shared.max(0) >= MATCH
        numbers = np.array([recipe.numbers[int(category)] for category in scene.categories])
        classes[found] = numbers[best[found]]
        codes[found] = encode(boxes[best[found]], recipe.net.priors[found])
    return codes, classes


def samples(recipe: Recipe, split: Split, begin: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scenes begin … begin + count: images float32 [count, 3, side, side], wanted codes and classes."""
    scenes = BoxScenes(split)
    drawn = [scenes.scene(index) for index in range(begin, begin + count)]
    images = np.stack([recipe.net.prepare(scene.image) for scene in drawn])
    codes, classes = zip(*(match(scene, recipe) for scene in drawn), strict=True)
    return torch.from_numpy(images), torch.from_numpy(np.stack(codes)), torch.from_numpy(np.stack(classes))


def batches(recipe: Recipe, steps: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Fresh scenes for each step."""
    size = recipe.batch
    return drawn_ahead(lambda step: samples(recipe, "train", step * size, size), steps)


def start(recipe: Recipe, seed: int) -> dict[str, Array]:
    """Weights to start from: the synthetic ones, but for logits that are about the same for every place."""
    weights: dict[str, Array] = recipe.graph.synthetic(recipe.network, seed)
    for name, array in weights.items():
        if name.endswith(".logits.weight"):
            array *= np.float32(0.05)
        elif name.endswith(".logits.bias"):
            array[:] = recipe.prior
    return weights


def train(recipe: Recipe, steps: int, seed: int) -> dict[str, Array]:
    """Train from scratch, and return weights by name."""
    repeatable(seed, threads=1)  # scenes are drawn on another
    tape = Tape(start(recipe, seed))

    def losses(step: int, batch: tuple[Tensor, Tensor, Tensor]) -> Losses:
        images, wanted, classes = batch
        images = images.contiguous(memory_format=torch.channels_last)  # depthwise layers are faster so
        codes, logits = recipe.graph.layers(tape, recipe.network, images)
        matched = classes > 0
        count = matched.sum().clamp(min=1)
        places = F.smooth_l1_loss(codes[matched], wanted[matched], reduction="sum") / count
        return {"places": places, "classes": recipe.loss(logits, classes) / count}

    shown = batches(recipe, steps)
    fit(tape.trained(), shown, losses, steps=steps, rate=recipe.rate, decay=WEIGHT_DECAY, warm=0.1, clip=10.0)
    return {name: weight.detach().numpy() for name, weight in tape.weights.items()}


def score(recipe: Recipe, weights: Mapping[str, Array], split: Split, count: int | None = None) -> str:
    """mAP in % over the scenes of `split`, with its 95 % interval, in words: by the workload's own code."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(recipe.graph.build(recipe.network, weights), path)
        workload = recipe.workload("mini", recipe.net, Found(path, "trained"), ScenePictures(split, count))
        answers: dict[int, bytes] = {}
        with workload.predictor(_engine) as predict:
            for first in range(0, len(workload), recipe.batch):
                indices = range(first, min(first + recipe.batch, len(workload)))
                library = Library(workload)
                library.load(indices)
                rows = predict(library.gather(indices))
                answers |= {index: row.tobytes() for index, row in zip(indices, rows, strict=True)}
        seen = workload.score(answers)
    return f"mAP on {split}: {seen.value:.2f} % ({seen.low:.2f} … {seen.high:.2f}), {seen.samples} scenes"


def _engine(path: Path | None) -> Engine:
    return load("onnx", path, EngineConfig(), Cpu.detect().partition())


def run(recipe: Recipe, words: str) -> None:
    """The command: train, print mAP, save."""
    said = asked(words, recipe.workload.name, seed=7, steps=recipe.steps)
    weights = train(recipe, said.steps, said.seed)
    for split in ("search", "test"):
        print(score(recipe, weights, split))
    save(weights, said.out)
