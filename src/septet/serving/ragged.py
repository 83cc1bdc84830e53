# SPDX-License-Identifier: Apache-2.0
"""Batches of requests whose lengths differ: elements one after the other, and tensors that say where each begins.

The kinds are those of Triton's ``BatchInput``; ``ACCUMULATED_ELEMENT_COUNT_WITH_ZERO`` is what variable-length
attention calls ``cu_seqlens``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np

from septet.model_config.config import BatchInput, ModelConfig
from septet.request import Request
from septet.serving.signature import dtype_of
from septet.tensor import Array

_Shapes = Sequence[tuple[int, ...]]


class Ragged:
    """Joins requests under one configuration with ragged inputs, batch inputs or batch outputs."""

    def __init__(self, config: ModelConfig) -> None:
        self._flat = {each.name for each in config.input if each.allow_ragged_batch}
        self._made = config.batch_input
        self.scatters = {name: cut.source_input[0] for cut in config.batch_output for name in cut.target_name}

    def join(self, requests: Sequence[Request]) -> dict[str, Array]:
        """Plain inputs along the batch, ragged ones as one row of all elements, and what is made of the shapes."""
        first = requests[0].inputs
        joined = {
            name: np.concatenate(
                [each.inputs[name].reshape(-1) if name in self._flat else each.inputs[name] for each in requests]
            )
            for name in first
        }
        for made in self._made:
            shapes = [each.inputs[made.source_input[0]].shape for each in requests]
            joined[made.target_name[0]] = _made(made, shapes)
        return joined

    def scatter(self, name: str, array: Array, requests: Sequence[Request]) -> list[Array]:
        """The part of output `name` of each request, in the shape of the input that the configuration names."""
        shapes = [each.inputs[self.scatters[name]].shape for each in requests]
        ends = list(accumulate(_count(shape) for shape in shapes))
        parts = np.split(array.reshape(-1), ends[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _made(made: BatchInput, shapes: _Shapes) -> Array:
    return _KINDS[made.kind](shapes).astype(dtype_of(made.data_type))


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))


def _samples(shapes: _Shapes) -> list[tuple[int, ...]]:
    """The shape of every sample: a request of batch 2 brings two."""
    return [shape[1:] for shape in shapes for _ in range(shape[0])]


_KINDS: dict[str, Callable[[_Shapes], Array]] = {
    "BATCH_ELEMENT_COUNT": lambda shapes: np.array([_count(shape) for shape in shapes]),
    "BATCH_ACCUMULATED_ELEMENT_COUNT": lambda shapes: np.array(
        list(accumulate(_count(shape) for shape in shapes))
    ),
    "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO": lambda shapes: np.array(
        list(accumulate((_count(shape) for shape in shapes), initial=0))
    ),
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE": lambda shapes: np.zeros(max(_count(shape) for shape in shapes)),
    "BATCH_ITEM_SHAPE": lambda shapes: np.array(_samples(shapes)),
    "BATCH_ITEM_SHAPE_FLATTEN": lambda shapes: np.array(_samples(shapes)).reshape(-1),
}
"""Triton's kinds, as its ``backend_input_collector.cc`` makes them: counts are of requests, shapes of samples."""
