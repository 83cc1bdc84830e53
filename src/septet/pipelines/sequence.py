# SPDX-License-Identifier: Apache-2.0
"""Sequences of unlike length: cut off what pads them, join some into a batch no longer than it must be.

The tokens of a network's inputs lie in [N, L, …]; one input, the mask [N, L], is 0 where there is only padding.
Where the network heeds its mask, a sequence's answers are the same at its own length as padded to any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from septet.tensor import Array, Tensors

STEP = 8
"""Sequences go in lengths that are multiples of this, the buckets: engines compile for each new length, and the
padding that is left costs about 2 % of SQuAD's tokens."""


@dataclass(frozen=True)
class Sequences:
    """The tensors of a network that have a place for each token.

    `inputs` are [N, L, …], `mask`, [N, L], is one of them; `outputs` maps a name to which of its dimensions is
    that of tokens. The network takes sequences of at most `longest` tokens; None: of any number.
    """

    inputs: tuple[str, ...]
    mask: str
    outputs: Mapping[str, int]
    longest: int | None = None

    def bucket(self, length: int) -> int:
        """The length at which the engine gets a sequence of `length` tokens."""
        up = -(-length // STEP) * STEP
        return up if self.longest is None else max(min(up, self.longest), length)

    def length(self, sample: Tensors) -> int:
        """How many tokens a sample (no batch dimension) has up to its last that is not padding; 1 at least."""
        return int(self.lengths({self.mask: sample[self.mask][None]})[0])

    def lengths(self, batch: Tensors) -> Array:
        """The same of each sample of a batch: int64 [N]."""
        mask = batch[self.mask] != 0
        found: Array = np.where(mask.any(axis=1), mask.shape[1] - mask[:, ::-1].argmax(axis=1), 1)
        return found

    def cut(self, sample: Tensors) -> Tensors:
        """`sample` without its padding."""
        length = self.length(sample)
        return {name: array[:length] if name in self.inputs else array for name, array in sample.items()}

    def join(self, samples: Sequence[Tensors]) -> Tensors:
        """One batch of samples of any lengths, padded with zeros to the bucket of the longest."""
        length = self.bucket(max(len(sample[self.mask]) for sample in samples))
        return {
            name: _padded([sample[name] for sample in samples], length)
            if name in self.inputs
            else np.stack([sample[name] for sample in samples])
            for name in samples[0]
        }

    def part(self, outputs: Tensors, lengths: Array) -> list[Tensors]:
        """The outputs of each sample, without batch dimension, as long as the sample is."""
        return [
            {name: self._own(name, array[row], length) for name, array in outputs.items()}
            for row, length in enumerate(lengths.tolist())
        ]

    def _own(self, name: str, array: Array, length: int) -> Array:
        axis = self.outputs.get(name)
        return array if axis is None else array[(*[slice(None)] * (axis - 1), slice(length))]


def _padded(rows: Sequence[Array], length: int) -> Array:
    joined = np.zeros((len(rows), length, *rows[0].shape[1:]), rows[0].dtype)
    for to, row in zip(joined, rows, strict=True):
        to[: len(row)] = row
    return joined
