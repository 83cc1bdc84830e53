# SPDX-License-Identifier: Apache-2.0
"""What waits to be answered, and which of it goes into a batch together."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from septet.tensor import Array

SLACK = 1 / 8
"""How much longer than its shortest the longest sample of a batch may be: what is padded costs as much as what is
asked for, and a batch gains less than that on a CPU."""


@dataclass
class _Queue:
    """Samples of one length in the order of their arrival; `turns` says when each came, counted over all, where
    samples have lengths."""

    ids: deque[int] = field(default_factory=deque)
    indices: deque[int] = field(default_factory=deque)
    turns: deque[int] = field(default_factory=deque)


class Waiting:
    """Samples that wait, by length. It is true while any do; no more than one thread may touch it at a time.

    Whoever came first is taken first, and beside it those nearest to it in length: so nobody waits for more
    batches than there were samples before it. Without lengths all are alike, and it is a plain queue.
    """

    def __init__(self) -> None:
        self._queues: dict[int, _Queue] = {}
        self._turn = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, ids: Sequence[int], indices: Sequence[int], lengths: Array | None = None) -> None:
        """Let the query ids `ids` wait for the samples `indices`, whose lengths are int64 [len(ids)].

        What is added at once is taken longest first: a query may be sorted by length (v0.7's rules allow it), and
        with the shortest at the end all workers end at about the same time.
        """
        self._count += len(ids)
        if lengths is None:
            self._extend(0, ids, indices)
            return
        for length in np.unique(lengths)[::-1].tolist():
            alike = np.flatnonzero(lengths == length).tolist()
            queue = self._extend(length, [ids[place] for place in alike], [indices[place] for place in alike])
            queue.turns.extend(range(self._turn, self._turn + len(alike)))
            self._turn += len(alike)

    def _extend(self, length: int, ids: Sequence[int], indices: Sequence[int]) -> _Queue:
        queue = self._queues.setdefault(length, _Queue())
        queue.ids.extend(ids)
        queue.indices.extend(indices)
        return queue

    def take(self, most: int) -> tuple[list[int], list[int]]:
        """The ids and indices of the next batch, at least 1 and at most `most`; there must be some."""
        ids: list[int] = []
        indices: list[int] = []
        for length in self._alike():
            queue = self._queues[length]
            count = min(len(queue.ids), most - len(ids))
            ids += [queue.ids.popleft() for _ in range(count)]
            indices += [queue.indices.popleft() for _ in range(count)]
            if queue.turns:
                for _ in range(count):
                    queue.turns.popleft()
            if not queue.ids:
                del self._queues[length]
            if len(ids) == most:
                break
        self._count -= len(ids)
        return ids, indices

    def _alike(self) -> list[int]:
        """The lengths that may go into one batch: that of whoever came first, then the nearest to it."""
        if len(self._queues) == 1:
            return list(self._queues)
        first = min(self._queues, key=lambda length: self._queues[length].turns[0])
        found, shortest, longest = [], first, first
        for length in sorted(self._queues, key=lambda length: abs(length - first)):
            shortest, longest = min(shortest, length), max(longest, length)
            if longest > (1 + SLACK) * shortest:
                break
            found.append(length)
        return found
