# SPDX-License-Identifier: Apache-2.0
"""What a model's process gives, held against what the model is said to give."""

from __future__ import annotations

from typing import Any

import numpy as np

from septet.errors import InferenceFailed, ModelFailed, Status
from septet.serving.pending import Pending
from septet.serving.process.arena import Arena
from septet.serving.process.messages import Given, Packed, unpack
from septet.serving.signature import Signature
from septet.tensor import KSERVE_NAMES, Array
from septet.wire.memory import Memory

_NONE: frozenset[str] = frozenset()


class Responses:
    """Reads the responses of a model of this `signature`."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._seen = Memory()
        """Of outputs that came in a message before, by name, datatype and shape: their dtype and size."""

    def outputs(self, given: Given, pending: Pending, arena: Arena | None) -> dict[str, Array]:
        """A response's tensors, without those that the model is not said to have, as in Triton.

        Raises ModelFailed, InferenceFailed (not what the model is said to give; such a tensor in another's place).
        """
        if given.error is not None:
            raise ModelFailed(
                given.error, Status[given.code] if given.code in Status.__members__ else Status.INTERNAL
            )
        outputs: dict[str, Array] = {}
        wanted = {each.name for each in pending.request.wanted} if pending.request.wanted else _NONE
        unknown = ""
        for packed in given.outputs:
            if packed.name not in self._signature.outputs:
                unknown = f", but '{packed.name}', which it is not said to have"
                continue
            array = self._output(packed, arena)
            if not wanted or packed.name in wanted:
                outputs[packed.name] = array
        expected = wanted or (self._signature.outputs.keys() if unknown else _NONE)
        if missing := expected - outputs.keys():
            raise InferenceFailed(f"the model gave no output '{min(missing)}'{unknown}")
        return outputs

    def _output(self, packed: Packed, arena: Arena | None) -> Array:
        """A tensor of a response. Raises InferenceFailed."""
        about = (packed.name, packed.datatype, packed.shape)
        seen: tuple[np.dtype[Any], int] | None = self._seen.get(about)
        if seen is not None and len(packed.data) == seen[1]:
            return np.ndarray(packed.shape, seen[0], packed.data)
        try:
            array = unpack(packed, arena)
        except ValueError as error:
            raise InferenceFailed(f"output '{packed.name}' is not readable: {error}") from error
        slot = self._signature.outputs[packed.name]
        dims = array.shape[1:] if self._signature.max_batch else array.shape
        if array.dtype != slot.dtype or not slot.admits(dims) or (self._signature.max_batch and not array.ndim):
            want = f"{KSERVE_NAMES[slot.dtype]} {list(slot.dims)}"
            raise InferenceFailed(f"output '{slot.name}' came as {packed.datatype} {list(dims)}, not as {want}")
        if packed.offset < 0 and not array.dtype.hasobject:
            self._seen.keep(about, (array.dtype, array.nbytes))
        return array
