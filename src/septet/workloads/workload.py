# SPDX-License-Identifier: Apache-2.0
"""The promise that every workload keeps, and the one table of workloads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import ClassVar, Literal

import numpy as np

from septet.engines.engine import LoadEngine
from septet.errors import DataError, UnknownNetwork, UsageError
from septet.score import Score
from septet.tensor import Tensors
from septet.workloads.card import Card
from septet.workloads.fetch import data_dir
from septet.workloads.predictor import Predictor
from septet.workloads.split import Split
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

    `weights` is ``auto``, ``official``, ``synthetic`` or the path of an ONNX file; of a miniature, one of the
    workload's `variants`. Of a miniature, `split` says which part of its generated data is opened, networks being
    judged on «test», and `count` how much is drawn of it: as much as is usual, or any other number. `precision` is
    what the engine will compute in: DLRM's own files have int8 rows where it is ``int8``. `padded` asks that
    sequences be padded to the longest that the network takes, instead of each running at its own length.
    """

    weights: str = "auto"
    data: Path | None = None
    precision: str = "f32"
    padded: bool = False
    split: Split = "test"
    count: int | None = None


class Workload(ABC):
    """A network with its weights, its data, its pipeline and its metric.

    Opening one (`open`) settles where weights and data come from. Nothing heavy stays in memory until
    `sample` is called.
    """

    name: ClassVar[str]
    card: ClassVar[Card]
    pads: ClassVar[bool] = False
    """Whether its samples are sequences, so that they may be `padded` to the longest."""
    variants: ClassVar[tuple[str, ...]] = ("auto",)
    """The weights that the miniature may be asked to have, the usual ones first."""
    size: Size
    origin: Origin
    model: Path | None
    """The ONNX file that an engine loads; None only for the null workload."""
    data: str
    """The data set in words, such as «digit scenes, test split, 10,000 images»."""
    baseline: str | None = None
    """The weights of the FP32 reference that answers are held against; None: the workload's own."""
    notes: tuple[str, ...] = ()
    """Lines that every output must show, such as «synthetic weights: speed only»."""
    largest_only: ClassVar[bool] = False
    """Whether of the network's outputs only the largest entry of the second dimension, classes, counts."""

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

    def length(self, sample: Tensors) -> int:
        """How long `sample` is to the engine: the fewer lengths a batch holds, the less of it is padding.

        Always the same where a batch is never padded.
        """
        return 0

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
    if size == "mini" and network != "null" and (asked.weights not in kind.variants or asked.data is not None):
        also = f"; it has --weights {', '.join(kind.variants[1:])}" if kind.variants[1:] else ""
        raise UsageError(
            f"the miniature has its own weights and data: --weights and --data go with --size full{also}"
        )
    if asked.padded and not kind.pads:
        raise UsageError(f"{network}: nothing is padded: --padded goes with a network of sequences, such as bert")
    if size == "full" and asked.data is None and data_dir(network).is_dir():
        asked = replace(asked, data=data_dir(network))
    return kind.open(size, asked)


def networks() -> list[str]:
    """The networks that can be run, without the null member."""
    return [name for name in WORKLOADS if name != "null"]


def miniatures() -> list[str]:
    """The networks whose miniature ships with trained weights."""
    return [name for name in networks() if shipped(name).is_file()]
