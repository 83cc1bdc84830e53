# SPDX-License-Identifier: Apache-2.0
"""Train DLRM's miniature on click logs of a hidden model: ``make train NETWORK=dlrm``.

The torch module mirrors the ONNX graph of `septet.workloads.recommender` weight for weight.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from septet.pipelines import table
from septet.tensor import Array
from septet.workloads.accuracy import ratio
from septet.workloads.auc import auc
from septet.workloads.clicks import ClickLog, Split
from septet.workloads.recommender import DENSE, DLRM_MINI, Recommender, shapes

try:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F  # noqa: N812
except ModuleNotFoundError:
    sys.exit("Training needs torch: pip install 'septet[train]'")

SHIPPED = Path(__file__).parents[1] / "src/septet/workloads/data/dlrm-mini.npz"

SAMPLES = 16
"""Samples a step: about 4,300 pairs."""

STEPS = 1_000
PEAK_RATE = 5e-3
WEIGHT_DECAY = 1e-3


class Network(nn.Module):
    """`net` in torch: float32 [P, 13] and int64 [P, tables] -> the log-odds of a click, [P]."""

    def __init__(self, net: Recommender) -> None:
        super().__init__()
        self.bot_l = perceptron((DENSE, *net.bottom), last=True)
        self.top_l = perceptron((net.interacted, *net.top), last=False)
        # all tables as one, which torch looks into at once
        self.tables = nn.Embedding(sum(net.rows), net.dim)
        nn.init.normal_(self.tables.weight, std=0.1)
        self.starts = torch.from_numpy(np.cumsum((0, *net.rows[:-1])))
        rows, columns = np.tril_indices(net.vectors, -1)
        self.below = torch.from_numpy(rows * net.vectors + columns)

    def forward(self, dense: Tensor, indices: Tensor) -> Tensor:
        bottom = self.bot_l(dense)
        vectors = torch.cat([bottom[:, None], self.tables(indices + self.starts)], 1)
        products = (vectors @ vectors.transpose(1, 2)).flatten(1).index_select(1, self.below)
        odds: Tensor = self.top_l(torch.cat([bottom, products], 1))
        return odds[:, 0]


def perceptron(widths: tuple[int, ...], *, last: bool) -> nn.Sequential:
    """Linear layers with ReLU between, and after the last one too where `last` says so."""
    layers: list[nn.Module] = []
    for incoming, outgoing in pairwise(widths):
        layers += [nn.Linear(incoming, outgoing), nn.ReLU()]
    return nn.Sequential(*layers if last else layers[:-1])


def samples(split: Split, begin: int, count: int, net: Recommender) -> tuple[Array, Array, Array, Array]:
    """Samples begin … begin + count: dense, indices and clicks of all pairs, and how many pairs each has."""
    log = ClickLog(split)
    drawn = [log.pairs(index) for index in range(begin, begin + count)]
    dense = table.dense(np.concatenate([pairs.counts for pairs in drawn]))
    indices = table.indices(np.concatenate([pairs.categories for pairs in drawn]), net.rows)
    clicks = np.concatenate([pairs.clicks for pairs in drawn])
    return dense, indices, clicks, np.array([len(pairs.clicks) for pairs in drawn])


def batches(steps: int, net: Recommender) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Fresh samples for each step, drawn one step ahead on another thread."""
    with ThreadPoolExecutor(1) as ahead:
        draw = [ahead.submit(samples, "train", step * SAMPLES, SAMPLES, net) for step in range(min(2, steps))]
        for step in range(steps):
            dense, indices, clicks, _ = draw.pop(0).result()
            if step + 2 < steps:
                draw.append(ahead.submit(samples, "train", (step + 2) * SAMPLES, SAMPLES, net))
            yield torch.from_numpy(dense), torch.from_numpy(indices), torch.from_numpy(clicks).float()


def train(net: Recommender, steps: int, seed: int) -> Network:
    """Train from scratch: AdamW, one cycle of the learning rate."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads such memory
    network = Network(net)
    optimiser = torch.optim.AdamW(network.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=max(steps, 2), pct_start=0.2)
    start = time.perf_counter()
    for step, (dense, indices, clicks) in enumerate(batches(steps, net), 1):
        loss = F.binary_cross_entropy_with_logits(network(dense, indices), clicks)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        cycle.step()
        if step % 100 == 0 or step == steps:
            left = (time.perf_counter() - start) / step * (steps - step)
            print(f"step {step} of {steps}: loss {loss.item():.4f}, about {left:.0f} s left", flush=True)
    return network.eval()


def weights_of(network: Network, net: Recommender) -> dict[str, Array]:
    """The trained weights by the names of `shapes`, in float16, which costs no accuracy."""
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    tables = np.split(state.pop("tables.weight"), np.cumsum(net.rows)[:-1])
    state |= {f"emb_l.{place}.weight": table for place, table in enumerate(tables)}
    return {name: state[name].astype(np.float16) for name in shapes(net)}


def area(network: Network, split: Split, count: int, net: Recommender) -> str:
    """The area under the curve in % over `count` samples of `split`, with its 95 % interval, in words."""
    dense, indices, clicks, sizes = samples(split, 0, count, net)
    with torch.inference_mode():
        odds = network(torch.from_numpy(dense), torch.from_numpy(indices)).numpy()
    _, parts = auc(odds, clicks)
    sums = np.add.reduceat(parts, np.concatenate([[0], np.cumsum(sizes)[:-1]]))
    score = ratio("AUC", "%", sums, sizes.astype(float), scale=100.0)
    return f"AUC on {split}: {score.value:.2f} % ({score.low:.2f} … {score.high:.2f}), {count} samples"


def main() -> None:
    """Train, print the area under the curve, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=SHIPPED, metavar="FILE")
    parser.add_argument("--seed", type=int, default=26)
    parser.add_argument("--steps", type=int, default=STEPS)
    asked = parser.parse_args()
    network = train(DLRM_MINI, asked.steps, asked.seed)
    for split in ("search", "test"):
        print(area(network, split, min(len(ClickLog(split)), 1_000), DLRM_MINI))
    arrays: dict[str, Any] = weights_of(network, DLRM_MINI)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(asked.out, **arrays)
    print(f"saved: {asked.out}, {asked.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
