# SPDX-License-Identifier: Apache-2.0
"""Predictor: everything that v0.7 times between a loaded sample and its answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

import numpy as np

from septet.engines.engine import Engine
from septet.errors import InferenceFailed
from septet.pipelines.sequence import Sequences
from septet.tensor import Array, Tensors

Rows = Sequence[Array] | Array
"""One answer a sample: the rows of an array, or a list of arrays. Each is C-contiguous."""


class Predictor(ABC):
    """Answers batches. It may be called from as many threads at once as its engine has streams."""

    @abstractmethod
    def __call__(self, batch: Tensors) -> Rows:
        """The answers to a batch that the workload collated, in batch order.

        Raises TensorMismatch, InferenceFailed, EngineClosed.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the engines."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Numbers(Mapping[str, Array]):
    """An engine's outputs, each looked at when it is read: NaN and ∞ must not become answers.

    Raises InferenceFailed, naming the output.
    """

    def __init__(self, outputs: Tensors) -> None:
        self._outputs = outputs

    def __getitem__(self, name: str) -> Array:
        array = self._outputs[name]
        if not np.isfinite(array).all():
            raise InferenceFailed(f"the network's output {name!r} holds what is no finite number")
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)


class AskedOnce(Predictor):
    """One engine, which is asked once for each batch, by whoever calls or, between `feeds` and `answers`, by
    somebody who has more to do meanwhile."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(self, batch: Tensors) -> Rows:
        return self.answers(batch, self.engine.infer(self.feeds(batch)))

    def feeds(self, batch: Tensors) -> Tensors:
        """What of a batch the engine is asked."""
        return batch

    @abstractmethod
    def answers(self, batch: Tensors, outputs: Tensors) -> Rows:
        """What the engine's `outputs` for a batch say. Raises InferenceFailed."""

    def close(self) -> None:
        self.engine.close()


class EnginePredictor(AskedOnce):
    """One engine, and what turns its outputs into answers."""

    def __init__(self, engine: Engine, respond: Callable[[Tensors], Rows]) -> None:
        super().__init__(engine)
        self._respond = respond

    def answers(self, batch: Tensors, outputs: Tensors) -> Rows:
        return self._respond(Numbers(outputs))


class SequencePredictor(AskedOnce):
    """One engine for sequences of unlike length: an answer is as long as its sequence.

    `respond` gives an answer for each place of the batch, [N, L, …].
    """

    def __init__(self, engine: Engine, sequences: Sequences, respond: Callable[[Tensors], Array]) -> None:
        super().__init__(engine)
        self._sequences = sequences
        self._respond = respond

    def answers(self, batch: Tensors, outputs: Tensors) -> Rows:
        rows = self._respond(Numbers(outputs))
        lengths = self._sequences.lengths(batch).tolist()
        return [row[:length] for row, length in zip(rows, lengths, strict=True)]


class OneByOne(Predictor):
    """Asks for each sample by itself, whatever the batch."""

    def __init__(self, single: Predictor) -> None:
        self._single = single

    def __call__(self, batch: Tensors) -> Rows:
        count = len(next(iter(batch.values())))
        singles = ({name: array[at : at + 1] for name, array in batch.items()} for at in range(count))
        return [row for single in singles for row in self._single(single)]

    def close(self) -> None:
        self._single.close()
