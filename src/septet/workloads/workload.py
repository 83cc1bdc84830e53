# SPDX-License-Identifier: Apache-2.0
"""The promise that every workload keeps, and the one table of workloads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import ClassVar, Literal

import numpy as np

from septet.errors import DataError, UnknownNetwork, UsageError
from septet.tensor import Array, Tensors
from septet.workloads.card import Card
from septet.workloads.fetch import data_dir
from septet.workloads.predictor import LoadEngine, Predictor
from septet.workloads.weights import Origin, shipped

Size = Literal["full", "mini"]

WORKLOADS: dict[str, str] = {
    "resnet50": "septet.workloads.resnet50:ResNet50",
    "ssd-mobilenet": "septet.workloads.ssd_mobilenet:SsdMobileNet",
    "ssd-resnet34": "septet.workloads.ssd_resnet34:SsdResNet34",
    "bert": "septet.workloads.bert:Bert",
    "rnnt": "septet.workloads.rnnt:Rnnt",
    "3d-unet": "septet.workloads.unet3d:UNet3D",
    "dlrm": "septet.workloads.dlrm:Dlrm",
    "null": "septet.workloads.null:NullWorkload",
}
"""Network name, as MLPerf spells it -> dotted name of its class. ``null`` is the null member."""


@dataclass(frozen=True)
class Asked:
    """What the user said about model and data; ``None`` where nothing was said.

    `weights` is ``auto``, ``official``, ``synthetic`` or the path of an ONNX file. `precision` is what the engine
    will compute in: DLRM's own files have int8 rows where it is ``int8``.
    """

    weights: str = "auto"
    data: Path | None = None
    precision: str = "f32"


@dataclass(frozen=True)
class Score:
    """A metric over a set of samples.

    `value`, `low` and `high` are in `unit`; `low` and `high` bound a 95 % confidence interval.
    `per_sample` is float64[samples], the metric's part of each sample in the order of the data set, so
    that two scores over the same samples can be compared pair by pair: their mean is proportional to
    `value`, and 1 is about what a sample wholly right adds. `graded` says that a small change of outputs
    changes parts a little; otherwise a sample's part stays or jumps, as right and wrong do. `beside` holds
    further figures, in the same unit, that are shown and not judged.
    """

    metric: str
    unit: str
    value: float
    low: float
    high: float
    per_sample: Array = field(repr=False)
    graded: bool = False
    beside: Mapping[str, float] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        return len(self.per_sample)


class Workload(ABC):
    """A network with its weights, its data, its pipeline and its metric.

    Opening one (`open`) settles where weights and data come from. Nothing heavy stays in memory until
    `sample` is called.
    """

    name: ClassVar[str]
    card: ClassVar[Card]
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
        """Find weights and data; a miniature has its own. Raises ModelError, FetchError, DataError, UsageError."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples in the data set."""

    @abstractmethod
    def sample(self, index: int) -> Tensors:
        """Sample `index` after preprocessing, without batch dimension. Raises DataError, naming the file."""

    @abstractmethod
    def predictor(self, load: LoadEngine) -> Predictor:
        """What answers batches, on engines that `load` loads. Raises whatever `load` raises, ModelInvalid."""

    @property
    @abstractmethod
    def scored(self) -> bool:
        """Whether accuracy means something here: trained weights and labelled data."""

    @abstractmethod
    def score(self, responses: Mapping[int, bytes]) -> Score:
        """The metric of `responses`, the logged bytes of the predictor's rows by sample index.

        Raises DataError where a sample has no response.
        """

    def keep(self, responses: Mapping[int, bytes], folder: Path) -> None:  # noqa: B027  (most keep nothing)
        """Write the answers into `folder` in the field's own format, where the data has one: 3D U-Net's NIfTI."""

    def answers(self, responses: Mapping[int, bytes]) -> list[bytes]:
        """All responses in the order of the data set. Raises DataError where a sample has none."""
        missing = next((index for index in range(len(self)) if index not in responses), None)
        if missing is not None:
            raise DataError(f"{self.data}: sample {missing} has no answer")
        return [responses[index] for index in range(len(self))]

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
    """Open the workload called `network`; at full size, data that was not asked for is looked for in its
    `data_dir`. Raises UnknownNetwork and whatever its `open` raises."""
    kind = workload_class(network)
    if size == "mini" and network not in (*miniatures(), "null"):
        raise UsageError(f"{network}: no trained miniature ships yet; --size full runs the network")
    if size == "mini" and network != "null" and (asked.weights != "auto" or asked.data is not None):
        raise UsageError("the miniature has its own weights and data: --weights and --data go with --size full")
    if size == "full" and asked.data is None and data_dir(network).is_dir():
        asked = replace(asked, data=data_dir(network))
    return kind.open(size, asked)


def networks() -> list[str]:
    """The networks that can be run, without the null member."""
    return [name for name in WORKLOADS if name != "null"]


def miniatures() -> list[str]:
    """The networks whose miniature ships with trained weights."""
    return [name for name in networks() if shipped(name).is_file()]
