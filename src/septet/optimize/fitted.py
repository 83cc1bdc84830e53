# SPDX-License-Identifier: Apache-2.0
"""Fitted samples: a user's samples as a network takes them, and what is known of each before it is run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from septet.errors import DataError, NotSequences
from septet.optimize.samples import Samples, digest
from septet.pipelines.sequence import Sequences
from septet.tensor import Array, Tensors, TensorSpec

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Look:
    """What is known of a sample: the shapes of its inputs, but of those that are tokens; how many tokens were
    `given` for it, padding among them, and how many are its `own`, both 0 where it is no sequence; and what tells
    it from others."""

    shapes: Shapes
    given: int
    own: int
    digest: str


class Fitted:
    """`samples` for a network with these `inputs`, without the dimension of batches where each is `alone`.

    Where the network takes `sequences`, samples may be of any length up to its longest, padding included. Every
    sample is looked at once. Raises DataError where one does not fit, NotSequences where the samples show that the
    inputs of one length are not all tokens, or that the mask says something else than which of them are padding.
    """

    def __init__(
        self, samples: Samples, inputs: Sequence[TensorSpec], alone: bool, sequences: Sequences | None
    ) -> None:
        self.words = samples.words
        self.where = samples.where
        self.sequences = sequences
        self.cuts: Sequences | None = None
        """By what padding is cut off and lengths are joined. Until it is set, samples come as they were given, and
        only equal lengths share a call."""
        self._samples = samples
        self._takes = [_taken(spec, alone, sequences) for spec in inputs]
        self._padding: dict[str, object] = {}
        self.looks = [self._look(index) for index in range(len(samples))]

    def __getitem__(self, index: int) -> Tensors:
        """Sample `index` in the inputs' dtypes."""
        return self.cuts.cut(self.given(index)) if self.cuts else self.given(index)

    def given(self, index: int) -> Tensors:
        """The same with its padding. Raises DataError where it does not fit."""
        sample = self._samples[index]
        return {takes.name: self._fit(index, sample, takes) for takes in self._takes}

    def distinct(self) -> list[int]:
        """The places of samples that repeat none before them."""
        first: dict[str, int] = {}
        for index, look in enumerate(self.looks):
            first.setdefault(look.digest, index)
        return list(first.values())

    def calls(self, chosen: Sequence[int], size: int) -> Iterator[list[int]]:
        """`chosen` in calls of at most `size`: samples that fit each other, like lengths together."""
        order = sorted(chosen, key=lambda index: (self._kind(index), self.looks[index].own))
        for _, alike in groupby(order, self._kind):
            some = list(alike)
            yield from (some[begin : begin + size] for begin in range(0, len(some), size))

    def alike(self, chosen: Sequence[int]) -> bool:
        """Whether any of `chosen` can share a call."""
        return len(set(map(self._kind, chosen))) == 1

    def join(self, samples: Sequence[Tensors]) -> Tensors:
        """A batch of samples that fit each other."""
        if self.cuts:
            return self.cuts.join(samples)
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    def part(self, outputs: Tensors, batch: Tensors, rows: Collection[str]) -> list[Tensors]:
        """The outputs of each sample of a `batch`, those that have `rows` without batch dimension, the others
        whole."""
        if self.cuts:
            return self.cuts.part(outputs, self.cuts.lengths(batch))
        count = len(next(iter(batch.values())))
        return [
            {name: array[place] if name in rows else array for name, array in outputs.items()}
            for place in range(count)
        ]

    def _kind(self, index: int) -> tuple[Shapes, int]:
        """What samples must have in common to share a call."""
        look = self.looks[index]
        return look.shapes, 0 if self.cuts else look.given

    def _look(self, index: int) -> Look:
        sample, tokens = self.given(index), self.sequences.inputs if self.sequences else ()
        shapes = tuple(array.shape for name, array in sample.items() if name not in tokens)
        if self.sequences is None:
            return Look(shapes, 0, 0, digest(sample))
        lengths = {len(sample[name]) for name in tokens}
        if len(lengths) > 1:
            raise NotSequences(f"{self.where(index)}: {', '.join(tokens)} have unlike lengths")
        length, longest = lengths.pop(), self.sequences.longest
        if not length or (longest is not None and length > longest):
            most = "any number but none" if longest is None else f"1 to {longest}"
            raise DataError(f"{self.where(index)}: has {length} tokens, the network takes {most}")
        self._require_padding(index, sample, self.sequences)
        return Look(shapes, length, self.sequences.length(sample), digest(sample))

    def _require_padding(self, index: int, sample: Tensors, sequences: Sequences) -> None:
        """Raise NotSequences unless the mask is 1 for tokens and 0 for padding, which is the same in all samples:
        an inverted mask, or one that hides what another input or output is of, would cut off what matters."""
        mask, length = sample[sequences.mask], sequences.length(sample)
        if not mask.any() or not ((mask == 0) | (mask == 1)).all():
            raise NotSequences(f"{self.where(index)}: {sequences.mask} is not 1 for tokens and 0 for padding")
        for name in sequences.inputs:
            for value in np.unique(sample[name][length:]).tolist():
                if self._padding.setdefault(name, value) != value:
                    raise NotSequences(f"{self.where(index)}: {name} is not the same wherever the mask is 0")

    def _fit(self, index: int, sample: Tensors, takes: TensorSpec) -> Array:
        if takes.name not in sample:
            raise DataError(f"{self.where(index)}: has no {takes.name}")
        array = sample[takes.name]
        if not np.can_cast(array.dtype, takes.dtype, "same_kind"):
            have = f"{takes.name} is {array.dtype}"
            raise DataError(f"{self.where(index)}: {have}, the network takes {takes}")
        fitted = np.ascontiguousarray(array, takes.dtype).reshape(array.shape)
        if not takes.admits(fitted):
            have = f"{takes.name} is {list(array.shape)}"
            raise DataError(f"{self.where(index)}: {have}, the network takes {takes}")
        return fitted


def _taken(spec: TensorSpec, alone: bool, sequences: Sequences | None) -> TensorSpec:
    """What a sample must have for an input."""
    shape = spec.shape[1:] if alone else spec.shape
    if sequences and spec.name in sequences.inputs:
        shape = (None, *shape[1:])
    return replace(spec, shape=shape)
