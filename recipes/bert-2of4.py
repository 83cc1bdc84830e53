# SPDX-License-Identifier: Apache-2.0
"""Give BERT's miniature 2:4 sparse matrices and train it on: ``make train NETWORK=bert-2of4``.

Of each four neighbouring weights of the encoder's matrices the two smaller become zeros and stay so. That is for
GPUs whose matrix units skip such zeros; a CPU computes them like others and gains nothing. It begins with the
miniature that ships. One seed gives one set of weights.
About five minutes.
"""

from __future__ import annotations

from bert import STEPS, Network, layers_of, resumed, run, tune
from septet.workloads.transformer import Bert
from sparsity import Masks
from training import repeatable

TUNING_STEPS = 500


def train(net: Bert, steps: int, seed: int) -> Network:
    """Mask and train on, on tales that the dense network was not trained on."""
    repeatable(seed, threads=1)  # another one draws the tales
    network = resumed(net)
    masks = Masks(
        matrix
        for layer in layers_of(network)
        for matrix in (layer.query, layer.key, layer.value, layer.join, layer.widen, layer.narrow)
    )
    tune(network, steps, STEPS)
    print(f"{100 * masks.share:.1f} % of the encoder's weights are zeros", flush=True)
    return network.eval()


def main() -> None:
    """Mask, train, save, print F1 and exact match."""
    run(__doc__, "bert-2of4", TUNING_STEPS, train)


if __name__ == "__main__":
    main()
