# SPDX-License-Identifier: Apache-2.0
"""3D U-Net in the line of nnU-Net: two convolutions a level, down by strides, up by transposed convolutions.

Isensee et al., «nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation», 2020.
v0.7's network has six levels, instance normalisation, leaky ReLU, 2×2×2 transposed convolutions and a head of four
classes: the layers that the calibration cache of NVIDIA's v0.7 submission names. No source at hand states its
width, 30 or 32. It is taken as 30, nnU-Net's earlier default, doubled at each level up to 320.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx

from septet.tensor import Array
from septet.workloads.graph import BATCH, Graph, value

SLOPE = 0.01
"""Of the leaky ReLU where its input is negative."""

CONVOLUTIONS = 2
"""A level has this many, on the way down and on the way up."""


@dataclass(frozen=True)
class UNet:
    """A U-Net: channels that come in, of each level, classes that go out, and the volume's sides."""

    channels: int
    widths: tuple[int, ...]
    classes: int
    volume: tuple[int, int, int]


UNET_3D = UNet(channels=4, widths=(30, 60, 120, 240, 320, 320), classes=4, volume=(224, 224, 160))
UNET_3D_MINI = UNet(channels=4, widths=(8, 16, 32, 48), classes=4, volume=(32, 32, 32))


def build(net: UNet, weights: Mapping[str, Array]) -> onnx.ModelProto:
    """The network as ONNX, float32: ``volume`` [N, channels, X, Y, Z] -> ``logits`` [N, classes, X, Y, Z]."""
    graph = Graph("unet", weights)
    x, skips = "volume", []
    for level in range(len(net.widths)):
        if level:
            skips.append(x)
        x = _level(graph, f"down.{level}", x, stride=2 if level else 1)
    for level in reversed(range(len(skips))):
        x = graph.conv_transpose(f"up.{level}", x, stride=2)
        x = _level(graph, f"merge.{level}", graph.concat(f"skip.{level}", [x, skips[level]], axis=1))
    shape = (BATCH, net.channels, *net.volume)
    logits = value("logits", np.float32, (BATCH, net.classes, *net.volume))
    return graph.model([value("volume", np.float32, shape)], {graph.conv("head", x): logits})


def _level(graph: Graph, name: str, source: str, *, stride: int = 1) -> str:
    for place in range(CONVOLUTIONS):
        conv = graph.conv(f"{name}.{place}.conv", source, stride=1 if place else stride, padding=1)
        norm = graph.instance_norm(f"{name}.{place}.norm", conv)
        source = graph.leaky_relu(f"{name}.{place}.relu", norm, slope=SLOPE)
    return source


def shapes(net: UNet) -> dict[str, tuple[int, ...]]:
    """The shape of each weight of `net`, by name."""
    found: dict[str, tuple[int, ...]] = {}

    def level(name: str, incoming: int, width: int) -> None:
        for place in range(CONVOLUTIONS):
            found[f"{name}.{place}.conv.weight"] = (width, width if place else incoming, 3, 3, 3)
            for part in ("conv.bias", "norm.weight", "norm.bias"):
                found[f"{name}.{place}.{part}"] = (width,)

    for place, width in enumerate(net.widths):
        level(f"down.{place}", net.widths[place - 1] if place else net.channels, width)
    for place in reversed(range(len(net.widths) - 1)):
        width = net.widths[place]
        found[f"up.{place}.weight"] = (net.widths[place + 1], width, 2, 2, 2)
        level(f"merge.{place}", 2 * width, width)
    found["head.weight"] = (net.classes, net.widths[0], 1, 1, 1)
    return found


def synthetic(net: UNet, seed: int) -> dict[str, Array]:
    """Seeded weights; normalisation after each convolution keeps activations in a sane range by itself."""
    draw = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for name, shape in shapes(net).items():
        if len(shape) == 5:
            spread = (2 / prod(shape[1:])) ** 0.5
            weights[name] = draw.standard_normal(shape, np.float32) * np.float32(spread)
        else:
            weights[name] = np.full(shape, 1.0 if name.endswith("norm.weight") else 0.0, np.float32)
    return weights
