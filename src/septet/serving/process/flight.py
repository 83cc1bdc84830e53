# SPDX-License-Identifier: Apache-2.0
"""A batch that a model's process has, while the loop that sent it does other things."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from septet.serving.brevity import Brevity
from septet.serving.executor import Over
from septet.serving.pending import Pending
from septet.serving.process.messages import Asked
from septet.tensor import Array

LARGEST = 256 << 10
"""Bytes of all inputs of a batch that a loop sends, and of all outputs that it reads."""

MOST_TEXTS = 256
"""In an array; of more it takes too long to find out how long they are."""

UNSAID = 1 << 62
"""More bytes than are ever sent."""


@dataclass(slots=True, eq=False)
class Flight:
    """What was `asked` together; `over` is to be called once nobody waits any more.

    `work` are the ns that this process itself has had with it.
    """

    asked: Sequence[Asked]
    largest: int
    over: Over
    loop: asyncio.AbstractEventLoop
    timer: asyncio.TimerHandle
    work: int = 0
    ended: bool = False
    """Whether ``execute`` has returned."""
    busy: bool = False
    """Whether its answers are being read beside the loop."""


class Fitness:
    """Whether batches are such as a loop may send: of few bytes, with which it is done soon.

    Not the batch, of however many requests, but each of these is to be brief: whoever packs and unpacks them holds
    the interpreter's lock meanwhile, so that on another thread they would hold up the loop as long.
    """

    def __init__(self) -> None:
        self._brevity = Brevity()

    def saw(self, work: int, count: int, largest: int) -> None:
        """To pack and unpack a batch of `count` requests, of `largest` bytes at most, took `work` ns."""
        self._brevity.saw(work // count, largest)

    def __bool__(self) -> bool:
        """Whether any batch is."""
        return bool(self._brevity)

    def admits(self, batch: Sequence[Pending]) -> bool:
        """Whether `batch` is."""
        largest = largest_of(batch)
        return self._brevity.admits(largest) and largest * len(batch) <= LARGEST


def largest_of(batch: Sequence[Pending]) -> int:
    """The bytes of the largest request's inputs."""
    alike = {pending.request.likeness for pending in batch}
    unlike = batch if None in alike or len(alike) > 1 else batch[:1]
    return max([sum([_size(array) for array in pending.request.inputs.values()]) for pending in unlike])


def _size(array: Array) -> int:
    if not array.dtype.hasobject:
        return array.nbytes
    return sum(map(len, array.flat)) if array.size <= MOST_TEXTS else UNSAID
