# SPDX-License-Identifier: Apache-2.0
"""What a model takes and gives, as its configuration says it, and whether a request fits."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from septet.errors import RequestInvalid
from septet.model_config.config import Input, ModelConfig, Output
from septet.request import Request
from septet.tensor import KSERVE_DTYPES, KSERVE_NAMES, Array


def dtype_of(data_type: str) -> np.dtype[Any]:
    """The dtype of a configuration's ``TYPE_…``."""
    name = data_type.removeprefix("TYPE_")
    return KSERVE_DTYPES["BYTES" if name == "STRING" else name]


def data_type_of(dtype: np.dtype[Any]) -> str:
    """The ``TYPE_…`` of a dtype."""
    name = KSERVE_NAMES[dtype]
    return f"TYPE_{'STRING' if name == 'BYTES' else name}"


@dataclass(frozen=True, slots=True)
class Slot:
    """One input or output: `dims` without the batch's dimension, -1 free; `reshape` is the file's shape."""

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int, ...]
    reshape: tuple[int, ...] | None
    optional: bool
    ragged: bool
    fixed: bool
    required: tuple[tuple[int, int], ...]
    """Place and size of every dimension that is not free."""

    @classmethod
    def of(cls, tensor: Input | Output) -> Slot:
        """The slot that a configuration describes."""
        return cls(
            tensor.name,
            dtype_of(tensor.data_type),
            tensor.dims,
            tensor.reshape.shape if tensor.reshape else None,
            isinstance(tensor, Input) and tensor.optional,
            isinstance(tensor, Input) and tensor.allow_ragged_batch,
            -1 not in tensor.dims,
            tuple((place, dim) for place, dim in enumerate(tensor.dims) if dim != -1),
        )

    def admits(self, dims: tuple[int, ...]) -> bool:
        """Whether a tensor of these dimensions, without the batch's, is one of these."""
        if self.fixed:
            return dims == self.dims
        if len(dims) != len(self.dims):
            return False
        return not self.required or all(dims[place] == dim for place, dim in self.required)


class Signature:
    """Inputs and outputs of a model, and the check that each request passes before it is queued."""

    def __init__(self, config: ModelConfig) -> None:
        self.model = config.name
        self.max_batch = config.max_batch_size
        self.inputs = {each.name: Slot.of(each) for each in config.input}
        self.outputs = {each.name: Slot.of(each) for each in config.output}
        self._free = [slot.name for slot in self.inputs.values() if not (slot.fixed or slot.ragged)]
        self._optional = any(slot.optional for slot in self.inputs.values())
        self._required = {slot.name for slot in self.inputs.values() if not slot.optional}
        self.uniform = not self._free and not self._optional

    def check(self, request: Request) -> int:
        """How many samples `request` brings: 1 without a batch dimension. Raises RequestInvalid."""
        found = self.inputs
        size: int | None = None
        for name, array in request.inputs.items():
            slot = found.get(name)
            if slot is None:
                raise RequestInvalid(f"model '{self.model}' has no input '{name}'")
            if array.dtype != slot.dtype:
                raise RequestInvalid(self._mistyped(slot, array))
            shape = array.shape
            if self.max_batch:
                if not shape or not slot.admits(shape[1:]):
                    raise RequestInvalid(self._misshapen(slot, shape))
                if size is None:
                    size = shape[0]
                elif size != shape[0]:
                    raise RequestInvalid(self._uneven(name, shape[0], size))
            elif not slot.admits(shape):
                raise RequestInvalid(self._misshapen(slot, shape))
        if len(request.inputs) != len(found) and not self._required <= request.inputs.keys():
            raise RequestInvalid(self._missing(request))
        if request.wanted:
            self._check_wanted(request)
        if not self.max_batch:
            return 1
        if not size or size > self.max_batch:
            raise RequestInvalid(
                f"batch size {size or 0} is not between 1 and {self.max_batch} for '{self.model}'"
            )
        return size

    def key(self, request: Request) -> Hashable:
        """What two requests must have alike to share a batch: free dimensions, and which inputs are there."""
        inputs = request.inputs
        shapes = tuple([inputs[name].shape[1:] for name in self._free if name in inputs])
        return (shapes, frozenset(inputs)) if self._optional else shapes

    def _check_wanted(self, request: Request) -> None:
        seen = set()
        for wanted in request.wanted:
            if wanted.name not in self.outputs:
                raise RequestInvalid(f"model '{self.model}' has no output '{wanted.name}'")
            if wanted.name in seen:
                raise RequestInvalid(f"output '{wanted.name}' is asked for twice")
            seen.add(wanted.name)

    def _mistyped(self, slot: Slot, array: Array) -> str:
        have = KSERVE_NAMES.get(array.dtype, str(array.dtype))
        return f"input '{slot.name}' is {have}, but model '{self.model}' takes {KSERVE_NAMES[slot.dtype]}"

    def _misshapen(self, slot: Slot, shape: tuple[int, ...]) -> str:
        want = [-1, *slot.dims] if self.max_batch else list(slot.dims)
        return (
            f"unexpected shape for input '{slot.name}' for model '{self.model}': "
            f"expected {_dims(want)}, got {_dims(shape)}"
        )

    def _uneven(self, name: str, size: int, others: int) -> str:
        return f"input '{name}' of '{self.model}' has batch size {size}, others have {others}"

    def _missing(self, request: Request) -> str:
        missing = ", ".join(f"'{name}'" for name in self.inputs if name in self._required - request.inputs.keys())
        have = len(self._required & request.inputs.keys())
        return (
            f"expected {len(self._required)} inputs but got {have} inputs for model "
            f"'{self.model}': missing {missing}"
        )


def _dims(dims: Sequence[int]) -> str:
    return f"[{','.join(map(str, dims))}]"
