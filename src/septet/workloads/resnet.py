# SPDX-License-Identifier: Apache-2.0
"""ResNet v1.5: bottleneck blocks with the stride in the 3×3 convolution.

He et al., «Deep Residual Learning for Image Recognition», 2015, table 1; v1.5 moves the stride from the
first 1×1 convolution of a block to its 3×3. Weights carry torchvision's names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx

from septet.tensor import Array
from septet.workloads.graph import BATCH, Graph, value

EXPANSION = 4
"""A block's output has this many times the channels of its 3×3 convolution."""

_PIXEL_SPREAD = 60.0
"""About the standard deviation of photographs' pixels around the means that preprocessing subtracts."""


@dataclass(frozen=True)
class ResNet:
    """A ResNet of bottlenecks: blocks of each stage, channels of the first, classes, and the image's side."""

    blocks: tuple[int, int, int, int]
    width: int
    classes: int
    image: int


RESNET50 = ResNet(blocks=(3, 4, 6, 3), width=64, classes=1_000, image=224)
RESNET_MINI = ResNet(blocks=(2, 2, 2, 2), width=8, classes=100, image=64)


@dataclass(frozen=True)
class Block:
    """One bottleneck: its name, the channels that come in and of its 3×3, and the stride."""

    name: str
    incoming: int
    width: int
    stride: int

    @property
    def outgoing(self) -> int:
        return self.width * EXPANSION

    @property
    def projects(self) -> bool:
        """Whether the shortcut needs a convolution to fit."""
        return self.stride != 1 or self.incoming != self.outgoing


def blocks(net: ResNet) -> Iterator[Block]:
    """The blocks of `net` in order."""
    incoming = net.width
    for stage, count in enumerate(net.blocks):
        for place in range(count):
            stride = 2 if stage > 0 and place == 0 else 1
            block = Block(f"layer{stage + 1}.{place}", incoming, net.width * 2**stage, stride)
            incoming = block.outgoing
            yield block


def build(net: ResNet, weights: Mapping[str, Array]) -> onnx.ModelProto:
    """The network as ONNX: ``image`` float32 [N, 3, side, side] -> ``logits`` float32 [N, classes]."""
    graph = Graph("resnet", weights)
    x = graph.relu("relu", graph.batch_norm("bn1", graph.conv("conv1", "image", stride=2, padding=3)))
    x = graph.max_pool("maxpool", x, kernel=3, stride=2, padding=1)
    for block in blocks(net):
        x = _bottleneck(graph, block, x)
    logits = graph.linear("fc", graph.mean("avgpool", x))
    image = value("image", np.float32, (BATCH, 3, net.image, net.image))
    return graph.model([image], {logits: value("logits", np.float32, (BATCH, net.classes))})


def _bottleneck(graph: Graph, block: Block, source: str) -> str:
    name = block.name
    x = graph.conv(f"{name}.conv1", source)
    x = graph.relu(f"{name}.relu1", graph.batch_norm(f"{name}.bn1", x))
    x = graph.conv(f"{name}.conv2", x, stride=block.stride, padding=1)
    x = graph.relu(f"{name}.relu2", graph.batch_norm(f"{name}.bn2", x))
    x = graph.batch_norm(f"{name}.bn3", graph.conv(f"{name}.conv3", x))
    shortcut = source
    if block.projects:
        shortcut = graph.conv(f"{name}.downsample.0", source, stride=block.stride)
        shortcut = graph.batch_norm(f"{name}.downsample.1", shortcut)
    return graph.relu(f"{name}.relu3", graph.add(f"{name}.add", x, shortcut))


def shapes(net: ResNet) -> dict[str, tuple[int, ...]]:
    """The shape of each weight of `net`, by name."""
    found: dict[str, tuple[int, ...]] = {}

    def conv_and_norm(conv: str, norm: str, shape: tuple[int, int, int, int]) -> None:
        found[f"{conv}.weight"] = shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{norm}.{part}"] = shape[:1]

    conv_and_norm("conv1", "bn1", (net.width, 3, 7, 7))
    last = net.width
    for block in blocks(net):
        name, width, last = block.name, block.width, block.outgoing
        conv_and_norm(f"{name}.conv1", f"{name}.bn1", (width, block.incoming, 1, 1))
        conv_and_norm(f"{name}.conv2", f"{name}.bn2", (width, width, 3, 3))
        conv_and_norm(f"{name}.conv3", f"{name}.bn3", (last, width, 1, 1))
        if block.projects:
            conv_and_norm(f"{name}.downsample.0", f"{name}.downsample.1", (last, block.incoming, 1, 1))
    found["fc.weight"] = (net.classes, last)
    found["fc.bias"] = (net.classes,)
    return found


def synthetic(net: ResNet, seed: int) -> dict[str, Array]:
    """Seeded weights under which activations keep a sane range; they know nothing.

    Convolutions are He-initialised, which keeps the second moment through ReLU; the running variance of
    the first normalisation takes the pixels' spread out; the last normalisation of each block is damped, so
    that the sums of the residual branches grow slowly.
    """
    draw = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for name, shape in shapes(net).items():
        match name.rpartition(".")[2], len(shape):
            case "weight", 4:
                spread = (2 / prod(shape[1:])) ** 0.5
                weights[name] = draw.standard_normal(shape, np.float32) * np.float32(spread)
            case "weight", 2:
                weights[name] = draw.standard_normal(shape, np.float32) * np.float32(shape[1] ** -0.5)
            case "weight", _:
                weights[name] = np.full(shape, 0.3 if name.endswith("bn3.weight") else 1.0, np.float32)
            case "running_var", _:
                spread = 2 * _PIXEL_SPREAD**2 if name.startswith("bn1") else 1.0
                weights[name] = np.full(shape, spread, np.float32)
            case _:
                weights[name] = np.zeros(shape, np.float32)
    return weights
