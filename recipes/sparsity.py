# SPDX-License-Identifier: Apache-2.0
"""What recipes that prune share: which parts of a matrix matter, matrices made smaller, and 2:4 masks.

How much a part matters is its first-order share of the loss, weight × gradient: Molchanov et al., «Importance
Estimation for Neural Network Pruning», 2019; of attention's heads: Michel et al., «Are Sixteen Heads Really Better
than One?», 2019. 2:4: Mishra et al., «Accelerating Sparse Deep Neural Networks», 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn


def importance(
    network: nn.Module, last: Sequence[nn.Linear], losses: Iterable[Callable[[], Tensor]]
) -> list[Tensor]:
    """How much each input of each of the layers `last` matters, float32 [inputs] each, over all `losses`."""
    found = [torch.zeros(layer.in_features) for layer in last]
    for loss in losses:
        network.zero_grad()
        loss().backward()
        for scores, layer in zip(found, last, strict=True):
            assert layer.weight.grad is not None
            scores += (layer.weight.detach() * layer.weight.grad).sum(dim=0) ** 2
    network.zero_grad()
    return found


def best(scores: Tensor, count: int, group: int = 1) -> Tensor:
    """The places of the `count` groups of `group` neighbours that matter most, in their order: int64."""
    groups = scores.unflatten(0, (-1, group)).sum(dim=1).topk(count).indices.sort().values
    places: Tensor = (groups[:, None] * group + torch.arange(group)).flatten()
    return places


def outputs_kept(layer: nn.Linear, kept: Tensor) -> nn.Linear:
    """A layer of the outputs `kept` alone."""
    return _linear(layer.weight[kept], layer.bias[kept])


def inputs_kept(layer: nn.Linear, kept: Tensor) -> nn.Linear:
    """A layer of the inputs `kept` alone."""
    return _linear(layer.weight[:, kept], layer.bias)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = weight.detach().clone(), bias.detach().clone()
    return layer


def two_of_four(weight: Tensor) -> Tensor:
    """Which weights stay where of each four neighbours along the inputs the two largest do: bool, as `weight`.

    The number of inputs must be a multiple of 4.
    """
    fours = weight.detach().abs().unflatten(-1, (-1, 4))
    mask = torch.zeros_like(fours, dtype=torch.bool)
    mask.scatter_(-1, fours.topk(2, dim=-1).indices, True)
    return mask.flatten(-2)


class Masks:
    """2:4 masks of layers: they hold from the day they are made, through training too."""

    def __init__(self, layers: Iterable[nn.Linear]) -> None:
        self._masks = [(layer, two_of_four(layer.weight)) for layer in layers]
        self.apply()
        for layer, mask in self._masks:
            layer.weight.register_hook(lambda gradient, mask=mask: gradient * mask)

    def apply(self) -> None:
        """Put zeros where the masks say."""
        for layer, mask in self._masks:
            layer.weight.data.mul_(mask)

    @property
    def share(self) -> float:
        """The share of weights that are zeros."""
        zeros = sum(int((layer.weight == 0).sum()) for layer, _ in self._masks)
        return zeros / sum(int(mask.numel()) for _, mask in self._masks)
