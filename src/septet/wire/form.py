# SPDX-License-Identifier: Apache-2.0
"""What requests have in common that differ in the elements of their tensors alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from septet.request import Request, Response, Wanted
from septet.tensor import Array, Buffer
from septet.wire.head import Head, Input, reader_of
from septet.wire.memory import Memory
from septet.wire.shm import Regions

ANSWERS = 16
"""Kinds of answers to one form that are remembered."""


def in_binary(place: Wanted | None, otherwise: bool) -> bool:
    """Whether an output goes out in binary: as it was asked for, if it was, or as the whole request says."""
    return otherwise if place is None or place.binary is None else place.binary


@dataclass(slots=True, eq=False)
class Form:
    """A document of `length` bytes that was read before: its `head`, and whether outputs that say nothing of it go
    out in `binary`.

    What was found out of one request of a form, elements apart, holds for the next.
    """

    head: Head
    binary: bool
    length: int
    size: int = field(init=False)
    """Bytes of a body that has every tensor which is in no region, the document included; -1 where a tensor is no
    view of it, or of what its region holds."""
    raw: bool = field(init=False)
    """Whether all outputs go out in binary as the model gives them."""
    beginnings: Memory = field(default_factory=lambda: Memory(ANSWERS))
    """What answers begin with, by `kind`."""
    _places: list[tuple[Input, int, Array | None]] = field(default_factory=list)
    """Of each tensor, where it begins in a body, or else what stands for it until it is read."""

    def __post_init__(self) -> None:
        head, end = self.head, self.length
        for tensor in head.inputs:
            self._places.append((tensor, end, tensor.hollow() if tensor.stays else None))
            end += 0 if tensor.region else tensor.nbytes
        sizes = [tensor.region.size if tensor.region else tensor.size for tensor in head.inputs]
        views = sizes == [tensor.nbytes for tensor in head.inputs]
        views = views and len({tensor.name for tensor in head.inputs}) == len(head.inputs)
        here = all(wanted.region is None for wanted in head.wanted)
        self.size = end if views and here else -1
        binary = all(in_binary(wanted, self.binary) for wanted in head.wanted or (None,))
        self.raw = binary and here and not any(wanted.classes for wanted in head.wanted)

    def request(self, body: Buffer, regions: Regions) -> Request:
        """The request in a `body` of this form and `size`. Raises the errors of `Regions.read`."""
        head = self.head
        inputs: dict[str, Array] = {}
        lying: dict[str, Callable[[], Array]] = {}
        for tensor, place, hollow in self._places:
            if tensor.region is None:
                inputs[tensor.name] = np.ndarray(tensor.shape, tensor.dtype, body, place)
            elif hollow is None:
                inputs[tensor.name] = reader_of(tensor, regions)()
            else:
                inputs[tensor.name] = hollow
                lying[tensor.name] = reader_of(tensor, regions)
        request = Request(head.model, inputs, head.version, head.id, head.wanted, dict(head.parameters))
        request.likeness = head
        request.lying = lying
        return request

    def kind(self, response: Response) -> tuple[object, ...] | None:
        """What two answers have alike that begin alike; ``None`` where that takes more than a look."""
        if response.error is not None or response.parameters or not self.raw:
            return None
        outputs = response.outputs
        return (response.version, *[(name, array.dtype, array.shape) for name, array in outputs.items()])
