# SPDX-License-Identifier: Apache-2.0
"""Train DLRM's miniature on click logs of a hidden model: ``make train NETWORK=dlrm``.

The torch module mirrors the ONNX graph of `septet.workloads.recommender` weight for weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from septet.pipelines import table
from septet.score import ratio
from septet.tensor import Array
from septet.workloads.auc import auc
from septet.workloads.clicks import ClickLog
from septet.workloads.recommender import DENSE, DLRM_MINI, Recommender, shapes
from septet.workloads.split import Split
from training import Losses, asked, drawn_ahead, fit, repeatable, save

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
    """Fresh samples for each step."""
    for dense, indices, clicks, _ in drawn_ahead(
        lambda step: samples("train", step * SAMPLES, SAMPLES, net), steps
    ):
        yield torch.from_numpy(dense), torch.from_numpy(indices), torch.from_numpy(clicks).float()


def train(net: Recommender, steps: int, seed: int) -> Network:
    """Train from scratch."""
    repeatable(seed)
    network = Network(net)

    def losses(step: int, batch: tuple[Tensor, Tensor, Tensor]) -> Losses:
        dense, indices, clicks = batch
        return {"loss": F.binary_cross_entropy_with_logits(network(dense, indices), clicks)}

    fit(network.parameters(), batches(steps, net), losses, steps=steps, rate=PEAK_RATE, decay=WEIGHT_DECAY)
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
    said = asked(__doc__, "dlrm", seed=26, steps=STEPS)
    network = train(DLRM_MINI, said.steps, said.seed)
    for split in ("search", "test"):
        print(area(network, split, min(len(ClickLog(split)), 1_000), DLRM_MINI))
    save(weights_of(network, DLRM_MINI), said.out)


if __name__ == "__main__":
    main()
