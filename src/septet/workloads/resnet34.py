# SPDX-License-Identifier: Apache-2.0
"""SSD-ResNet-34: three stages of basic blocks, and a single-shot detector on the last and on five further maps.

He et al., «Deep Residual Learning for Image Recognition», 2015, table 1, cut after 256 channels, whose stage keeps
the stride at 8. Source of the detector: mlcommons/inference, models/ssd_r34.py, whose predictors step by 3 where
other detectors' step by 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx

from septet.tensor import Array
from septet.workloads.graph import BATCH, Graph, value

STAGE_STRIDES = (1, 2, 1)
"""The last would be 2 in a classifier: the detector keeps its map large."""

LOGIT_GAIN, BACKGROUND_MEAN = 0.4, 6.0
"""How much smaller than others the weights of synthetic logits are, so that they spread by about 1, and where the
background's lie: of 1.2 million scores, some thousand are above 0.05, as in photographs."""


@dataclass(frozen=True)
class Extra:
    """An extra layer: channels of its 1×1 and of its 3×3, and the stride and padding of the latter."""

    middle: int
    outgoing: int
    stride: int
    padding: int


@dataclass(frozen=True)
class ResNet34:
    """An SSD-ResNet-34.

    `blocks` of each stage, `width` in channels of the first, `classes` with the background. Predictors step by
    `step`. `aspects` are the longish priors' width ÷ height on each feature map, `scales` one size more than
    there are maps, as shares of the image.
    """

    image: int
    classes: int
    blocks: tuple[int, int, int]
    width: int
    extras: tuple[Extra, ...]
    step: int
    aspects: tuple[tuple[int, ...], ...]
    scales: tuple[float, ...]

    def priors(self) -> list[int]:
        """Priors at each place of each feature map: two squares, and two for each aspect."""
        return [2 + 2 * len(aspects) for aspects in self.aspects]

    def maps(self) -> list[int]:
        """The sides of the predictors' maps, from the first."""
        sides = [_halved(self.image, 3)]
        for extra in self.extras:
            sides.append((sides[-1] + 2 * extra.padding - 3) // extra.stride + 1)
        return [(side - 1) // self.step + 1 for side in sides]

    def channels(self) -> list[int]:
        """The channels of the maps that the predictors look at."""
        return [4 * self.width, *(extra.outgoing for extra in self.extras)]


SSD_RESNET34 = ResNet34(
    image=1200,
    classes=81,
    blocks=(3, 4, 6),
    width=64,
    extras=(
        Extra(256, 512, 2, 1), Extra(256, 512, 2, 1), Extra(128, 256, 2, 1), Extra(128, 256, 2, 0),
        Extra(128, 256, 1, 0),
    ),
    step=3,
    aspects=((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
    scales=tuple(size / 300 for size in (21, 45, 99, 153, 207, 261, 315)),
)  # fmt: skip
SSD_RESNET34_MINI = ResNet34(
    image=160,
    classes=7,
    blocks=(2, 2, 2),
    width=16,
    extras=(Extra(32, 64, 2, 1), Extra(32, 64, 2, 1), Extra(32, 64, 2, 1)),
    step=2,
    aspects=((2,), (2, 3), (2, 3), (2,)),
    scales=(0.13, 0.27, 0.45, 0.63, 0.85),
)


@dataclass(frozen=True)
class Block:
    """One basic block: its name, the channels that come in and go out, and the stride of its first 3×3."""

    name: str
    incoming: int
    outgoing: int
    stride: int

    @property
    def projects(self) -> bool:
        """Whether the shortcut needs a convolution to fit."""
        return self.stride != 1 or self.incoming != self.outgoing


def blocks(net: ResNet34) -> Iterator[Block]:
    """The blocks of `net` in order."""
    incoming = net.width
    for stage, (count, stride) in enumerate(zip(net.blocks, STAGE_STRIDES, strict=True)):
        for place in range(count):
            outgoing = net.width * 2**stage
            yield Block(f"layer{stage + 1}.{place}", incoming, outgoing, stride if place == 0 else 1)
            incoming = outgoing


def build(net: ResNet34, weights: Mapping[str, Array]) -> onnx.ModelProto:
    """The network as ONNX: ``image`` float32 [N, 3, side, side] -> ``codes`` float32 [N, priors, 4] in the order
    (x, y, width, height), and ``scores`` float32 [N, priors, classes] that sum to 1 with the background's."""
    graph = Graph("ssd-resnet34", weights)
    codes, logits = layers(graph, net, "image")
    scores = graph.softmax("softmax", logits)
    count = sum(side**2 * priors for side, priors in zip(net.maps(), net.priors(), strict=True))
    image = value("image", np.float32, (BATCH, 3, net.image, net.image))
    return graph.model(
        [image],
        {
            codes: value("codes", np.float32, (BATCH, count, 4)),
            scores: value("scores", np.float32, (BATCH, count, net.classes)),
        },
    )


def layers(graph: Graph, net: ResNet34, image: str) -> tuple[str, str]:
    """Codes and logits, the network before its softmax."""
    x = graph.relu("relu", graph.batch_norm("bn1", graph.conv("conv1", image, stride=2, padding=3)))
    x = graph.max_pool("maxpool", x, kernel=3, stride=2, padding=1)
    for block in blocks(net):
        x = _basic(graph, block, x)
    maps = [x]
    for place, extra in enumerate(net.extras):
        x = graph.relu(f"extra{place}.relu1", graph.conv(f"extra{place}.conv1", x))
        x = graph.conv(f"extra{place}.conv2", x, stride=extra.stride, padding=extra.padding)
        x = graph.relu(f"extra{place}.relu2", x)
        maps.append(x)
    heads = [_head(graph, net, f"head{place}", x) for place, x in enumerate(maps)]
    codes = graph.concat("codes.all", [codes for codes, _ in heads], axis=2)
    logits = graph.concat("logits.all", [logits for _, logits in heads], axis=2)
    return graph.transpose("codes.last", codes, (0, 2, 1)), graph.transpose("logits.last", logits, (0, 2, 1))


def _basic(graph: Graph, block: Block, source: str) -> str:
    name = block.name
    x = graph.conv(f"{name}.conv1", source, stride=block.stride, padding=1)
    x = graph.relu(f"{name}.relu1", graph.batch_norm(f"{name}.bn1", x))
    x = graph.batch_norm(f"{name}.bn2", graph.conv(f"{name}.conv2", x, padding=1))
    shortcut = source
    if block.projects:
        shortcut = graph.conv(f"{name}.downsample.0", source, stride=block.stride)
        shortcut = graph.batch_norm(f"{name}.downsample.1", shortcut)
    return graph.relu(f"{name}.relu2", graph.add(f"{name}.add", x, shortcut))


def _head(graph: Graph, net: ResNet34, name: str, source: str) -> tuple[str, str]:
    """Codes [N, 4, priors × places] and logits [N, classes, priors × places] of one feature map."""
    found = []
    for part, size in (("codes", 4), ("logits", net.classes)):
        x = graph.conv(f"{name}.{part}", source, stride=net.step, padding=1)
        found.append(graph.reshape(f"{name}.{part}.flat", x, (0, size, -1)))
    return found[0], found[1]


def _halved(side: int, times: int) -> int:
    """A map's `side` after so many layers of stride 2 that pad by half their kernel."""
    return side if times == 0 else _halved((side - 1) // 2 + 1, times - 1)


def shapes(net: ResNet34) -> dict[str, tuple[int, ...]]:
    """The shape of each weight of `net`, by name."""
    return dict(_shapes(net))


def _shapes(net: ResNet34) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _normed("conv1", "bn1", (net.width, 3, 7, 7))
    for block in blocks(net):
        name = block.name
        yield from _normed(f"{name}.conv1", f"{name}.bn1", (block.outgoing, block.incoming, 3, 3))
        yield from _normed(f"{name}.conv2", f"{name}.bn2", (block.outgoing, block.outgoing, 3, 3))
        if block.projects:
            shape = (block.outgoing, block.incoming, 1, 1)
            yield from _normed(f"{name}.downsample.0", f"{name}.downsample.1", shape)
    for place, (extra, incoming) in enumerate(zip(net.extras, net.channels(), strict=False)):
        yield from _biased(f"extra{place}.conv1", (extra.middle, incoming, 1, 1))
        yield from _biased(f"extra{place}.conv2", (extra.outgoing, extra.middle, 3, 3))
    for place, (channels, priors) in enumerate(zip(net.channels(), net.priors(), strict=True)):
        yield from _biased(f"head{place}.codes", (4 * priors, channels, 3, 3))
        yield from _biased(f"head{place}.logits", (net.classes * priors, channels, 3, 3))


def _normed(conv: str, norm: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{conv}.weight", shape
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{norm}.{part}", shape[:1]


def _biased(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def synthetic(net: ResNet34, seed: int) -> dict[str, Array]:
    """Seeded weights under which activations keep a sane range and about as many boxes are found as in
    photographs; they know nothing.

    Convolutions are He-initialised, which keeps the second moment through ReLU; the last normalisation of each
    block is damped, so that the sums of the residual branches grow slowly. Codes spread by about 3, a third of a
    prior's size, logits as `LOGIT_GAIN` and `BACKGROUND_MEAN` say. The logits' weights are centred: features are
    all positive, and would otherwise favour the same few classes everywhere.
    """
    draw = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for name, shape in shapes(net).items():
        match name.rpartition(".")[2], len(shape):
            case "weight", 4:
                scale = (2 / prod(shape[1:])) ** 0.5 * (LOGIT_GAIN if ".logits." in name else 1.0)
                weights[name] = draw.standard_normal(shape, np.float32) * np.float32(scale)
                if ".logits." in name:
                    weights[name] -= weights[name].mean(axis=(1, 2, 3), keepdims=True)
            case "weight", _:
                weights[name] = np.full(shape, 0.3 if name.endswith("bn2.weight") else 1.0, np.float32)
            case "running_var", _:
                weights[name] = np.ones(shape, np.float32)
            case _:
                weights[name] = np.zeros(shape, np.float32)
                if ".logits." in name:  # channels go class by class, the background's first
                    weights[name][: shape[0] // net.classes] = BACKGROUND_MEAN
    return weights
