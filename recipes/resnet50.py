# SPDX-License-Identifier: Apache-2.0
"""Train ResNet-50's miniature on digit scenes: ``make train NETWORK=resnet50``.

The torch module mirrors the ONNX graph of `septet.workloads.resnet` weight for weight. One seed gives one set of
weights; another seed gives the same top-1 within its confidence interval.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from septet.pipelines.image import Classifier
from septet.score import wilson
from septet.tensor import Array
from septet.workloads.digits import DigitScenes
from septet.workloads.resnet import EXPANSION, RESNET_MINI, Block, ResNet, blocks, shapes
from septet.workloads.split import Split
from training import Losses, asked, drawn_ahead, fit, repeatable, save

BATCH = 128
STEPS = 2_000
PEAK_RATE = 4e-3
WEIGHT_DECAY = 0.02
SMOOTHING = 0.05
PIXEL_SCALE = 64.0
"""Training sees pixels divided by this; the first convolution takes it back before weights are saved."""


class Bottleneck(nn.Module):
    """One block, with torchvision's names."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        width, outgoing = block.width, block.outgoing
        self.conv1 = nn.Conv2d(block.incoming, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, block.stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outgoing, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outgoing)
        self.downsample = nn.Sequential()
        if block.projects:
            self.downsample = nn.Sequential(
                nn.Conv2d(block.incoming, outgoing, 1, block.stride, bias=False), nn.BatchNorm2d(outgoing)
            )

    def forward(self, source: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(source)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + self.downsample(source))


class Network(nn.Module):
    """`net` in torch: float32 [N, 3, side, side], means subtracted -> logits [N, classes]."""

    def __init__(self, net: ResNet) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, net.width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(net.width)
        self.stages: list[nn.Sequential] = []
        for stage in range(1, 5):
            mine = [Bottleneck(block) for block in blocks(net) if block.name.startswith(f"layer{stage}.")]
            self.stages.append(nn.Sequential(*mine))
            self.add_module(f"layer{stage}", self.stages[-1])
        self.fc = nn.Linear(8 * net.width * EXPANSION, net.classes)

    def forward(self, image: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, 2, 1)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def samples(split: Split, begin: int, count: int, side: int) -> tuple[Array, Array]:
    """Preprocessed scenes begin … begin + count: float32 [count, 3, side, side] and int64 [count]."""
    scenes, prepare = DigitScenes(split), Classifier(side)
    indices = range(begin, begin + count)
    images = np.stack([prepare(scenes.image(index)) for index in indices])
    return images, np.array([scenes.label(index) for index in indices], np.int64)


def batches(steps: int, side: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Fresh scenes for each step."""
    for images, labels in drawn_ahead(lambda step: samples("train", step * BATCH, BATCH, side), steps):
        yield torch.from_numpy(images) / PIXEL_SCALE, torch.from_numpy(labels)


def train(net: ResNet, steps: int, seed: int) -> Network:
    """Train from scratch, with smoothed labels."""
    repeatable(seed)
    network = Network(net)

    def losses(step: int, batch: tuple[Tensor, Tensor]) -> Losses:
        images, labels = batch
        return {"loss": F.cross_entropy(network(images), labels, label_smoothing=SMOOTHING)}

    shown = batches(steps, net.image)
    fit(network.parameters(), shown, losses, steps=steps, rate=PEAK_RATE, decay=WEIGHT_DECAY)
    return network.eval()


def weights_of(network: Network, net: ResNet) -> dict[str, Array]:
    """The trained weights by the names of `shapes`, for pixels that are not scaled."""
    state = {name: tensor.numpy().astype(np.float32) for name, tensor in network.state_dict().items()}
    weights = {name: state[name] for name in shapes(net)}
    weights["conv1.weight"] = weights["conv1.weight"] / np.float32(PIXEL_SCALE)
    return weights


def top1(network: Network, split: Split, count: int, side: int) -> str:
    """Top-1 in % over `count` scenes of `split`, with its 95 % interval, in words."""
    right = 0
    with torch.inference_mode():
        for begin in range(0, count, 500):
            images, labels = samples(split, begin, min(500, count - begin), side)
            answers = network(torch.from_numpy(images) / PIXEL_SCALE).argmax(1)
            right += int((answers == torch.from_numpy(labels)).sum())
    low, high = wilson(right, count)
    return f"top-1 on {split}: {100 * right / count:.2f} % ({100 * low:.2f} … {100 * high:.2f}), {count} scenes"


def main() -> None:
    """Train, print top-1, save."""
    said = asked(__doc__, "resnet50", seed=7, steps=STEPS)
    network = train(RESNET_MINI, said.steps, said.seed)
    for split in ("search", "test"):
        print(top1(network, split, len(DigitScenes(split)), RESNET_MINI.image))
    save(weights_of(network, RESNET_MINI), said.out)


if __name__ == "__main__":
    main()
