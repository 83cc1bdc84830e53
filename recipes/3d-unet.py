# SPDX-License-Identifier: Apache-2.0
"""Train 3D U-Net's miniature on made-up heads: ``make train NETWORK=3d-unet``.

The torch module mirrors the ONNX graph of `septet.workloads.unet` weight for weight.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from septet.pipelines.volume import prepare
from septet.tensor import Array
from septet.workloads.brats import dice, mean_of_regions
from septet.workloads.split import Split
from septet.workloads.tumours import Heads
from septet.workloads.unet import CONVOLUTIONS, SLOPE, UNET_3D_MINI, UNet, shapes
from training import Losses, asked, drawn_ahead, fit, repeatable, save

BATCH = 4
STEPS = 800
PEAK_RATE = 6e-3
WEIGHT_DECAY = 1e-4


class Level(nn.Module):
    """Convolution, normalisation and leaky ReLU, twice."""

    def __init__(self, incoming: int, width: int, stride: int = 1) -> None:
        super().__init__()
        for place in range(CONVOLUTIONS):
            part = nn.Module()
            part.conv = nn.Conv3d(width if place else incoming, width, 3, 1 if place else stride, 1)
            part.norm = nn.InstanceNorm3d(width, affine=True)
            self.add_module(str(place), part)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.children():
            x = F.leaky_relu(part.norm(part.conv(x)), SLOPE)
        return x


class Network(nn.Module):
    """`net` in torch: float32 [N, channels, X, Y, Z] -> logits [N, classes, X, Y, Z]."""

    def __init__(self, net: UNet) -> None:
        super().__init__()
        incoming = (net.channels, *net.widths)
        self.down = nn.ModuleList(
            [Level(incoming[place], width, 2 if place else 1) for place, width in enumerate(net.widths)]
        )
        inner = list(zip(net.widths[1:], net.widths, strict=False))
        self.up = nn.ModuleList([nn.ConvTranspose3d(deep, width, 2, 2, bias=False) for deep, width in inner])
        self.merge = nn.ModuleList([Level(2 * width, width) for _, width in inner])
        self.head = nn.Conv3d(net.widths[0], net.classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level in self.down:
            x = level(x)
            skips.append(x)
        for place in reversed(range(len(self.up))):
            x = self.merge[place](torch.cat([self.up[place](x), skips[place]], 1))
        logits: Tensor = self.head(x)
        return logits


def samples(split: Split, begin: int, count: int, net: UNet) -> tuple[Array, Array]:
    """Prepared volumes begin … begin + count and their classes: float32 [count, 4, …] and int64 [count, …]."""
    heads = Heads(split)
    volumes, classes = [], []
    for index in range(begin, begin + count):
        prepared = prepare(heads.volume(index), net.volume, heads.name(index))
        padded = np.zeros(net.volume, np.int64)
        padded[prepared.inside] = heads.labels(index)[prepared.box]
        volumes.append(prepared.tensor)
        classes.append(padded)
    return np.stack(volumes), np.stack(classes)


def batches(steps: int, net: UNet) -> Iterator[tuple[Tensor, Tensor]]:
    """Fresh volumes for each step."""
    for volumes, classes in drawn_ahead(lambda step: samples("train", step * BATCH, BATCH, net), steps):
        yield torch.from_numpy(volumes), torch.from_numpy(classes)


def loss_of(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy and one minus the soft Dice score of the classes, as nnU-Net trains."""
    chances = logits.softmax(1)[:, 1:]
    truth = F.one_hot(classes, logits.shape[1]).movedim(-1, 1)[:, 1:]
    both = (chances * truth).sum((0, 2, 3, 4))
    soft = (2 * both + 1) / (chances.sum((0, 2, 3, 4)) + truth.sum((0, 2, 3, 4)) + 1)
    return F.cross_entropy(logits, classes) + 1 - soft.mean()


def train(net: UNet, steps: int, seed: int) -> Network:
    """Train from scratch."""
    repeatable(seed, threads=1)  # volumes are drawn on another
    network = Network(net)

    def losses(step: int, batch: tuple[Tensor, Tensor]) -> Losses:
        volumes, classes = batch
        return {"loss": loss_of(network(volumes), classes)}

    fit(network.parameters(), batches(steps, net), losses, steps=steps, rate=PEAK_RATE, decay=WEIGHT_DECAY)
    return network.eval()


def weights_of(network: Network, net: UNet) -> dict[str, Array]:
    """The trained weights by the names of `shapes`, in float16, which costs no accuracy."""
    state = network.state_dict()
    return {name: state[name].numpy().astype(np.float16) for name in shapes(net)}


def mean_dice(network: Network, split: Split, count: int, net: UNet) -> str:
    """The mean Dice score over `count` volumes of `split` with its 95 % interval, as `septet bench` scores them,
    in words. No tumour reaches out of the head, so that prepared volumes score as their sources."""
    scores = []
    with torch.inference_mode():
        for index in range(count):
            volumes, classes = samples(split, index, 1, net)
            answer = network(torch.from_numpy(volumes)).argmax(1)[0].numpy()
            scores.append(dice(answer, classes[0]))
    score = mean_of_regions(np.array(scores))
    return f"mean Dice on {split}: {score.value:.4f} ({score.low:.4f} … {score.high:.4f}), {count} volumes"


def main() -> None:
    """Train, print the Dice score, save."""
    said = asked(__doc__, "3d-unet", seed=3, steps=STEPS)
    network = train(UNET_3D_MINI, said.steps, said.seed)
    for split in ("search", "test"):
        print(mean_dice(network, split, 100, UNET_3D_MINI), flush=True)
    save(weights_of(network, UNET_3D_MINI), said.out)


if __name__ == "__main__":
    main()
