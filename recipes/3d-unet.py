# SPDX-License-Identifier: Apache-2.0
"""Train 3D U-Net's miniature on made-up heads: ``make train NETWORK=3d-unet``.

The torch module mirrors the ONNX graph of `septet.workloads.unet` weight for weight.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from septet.pipelines.volume import prepare
from septet.tensor import Array
from septet.workloads.accuracy import mean
from septet.workloads.brats import dice
from septet.workloads.tumours import Heads, Split
from septet.workloads.unet import CONVOLUTIONS, SLOPE, UNET_3D_MINI, UNet, shapes

try:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F  # noqa: N812
except ModuleNotFoundError:
    sys.exit("Training needs torch: pip install 'septet[train]'")

SHIPPED = Path(__file__).parents[1] / "src/septet/workloads/data/3d-unet-mini.npz"

BATCH = 4
STEPS = 450
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
    """Fresh volumes for each step, drawn one step ahead on another thread."""
    with ThreadPoolExecutor(1) as ahead:
        draw = [ahead.submit(samples, "train", step * BATCH, BATCH, net) for step in range(min(2, steps))]
        for step in range(steps):
            volumes, classes = draw.pop(0).result()
            if step + 2 < steps:
                draw.append(ahead.submit(samples, "train", (step + 2) * BATCH, BATCH, net))
            yield torch.from_numpy(volumes), torch.from_numpy(classes)


def loss_of(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy and one minus the soft Dice score of the classes, as nnU-Net trains."""
    chances = logits.softmax(1)[:, 1:]
    truth = F.one_hot(classes, logits.shape[1]).movedim(-1, 1)[:, 1:]
    both = (chances * truth).sum((0, 2, 3, 4))
    soft = (2 * both + 1) / (chances.sum((0, 2, 3, 4)) + truth.sum((0, 2, 3, 4)) + 1)
    return F.cross_entropy(logits, classes) + 1 - soft.mean()


def train(net: UNet, steps: int, seed: int) -> Network:
    """Train from scratch: AdamW, one cycle of the learning rate."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads such memory
    network = Network(net)
    optimiser = torch.optim.AdamW(network.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=max(steps, 2), pct_start=0.2)
    start = time.perf_counter()
    for step, (volumes, classes) in enumerate(batches(steps, net), 1):
        loss = loss_of(network(volumes), classes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        cycle.step()
        if step % 50 == 0 or step == steps:
            left = (time.perf_counter() - start) / step * (steps - step)
            print(f"step {step} of {steps}: loss {loss.item():.3f}, about {left:.0f} s left", flush=True)
    return network.eval()


def weights_of(network: Network, net: UNet) -> dict[str, Array]:
    """The trained weights by the names of `shapes`, in float16, which costs no accuracy."""
    state = network.state_dict()
    return {name: state[name].numpy().astype(np.float16) for name in shapes(net)}


def mean_dice(network: Network, split: Split, count: int, net: UNet) -> str:
    """The mean Dice score over `count` volumes of `split`, with its 95 % interval, in words."""
    scores = []
    with torch.inference_mode():
        for index in range(count):
            volumes, classes = samples(split, index, 1, net)
            answer = network(torch.from_numpy(volumes)).argmax(1)[0].numpy()
            scores.append(np.nanmean(dice(answer, classes[0])))
    score = mean("mean Dice", "", np.array(scores))
    return f"mean Dice on {split}: {score.value:.4f} ({score.low:.4f} … {score.high:.4f}), {count} volumes"


def main() -> None:
    """Train, print the Dice score, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=SHIPPED, metavar="FILE")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    asked = parser.parse_args()
    network = train(UNET_3D_MINI, asked.steps, asked.seed)
    for split in ("search", "test"):
        print(mean_dice(network, split, 100, UNET_3D_MINI), flush=True)
    arrays: dict[str, Any] = weights_of(network, UNET_3D_MINI)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(asked.out, **arrays)
    print(f"saved: {asked.out}, {asked.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
