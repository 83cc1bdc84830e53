# SPDX-License-Identifier: Apache-2.0
"""SSD-MobileNet-v1: depthwise-separable convolutions, and a single-shot detector on six of their maps.

Howard et al., «MobileNets», 2017, table 1, without its classifier; four extra layers and 1×1 predictors as in
ssd_mobilenet_v1_coco_2018_01_28. Every convolution but the predictors' is normalised and followed by ReLU6;
convolutions of stride 2 pad as TensorFlow's «SAME».
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx

from septet.tensor import Array
from septet.workloads.graph import BATCH, Graph, value

EPSILON = 1e-3
"""Added to the variance by batch normalisation."""

STEM = 32
SEPARABLE = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)  # fmt: skip
"""Outgoing channels and stride of each depthwise-separable layer."""

TAPPED = (10, 12)
"""The separable layers, from 0, whose outputs are the first two feature maps."""

EXTRAS = ((256, 512), (128, 256), (128, 256), (64, 128))
"""Channels of the 1×1 and of the 3×3, of stride 2, of each extra layer; each gives one more feature map."""

PRIORS = (3, 6, 6, 6, 6, 6)
"""Priors at each place of each feature map."""

_FEWEST = 16
"""No layer has fewer channels than this: with 8 a narrow network does not learn to see."""

LOGIT_GAIN, LOGIT_MEAN = 6.4, -9.5
"""How much larger than others the weights of synthetic logits are, so that they spread by about 2, and where they
lie: some hundred of 172,530 score above 0.1 and a few thousand above 0.01, as in photographs."""


@dataclass(frozen=True)
class MobileNet:
    """An SSD-MobileNet-v1: the image's side, classes with the background, and the width as a share."""

    image: int
    classes: int
    width: float = 1.0

    def channels(self, full: int) -> int:
        """How many channels there are where the full width has `full`."""
        return max(_FEWEST, int(full * self.width))

    def maps(self) -> list[int]:
        """The sides of the feature maps, from the first."""
        sides = [_halved(self.image, 4)]
        while len(sides) < len(PRIORS):
            sides.append(_halved(sides[-1], 1))
        return sides


SSD_MOBILENET = MobileNet(image=300, classes=91)
SSD_MOBILENET_MINI = MobileNet(image=160, classes=10, width=0.23)


def build(net: MobileNet, weights: Mapping[str, Array]) -> onnx.ModelProto:
    """The network as ONNX: ``image`` float32 [N, 3, side, side] -> ``codes`` float32 [N, priors, 4] in the order
    (y, x, height, width), and ``scores`` float32 [N, priors, classes], each class for itself."""
    graph = Graph("ssd-mobilenet", weights)
    codes, logits = layers(graph, net, "image")
    scores = graph.sigmoid("sigmoid", logits)
    count = sum(side**2 * priors for side, priors in zip(net.maps(), PRIORS, strict=True))
    image = value("image", np.float32, (BATCH, 3, net.image, net.image))
    return graph.model(
        [image],
        {
            codes: value("codes", np.float32, (BATCH, count, 4)),
            scores: value("scores", np.float32, (BATCH, count, net.classes)),
        },
    )


def layers(graph: Graph, net: MobileNet, image: str) -> tuple[str, str]:
    """Codes and logits, the network before its sigmoid."""
    x = _conv(graph, "conv0", image, net.image, kernel=3, stride=2)
    side, channels, maps = _halved(net.image, 1), net.channels(STEM), []
    for place, (full, stride) in enumerate(SEPARABLE):
        name = f"conv{place + 1}"
        x = _conv(graph, f"{name}.depthwise", x, side, kernel=3, stride=stride, groups=channels)
        x = _conv(graph, f"{name}.pointwise", x, side)
        side, channels = _halved(side, stride - 1), net.channels(full)
        if place in TAPPED:
            maps.append(x)
    for place in range(len(EXTRAS)):
        x = _conv(graph, f"extra{place}.1x1", x, side)
        x = _conv(graph, f"extra{place}.3x3", x, side, kernel=3, stride=2)
        side = _halved(side, 1)
        maps.append(x)
    heads = [_head(graph, f"head{place}", x, net.classes) for place, x in enumerate(maps)]
    codes = graph.concat("codes.all", [codes for codes, _ in heads], axis=1)
    return codes, graph.concat("logits.all", [logits for _, logits in heads], axis=1)


def _conv(
    graph: Graph, name: str, source: str, side: int, *, kernel: int = 1, stride: int = 1, groups: int = 1
) -> str:
    """A convolution that pads as «SAME» does on a map of `side`, normalised, with ReLU6."""
    missing = max(0, (-(-side // stride) - 1) * stride + kernel - side)
    before, after = missing // 2, missing - missing // 2
    pads = (before, before, after, after)
    x = graph.batch_norm(
        f"{name}.norm", graph.conv(name, source, stride=stride, padding=pads, groups=groups), epsilon=EPSILON
    )
    return graph.relu6(f"{name}.relu6", x)


def _head(graph: Graph, name: str, source: str, classes: int) -> tuple[str, str]:
    """Codes [N, places × priors, 4] and logits [N, places × priors, classes] of one feature map."""
    found = []
    for part, size in (("codes", 4), ("logits", classes)):
        x = graph.transpose(f"{name}.{part}.last", graph.conv(f"{name}.{part}", source), (0, 2, 3, 1))
        found.append(graph.reshape(f"{name}.{part}.flat", x, (0, -1, size)))
    return found[0], found[1]


def _halved(side: int, times: int) -> int:
    """A map's `side` after so many convolutions of stride 2 that pad as «SAME»."""
    return side if times == 0 else _halved(-(-side // 2), times - 1)


def shapes(net: MobileNet) -> dict[str, tuple[int, ...]]:
    """The shape of each weight of `net`, by name."""
    return dict(_shapes(net))


def _shapes(net: MobileNet) -> Iterator[tuple[str, tuple[int, ...]]]:
    last = net.channels(STEM)
    yield from _normed("conv0", (last, 3, 3, 3))
    maps = []
    for place, (full, _) in enumerate(SEPARABLE):
        channels = net.channels(full)
        yield from _normed(f"conv{place + 1}.depthwise", (last, 1, 3, 3))
        yield from _normed(f"conv{place + 1}.pointwise", (channels, last, 1, 1))
        last = channels
        if place in TAPPED:
            maps.append(last)
    for place, (full_1x1, full_3x3) in enumerate(EXTRAS):
        middle, channels = net.channels(full_1x1), net.channels(full_3x3)
        yield from _normed(f"extra{place}.1x1", (middle, last, 1, 1))
        yield from _normed(f"extra{place}.3x3", (channels, middle, 3, 3))
        last = channels
        maps.append(last)
    for place, (channels, priors) in enumerate(zip(maps, PRIORS, strict=True)):
        for part, size in (("codes", 4), ("logits", net.classes)):
            yield f"head{place}.{part}.weight", (priors * size, channels, 1, 1)
            yield f"head{place}.{part}.bias", (priors * size,)


def _normed(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.norm.{part}", shape[:1]


def synthetic(net: MobileNet, seed: int) -> dict[str, Array]:
    """Seeded weights under which activations keep a sane range and about as many boxes are found as in
    photographs; they know nothing.

    Convolutions are He-initialised, which keeps the second moment through ReLU. Codes spread by less than 1, a
    tenth of a prior's size, logits as `LOGIT_GAIN` and `LOGIT_MEAN` say. The logits' weights are centred: features
    are all positive, and would otherwise favour the same few classes everywhere.
    """
    draw = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for name, shape in shapes(net).items():
        match name.rpartition(".")[2], len(shape):
            case "weight", 4:
                spread = LOGIT_GAIN if ".logits." in name else 1.0
                scale = spread * (2 / prod(shape[1:])) ** 0.5
                weights[name] = draw.standard_normal(shape, np.float32) * np.float32(scale)
                if ".logits." in name:
                    weights[name] -= weights[name].mean(axis=1, keepdims=True)
            case (("weight" | "running_var"), _):
                weights[name] = np.ones(shape, np.float32)
            case _:
                weights[name] = np.full(shape, LOGIT_MEAN if ".logits." in name else 0.0, np.float32)
    return weights
