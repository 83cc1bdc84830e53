# SPDX-License-Identifier: Apache-2.0
"""The promise that every workload keeps, and the one table of workloads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import ClassVar, Literal

import numpy as np

from septet.errors import UnknownNetwork
from septet.tensor import Array, Tensors

Size = Literal["full", "mini"]
Origin = Literal["official", "user", "trained", "synthetic"]
"""Where weights come from. Synthetic weights are seeded noise: good for speed, never for accuracy."""

WORKLOADS: dict[str, str] = {
    "resnet50": "septet.workloads.resnet50:ResNet50",
    "null": "septet.workloads.null:NullWorkload",
}
"""Network name, as MLPerf spells it -> dotted name of its class. ``null`` is the null member."""


@dataclass(frozen=True)
class Asked:
    """What the user said about model and data; ``None`` where nothing was said.

    `weights` is ``auto``, ``official``, ``synthetic`` or the path of an ONNX file.
    """

    weights: str = "auto"
    data: Path | None = None


@dataclass(frozen=True)
class Score:
    """A metric over a set of samples.

    `value`, `low` and `high` are in `unit`; `low` and `high` bound a 95 % confidence interval.
    `per_sample` is float64[samples], the metric's part of each sample in the order of the data set, so
    that two scores over the same samples can be compared pair by pair.
    """

    metric: str
    unit: str
    value: float
    low: float
    high: float
    per_sample: Array = field(repr=False)

    @property
    def samples(self) -> int:
        return len(self.per_sample)


class Workload(ABC):
    """A network with its weights, its data, its pipeline and its metric.

    Opening one (`open`) settles where weights and data come from. Nothing heavy stays in memory until
    `sample` is called.
    """

    name: ClassVar[str]
    size: Size
    origin: Origin
    model: Path | None
    """The ONNX file that an engine loads; None only for the null workload."""
    data: str
    """The data set in words, such as «digit scenes, test split, 10,000 images»."""
    notes: tuple[str, ...] = ()
    """Lines that every output must show, such as «synthetic weights: speed only»."""

    @classmethod
    @abstractmethod
    def open(cls, size: Size, asked: Asked) -> Workload:
        """Find weights and data. Raises ModelError, FetchError, DataError, UsageError."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples in the data set."""

    @abstractmethod
    def sample(self, index: int) -> Tensors:
        """Sample `index` after preprocessing, without batch dimension. Raises DataError, naming the file."""

    @abstractmethod
    def respond(self, outputs: Tensors) -> Sequence[Array] | Array:
        """The answers that LoadGen gets: one C-contiguous row (or array) a sample, in batch order."""

    @property
    @abstractmethod
    def scored(self) -> bool:
        """Whether accuracy means something here: trained weights and labelled data."""

    @abstractmethod
    def score(self, responses: Mapping[int, bytes]) -> Score:
        """The metric of `responses`, the logged bytes of `respond`'s rows by sample index.

        Raises DataError where a sample has no response.
        """

    def collate(self, samples: Sequence[Tensors]) -> Tensors:
        """Join samples into one batch along a new first dimension."""
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def workload_class(network: str) -> type[Workload]:
    """The class of the workload called `network`. Raises UnknownNetwork."""
    if network not in WORKLOADS:
        raise UnknownNetwork(f"no network is called {network!r}; there are: {', '.join(networks())}")
    found: type[Workload] = resolve_name(WORKLOADS[network])
    return found


def open_workload(network: str, size: Size, asked: Asked) -> Workload:
    """Open the workload called `network`. Raises UnknownNetwork and whatever its `open` raises."""
    return workload_class(network).open(size, asked)


def networks() -> list[str]:
    """The networks that can be run, without the null member."""
    return [name for name in WORKLOADS if name != "null"]
