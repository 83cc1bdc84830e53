# SPDX-License-Identifier: Apache-2.0
"""Prune BERT's miniature and train it on: ``make train NETWORK=bert-sparse``.

Whole heads and whole columns between go, those that matter least, in stages with training after each; so the
matrices are smaller and any engine is faster by it. It begins with the miniature that ships, and is trained on for
nearly twice as long as that one was: the F1 that it gains is training's, not pruning's. One seed gives one set of
weights.
About ten minutes.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from bert import (
    STEPS,
    WHOLE,
    Batch,
    Network,
    batches,
    layers_of,
    losses,
    resumed,
    run,
    tune,
)
from septet.workloads.transformer import Bert
from sparsity import best, importance, inputs_kept, outputs_kept
from training import repeatable

STAGES = ((0.08, 3, 320), (0.08, 2, 192), (0.84, 2, 128))
"""Which share of the steps each stage has, and how many heads and columns a layer has in it."""

TUNING_STEPS = 1_500
JUDGED = 12
"""What matters is seen on so many batches."""


def prune(network: Network, net: Bert, heads: int, between: int, begin: int) -> None:
    """Leave each layer the `heads` and the columns `between` that matter most for the tales of step `begin`."""
    layers = layers_of(network)
    judged = [partial(_loss, network, step, batch) for step, batch in enumerate(batches(JUDGED, WHOLE, begin))]
    seen = importance(network, [part for layer in layers for part in (layer.join, layer.narrow)], judged)
    for layer, joined, narrowed in zip(layers, seen[::2], seen[1::2], strict=True):
        kept = best(joined, heads, net.head)
        for part in ("query", "key", "value"):
            setattr(layer, part, outputs_kept(getattr(layer, part), kept))
        layer.join, layer.heads = inputs_kept(layer.join, kept), heads
        columns = best(narrowed, between)
        layer.widen, layer.narrow = outputs_kept(layer.widen, columns), inputs_kept(layer.narrow, columns)


def _loss(network: Network, step: int, batch: Batch) -> Tensor:
    return losses(network, step, batch)["loss"]


def train(net: Bert, steps: int, seed: int, stages: tuple[tuple[float, int, int], ...] = STAGES) -> Network:
    """Prune and train, stage by stage, on tales that the dense network was not trained on."""
    repeatable(seed, threads=1)  # another one draws the tales
    network, begin = resumed(net), STEPS
    for share, heads, between in stages:
        prune(network, net, heads, between, begin)
        count = round(share * steps)
        print(f"{heads} heads and {between} columns a layer, {count} steps", flush=True)
        tune(network, count, begin)
        begin += count
    return network.eval()


def main() -> None:
    """Prune, train, save, print F1 and exact match."""
    run(__doc__, "bert-sparse", TUNING_STEPS, train)


if __name__ == "__main__":
    main()
