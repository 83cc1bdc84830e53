# SPDX-License-Identifier: Apache-2.0
"""Join the tensors of several requests into one batch, and cut the batch's outputs into answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from septet.errors import InferenceFailed
from septet.model_config.config import ModelConfig
from septet.request import Request
from septet.serving.pending import Pending
from septet.serving.ragged import Ragged
from septet.serving.signature import Signature, Slot
from septet.tensor import KSERVE_NAMES, Array, Tensors


class Gather:
    """Joins and cuts by one configuration."""

    def __init__(self, config: ModelConfig, signature: Signature) -> None:
        self._batched = config.max_batch_size > 0
        self._ragged = Ragged(config) if config.batch_input or config.batch_output or _ragged(config) else None
        self._reshaped = [slot for slot in signature.inputs.values() if slot.reshape is not None]
        self._outputs = list(signature.outputs.values())

    def join(self, batch: Sequence[Pending]) -> dict[str, Array]:
        """All requests' inputs as the model's file takes them. One request alone is not copied."""
        if self._ragged is not None:
            tensors = self._ragged.join([pending.request for pending in batch])
        elif len(batch) == 1:
            tensors = dict(batch[0].request.inputs)
        else:
            requests = [pending.request.inputs for pending in batch]
            tensors = {name: np.concatenate([inputs[name] for inputs in requests]) for name in requests[0]}
        for slot in self._reshaped:
            if slot.name in tensors:
                array = tensors[slot.name]
                tensors[slot.name] = array.reshape(reshaped(array.shape, slot, self._batched))
        return tensors

    def answer(self, batch: Sequence[Pending], outputs: Tensors) -> None:
        """Answer every request with its part of `outputs`. Raises InferenceFailed, before any is answered, where
        an output is missing or its first dimension is not the batch's."""
        if not self._batched:
            whole = {slot.name: self._whole(slot, outputs) for slot in self._outputs}
            for pending in batch:
                pending.succeed(_asked(pending.request, whole))
            return
        total = 0
        for pending in batch:
            total += pending.size
        if self._ragged is not None and self._ragged.scatters:
            self._answer_ragged(batch, outputs, total)
            return
        joined = [(slot.name, self._joined(slot, outputs, total)) for slot in self._outputs]
        if len(batch) == 1:
            batch[0].succeed(_asked(batch[0].request, dict(joined)))
            return
        begin = 0
        for pending in batch:
            end = begin + pending.size
            pending.succeed(_asked(pending.request, {name: array[begin:end] for name, array in joined}))
            begin = end

    def _answer_ragged(self, batch: Sequence[Pending], outputs: Tensors, total: int) -> None:
        assert self._ragged is not None
        requests = [pending.request for pending in batch]
        parts: dict[str, list[Array]] = {}
        for slot in self._outputs:
            array = _given(slot, outputs)
            if slot.name in self._ragged.scatters:
                parts[slot.name] = self._ragged.scatter(slot.name, array, requests)
            else:
                array = self._joined(slot, outputs, total)
                ends = np.cumsum([pending.size for pending in batch])[:-1]
                parts[slot.name] = np.split(array, ends)
        for index, pending in enumerate(batch):
            pending.succeed(_asked(pending.request, {name: each[index] for name, each in parts.items()}))

    def _joined(self, slot: Slot, outputs: Tensors, total: int) -> Array:
        array = _given(slot, outputs)
        if array.ndim == 0 or array.shape[0] != total:
            raise InferenceFailed(
                f"output '{slot.name}' has shape {list(array.shape)}: it does not begin with the batch's {total}"
            )
        return array if slot.reshape is None else array.reshape(array.shape[:1] + _undone(array.shape[1:], slot))

    def _whole(self, slot: Slot, outputs: Tensors) -> Array:
        array = _given(slot, outputs)
        return array if slot.reshape is None else array.reshape(_undone(array.shape, slot))


def _asked(request: Request, outputs: dict[str, Array]) -> dict[str, Array]:
    """Those of `outputs` that `request` wants."""
    if not request.wanted:
        return outputs
    return {wanted.name: outputs[wanted.name] for wanted in request.wanted}


def _ragged(config: ModelConfig) -> bool:
    return any(each.allow_ragged_batch for each in config.input)


def _given(slot: Slot, outputs: Tensors) -> Array:
    array = outputs.get(slot.name)
    if array is None:
        raise InferenceFailed(f"the model gave no output '{slot.name}'")
    if array.dtype != slot.dtype:
        have = KSERVE_NAMES.get(array.dtype, str(array.dtype))
        raise InferenceFailed(f"output '{slot.name}' came as {have}, not as {KSERVE_NAMES[slot.dtype]}")
    return array


def reshaped(shape: tuple[int, ...], slot: Slot, batched: bool) -> tuple[int, ...]:
    """The shape in which the model's file takes a tensor of `shape`."""
    lead, dims = (shape[:1], shape[1:]) if batched else ((), shape)
    free = iter([have for want, have in zip(slot.dims, dims, strict=True) if want == -1])
    return lead + tuple(next(free) if dim == -1 else dim for dim in slot.reshape or ())


def _undone(shape: tuple[int, ...], slot: Slot) -> tuple[int, ...]:
    """The dims that clients see, of a tensor that the file gave without its batch's dimension as `shape`."""
    if len(shape) != len(slot.reshape or ()):
        raise InferenceFailed(
            f"output '{slot.name}' came with dimensions {list(shape)}, not {list(slot.reshape or ())}"
        )
    free = iter([have for want, have in zip(slot.reshape or (), shape, strict=True) if want == -1])
    return tuple(next(free) if dim == -1 else dim for dim in slot.dims)
