# SPDX-License-Identifier: Apache-2.0
"""The query sample library: preprocessed samples held in memory while a test runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from septet.tensor import Array, Tensors
from septet.workloads.workload import Workload


class Library:
    """Loads samples of a workload and joins them into batches.

    Samples of one common shape are kept as one array per tensor, so that a batch is one indexed copy and
    a single sample is a view that copies nothing; others, and those of a workload that joins them in its own
    way, are kept apart and joined by the workload.
    """

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._stackable = type(workload).collate is Workload.collate
        self._rows: Array = np.full(len(workload), -1, np.int64)
        self._packed: dict[str, Array] = {}
        self._apart: list[Tensors] = []
        self._lengths: Array | None = None

    def load(
        self, indices: Sequence[int], progress: Callable[[int], None] = lambda done: None, threads: int = 1
    ) -> None:
        """Load the samples `indices` on so many `threads`, replacing what was loaded; `progress` gets the number
        done so far."""
        self.unload()
        samples: list[Tensors] = []
        with ThreadPoolExecutor(threads) as pool:
            for sample in pool.map(self._workload.sample, indices):
                samples.append(sample)
                progress(len(samples))
        self._rows[np.asarray(indices)] = np.arange(len(samples))
        lengths = np.array([self._workload.length(sample) for sample in samples], np.int64)
        self._lengths = None if len(set(lengths.tolist())) < 2 else lengths
        if self._stackable and _alike(samples):
            self._packed = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
        else:
            self._apart = samples

    def unload(self) -> None:
        """Forget all loaded samples."""
        self._rows[:] = -1
        self._packed, self._apart, self._lengths = {}, [], None

    def lengths(self, indices: Sequence[int]) -> Array | None:
        """The workload's lengths of loaded samples, int64 [len(indices)]; None where all loaded have the same."""
        return None if self._lengths is None else self._lengths[self._rows[np.asarray(indices)]]

    def by_length(self) -> list[int]:
        """The loaded samples, shortest first; as they were loaded where all have the same length."""
        loaded = np.flatnonzero(self._rows >= 0)
        lengths = self.lengths(loaded.tolist())
        order = loaded if lengths is None else loaded[np.argsort(lengths, kind="stable")]
        return [int(index) for index in order]

    def of_each_length(self) -> list[int]:
        """One loaded sample of each length, the longest first."""
        order = self.by_length()[::-1]
        lengths = self.lengths(order)
        return order[:1] if lengths is None else [order[at] for at in np.unique(-lengths, return_index=True)[1]]

    def gather(self, indices: Sequence[int]) -> Tensors:
        """The loaded samples `indices` as one batch, in that order. Raises KeyError if one is not loaded."""
        rows = self._rows[np.asarray(indices)]
        if (rows < 0).any():
            raise KeyError(f"sample {indices[int(np.argmax(rows < 0))]} is not loaded")
        if self._apart:
            return self._workload.collate([self._apart[row] for row in rows])
        if len(rows) == 1:
            return {name: array[rows[0] : rows[0] + 1] for name, array in self._packed.items()}
        return {name: array.take(rows, axis=0) for name, array in self._packed.items()}


def _alike(samples: Sequence[Tensors]) -> bool:
    shapes = {tuple((name, array.shape) for name, array in sample.items()) for sample in samples}
    return len(shapes) == 1
