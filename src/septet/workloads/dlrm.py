# SPDX-License-Identifier: Apache-2.0
"""DLRM on the Criteo click logs, and its trained miniature on logs of a hidden model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import psutil

from septet.engines.engine import Engine, LoadEngine
from septet.engines.model import OnnxFile
from septet.errors import DataError, ModelInvalid, UsageError
from septet.pipelines import table
from septet.score import Score, ratio
from septet.tensor import Array, Tensors
from septet.workloads import recommender
from septet.workloads.auc import auc
from septet.workloads.card import Card, Counts
from septet.workloads.clicks import QUANTILES, ClickLog
from septet.workloads.criteo import PROCESSED, Criteo
from septet.workloads.predictor import AskedOnce, Numbers, Predictor, Rows
from septet.workloads.recommender import DENSE, DLRM, DLRM_MINI, Recommender
from septet.workloads.split import Split
from septet.workloads.weights import SYNTHETIC_NOTE, Found, built, given, trained
from septet.workloads.workload import Asked, Size, Workload

SEED = 26
MADE_UP = 2_048

MEMORY_SHARE = 0.25
LARGEST_TABLES = 6e9
"""All tables together take at most this share of the machine's memory, and at most this many bytes."""

UNMAPPED = (
    f"AUC not judged: raw rows do not say which rows of the tables their categories are; {PROCESSED}, which the "
    "reference's data code makes of all 24 days, does"
)


class Log(ABC):
    """Samples of user–item pairs."""

    labelled: bool
    words: str
    notes: tuple[str, ...] = ()
    """What every output must say of it where weights are not noise."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def features(self, index: int) -> tuple[Array, Array]:
        """Counts int64 [q, 13] and categories int64 [q, 26] of sample `index`."""

    @abstractmethod
    def clicks(self, index: int) -> Array:
        """Its clicks, bool [q]; only where `labelled`."""


class GeneratedLog(Log):
    """The miniature's samples."""

    labelled = True

    def __init__(self, split: Split, count: int | None = None) -> None:
        self._log = ClickLog(split, count)
        self.words = f"click log of a hidden model, {split} split, {len(self._log):,} samples of 100 to 700 pairs"

    def __len__(self) -> int:
        return len(self._log)

    def features(self, index: int) -> tuple[Array, Array]:
        pairs = self._log.pairs(index)
        return pairs.counts, pairs.categories

    def clicks(self, index: int) -> Array:
        return self._log.pairs(index).clicks


class CriteoLog(Log):
    """Criteo's rows, one sample after the other, as v0.7 cuts them; they can be judged by where the reference
    processed them."""

    def __init__(self, folder: Path) -> None:
        self._rows = Criteo(folder)
        self._ends = sample_ends(len(self._rows))
        self.labelled = self._rows.mapped
        self.notes = () if self._rows.mapped else (UNMAPPED,)
        self.words = f"{self._rows.words} in {len(self):,} samples"

    def __len__(self) -> int:
        return len(self._ends)

    def features(self, index: int) -> tuple[Array, Array]:
        span = self._span(index)
        return self._rows.counts(*span), self._rows.categories(*span)

    def clicks(self, index: int) -> Array:
        return self._rows.clicks(*self._span(index))

    def _span(self, index: int) -> tuple[int, int]:
        return int(self._ends[index - 1]) if index else 0, int(self._ends[index])


def sample_ends(pairs: int) -> Array:
    """The pair after the last of each sample, int64 [samples], where `pairs` in all are cut as v0.7 does it.

    Source: mlcommons/inference v0.7.1, recommendation/dlrm/pytorch/python: criteo.py draws one of the quantiles
    after the other until no pair is left, from numpy's legacy generator, which main.py seeds with 123.
    """
    drawn = np.random.RandomState(123).randint(0, len(QUANTILES), pairs // min(QUANTILES) + 1)
    ends = np.minimum(np.cumsum(np.array(QUANTILES)[drawn]), pairs)
    found: Array = ends[: int(np.searchsorted(ends, pairs)) + 1]
    return found


class MadeUpLog(Log):
    """Seeded pairs for speed, where no data is given; the logarithm of a category is uniform, as in Zipf's law."""

    labelled = False

    def __init__(self, rows: Sequence[int]) -> None:
        self._rows = np.asarray(rows)
        self.words = f"{MADE_UP:,} made-up samples of 100 to 700 pairs"

    def __len__(self) -> int:
        return MADE_UP

    def features(self, index: int) -> tuple[Array, Array]:
        draw = np.random.default_rng((SEED, index))
        count = int(draw.choice(QUANTILES))
        categories = (self._rows ** draw.random((count, len(self._rows)))).astype(np.int64) - 1
        return draw.geometric(0.1, (count, DENSE)), categories

    def clicks(self, index: int) -> Array:
        raise DataError("made-up samples have no clicks")


class PairsPredictor(AskedOnce):
    """Runs the pairs of all samples of a batch in one call, and gives each sample its own."""

    def __init__(self, engine: Engine, output: str) -> None:
        super().__init__(engine)
        self._output = output

    def feeds(self, batch: Tensors) -> Tensors:
        """The pairs of a batch."""
        return {name: array for name, array in batch.items() if name != SIZES}

    def answers(self, batch: Tensors, outputs: Tensors) -> Rows:
        """One row of probabilities a sample, float32 [q]."""
        return np.split(Numbers(outputs)[self._output].reshape(-1), np.cumsum(batch[SIZES])[:-1])


SIZES = "sizes"
"""What a batch says beside the network's inputs: how many pairs each sample has."""


class Dlrm(Workload):
    """Click prediction; the metric is the area under the ROC curve over all pairs, in %."""

    name: ClassVar[str] = "dlrm"
    card: ClassVar[Card] = Card(
        full=Counts(24_036_595_969, 1.33e9, "a sample of 270 pairs, the mean"),
        mini=Counts(150_657, 21.9e6, "a sample of 270 pairs, the mean"),
        official=(),
        bring=f"Criteo Terabyte: day_23 or day_23.gz, nothing else of the 24 days, for speed; for accuracy "
        f"{PROCESSED}, which the reference's data code makes of all 24. v0.7 takes the first half",
        weights="published as a torch file (dlrm.s3-us-west-1.amazonaws.com/models/tb00_40M.pt, 90 GB, MD5 "
        "2d49a5288cddb37c3c64860a06d79bb9): bring it as ONNX with --weights FILE, as docs/weights.md says",
    )

    def __init__(self, size: Size, found: Found, log: Log, net: Recommender) -> None:
        self.size = size
        self.model = found.path
        self.origin = found.origin
        self.data = log.words
        self.notes = found.notes if found.origin == "synthetic" else (*found.notes, *log.notes)
        self._log = log
        self._dense, self._indices, self._output = _names(found.read(), found.path, net)
        self._net = net

    @classmethod
    def open(cls, size: Size, asked: Asked) -> Dlrm:
        return _mini(asked) if size == "mini" else _full(asked)

    def __len__(self) -> int:
        return len(self._log)

    def sample(self, index: int) -> Tensors:
        """The pairs of one sample: float32 [q, 13] and int64 [q, 26], which rows of the tables."""
        counts, categories = self._log.features(index)
        return {self._dense: table.dense(counts), self._indices: table.indices(categories, self._net.rows)}

    def collate(self, samples: Sequence[Tensors]) -> Tensors:
        """The pairs of all samples one after the other, and ``sizes`` int64 [N], how many each has."""
        joined = {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}
        return joined | {SIZES: np.array([len(sample[self._dense]) for sample in samples])}

    def predictor(self, load: LoadEngine) -> Predictor:
        assert self.model is not None
        return PairsPredictor(load(self.model), self._output)

    @property
    def scored(self) -> bool:
        return self.origin != "synthetic" and self._log.labelled

    def score(self, responses: Mapping[int, bytes]) -> Score:
        """The area in %, with an interval that takes samples, not pairs, as drawn independently."""
        scores, clicks = [], []
        for index, answer in enumerate(self.answers(responses)):
            clicks.append(self._log.clicks(index))
            scores.append(np.frombuffer(answer, np.float32))
            if len(scores[-1]) != len(clicks[-1]):
                wanted = len(clicks[-1])
                raise DataError(f"{self.data}: sample {index} has {len(scores[-1])} answers, not {wanted}")
        sizes = np.array([len(mine) for mine in clicks])
        try:
            _, parts = auc(np.concatenate(scores), np.concatenate(clicks))
        except DataError as error:
            raise DataError(f"{self.data}: {error}") from error
        sums = np.add.reduceat(parts, np.concatenate([[0], np.cumsum(sizes)[:-1]]))
        return ratio("AUC", "%", sums, sizes.astype(float), scale=100.0, graded=True)


def _full(asked: Asked) -> Dlrm:
    if asked.weights == "official":
        raise UsageError(f"dlrm: the official weights are {Dlrm.card.weights}")
    # a wrong path is told before a day is read, and wrong data before tables are written
    own = None if asked.weights in ("auto", "synthetic") else given(asked.weights)
    log = CriteoLog(asked.data) if asked.data else None
    found, net = (own, _rows_of(own.path)) if own else _synthetic(asked.precision == "int8")
    return Dlrm("full", found, log or MadeUpLog(net.rows), net)


def _synthetic(int8: bool) -> tuple[Found, Recommender]:
    """Seeded weights, with tables cut to what memory allows, in rows of `int8` or of float32."""
    cap = rows_within(min(LARGEST_TABLES, MEMORY_SHARE * psutil.virtual_memory().total), int8)
    net = DLRM.capped(cap)
    form = "int8-" if int8 else ""
    write = partial(recommender.write_synthetic, net, SEED, int8=int8)
    path = built(write, f"dlrm-full-synthetic-{SEED}-{form}{cap}")
    kept = f"tables capped at {cap:,} rows: {sum(net.rows):,} of {sum(DLRM.rows):,} rows"
    return Found(path, "synthetic", (SYNTHETIC_NOTE, kept)), net


def rows_within(limit: float, int8: bool = False) -> int:
    """The largest cap, in whole 100,000 rows, under which all tables fit into `limit` bytes: rows of float32, or
    of `int8` and a float32 factor."""
    row = DLRM.dim + 4 if int8 else 4 * DLRM.dim
    cap = 100_000
    while row * sum(DLRM.capped(cap + 100_000).rows) <= limit and cap < max(DLRM.rows):
        cap += 100_000
    return cap


def _rows_of(path: Path) -> Recommender:
    """The network with the tables that a user's file holds, in the order in which it looks into them."""
    graph = onnx.load(path, load_external_data=False).graph
    sizes = {tensor.name: tensor.dims[0] for tensor in graph.initializer if len(tensor.dims) == 2}
    looked = (node.input[0] for node in graph.node if node.op_type == "Gather")
    tables = tuple(sizes[name] for name in looked if name in sizes and not name.endswith(".scale"))
    if len(tables) != len(DLRM.rows):
        raise ModelInvalid(f"{path}: looks into {len(tables)} tables, not {len(DLRM.rows)}")
    return Recommender(DLRM.bottom, DLRM.top, tables)


def _mini(asked: Asked) -> Dlrm:
    int8 = asked.precision == "int8"

    def build(weights: Mapping[str, Array]) -> onnx.ModelProto:
        return recommender.build(DLRM_MINI, recommender.rows_as_int8(weights) if int8 else weights)

    found = trained(Dlrm.name, build, "-int8" if int8 else "")
    return Dlrm("mini", found, GeneratedLog(asked.split, asked.count), DLRM_MINI)


def _names(file: OnnxFile, path: Path, net: Recommender) -> tuple[str, str, str]:
    """The names of the file's inputs, numbers and rows, and of its output. Raises ModelInvalid."""
    dense = [spec.name for spec in file.inputs if spec.dtype == np.float32 and spec.shape[1:] == (DENSE,)]
    rows = [spec.name for spec in file.inputs if spec.dtype == np.int64 and spec.shape[1:] == (len(net.rows),)]
    clicks = [spec.name for spec in file.outputs if spec.dtype == np.float32]
    if len(dense) != 1 or len(rows) != 1 or len(file.inputs) != 2 or len(clicks) != 1:
        have = "; ".join(map(str, (*file.inputs, *file.outputs)))
        raise ModelInvalid(
            f"{path}: has ({have}), not float32 [?, {DENSE}] and int64 [?, {len(net.rows)}] in, one float32 out"
        )
    return dense[0], rows[0], clicks[0]
