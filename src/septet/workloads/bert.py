# SPDX-License-Identifier: Apache-2.0
"""BERT-large on SQuAD v1.1, and its trained miniature on tales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx

from septet.engines.engine import LoadEngine
from septet.engines.model import OnnxFile
from septet.engines.tokens import sequences_of
from septet.errors import DataError, FetchError, ModelInvalid, NotSequences
from septet.pipelines.sequence import Sequences
from septet.pipelines.text import LENGTH, WordPieces, read_vocabulary
from septet.score import Score, mean
from septet.tensor import Array, Tensors
from septet.workloads import transformer
from septet.workloads.card import Card, Counts
from septet.workloads.fetch import fetch
from septet.workloads.predictor import EnginePredictor, Predictor, SequencePredictor
from septet.workloads.squad import FILE, MadeUpWindows, SquadWindows, Windows, best, exact, f1, read
from septet.workloads.tales import Tales, vocabulary
from septet.workloads.transformer import BERT_LARGE, BERT_MINI
from septet.workloads.weights import Found, Official, find, freed, trained
from septet.workloads.workload import Asked, Size, Workload

OFFICIAL = Official(
    url="https://zenodo.org/record/3733910/files/model.onnx",
    md5="819b25b19cd8e59080c10892689750ca",
)
"""v0.7's ONNX file. Its MD5, and the vocabulary's, are from MLCommons' mlperf-automations,
script/get-ml-model-bert-large-squad/meta.yaml."""

OFFICIAL_VOCABULARY = Official(
    url="https://zenodo.org/record/3733868/files/vocab.txt",
    md5="64800d5d8528ce344256daf115d4965e",
)

VOCABULARY = "vocab.txt"

SEED = 51
MADE_UP = 10_833
"""As many windows as SQuAD's dev set has."""

ROLES = (
    ("input_ids",),
    ("input_mask", "attention_mask"),
    ("segment_ids", "token_type_ids"),
)
"""What files call ids, mask and segments."""


SPARSE = "sparse"
"""The miniature with heads and columns pruned, as ``recipes/bert-sparse.py`` wrote it."""

SPARSE_NOTE = (
    "structured sparsity, Open division: half of the heads and a quarter of the columns between, trained on for "
    "longer than the dense network was, whose FP32 it is judged against"
)

_PROOFS = 3
"""On so many windows a file that is made free must answer as before."""


class Bert(Workload):
    """Question answering; the metric is F1 in %. A sample is a window, a score's part is a question."""

    name: ClassVar[str] = "bert"
    card: ClassVar[Card] = Card(
        full=Counts(334_094_338, 246.4e9, "one window, 384 tokens"),
        mini=Counts(715_650, 679.7e6, "one window, 384 tokens"),
        official=(OFFICIAL, OFFICIAL_VOCABULARY),
        bring=f"SQuAD v1.1: {FILE} in one folder, and beside it {VOCABULARY}, unless it was fetched",
    )

    pads: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("auto", SPARSE)

    def __init__(self, size: Size, found: Found, windows: Windows, padded: bool = False) -> None:
        self.size = size
        self.model = found.path
        self.origin = found.origin
        self.notes = found.notes
        file = found.read()
        self._inputs = _inputs(file, found.path)
        self._outputs = _outputs(file, found.path)
        self._windows = windows
        self._sequences: Sequences | None = None
        if not padded:
            self._free(found.path, sequences_of(file, self._inputs[1]))
        self.data = f"{windows.words}, {f'padded to {LENGTH}' if padded else 'each at its own length'}"

    def _free(self, path: Path, sequences: Sequences) -> None:
        """Run windows at their own length: on a file that was written for one length, after it was made free."""
        self._sequences = sequences
        if sequences.longest is not None:
            few = [self.sample(index) for index in range(min(_PROOFS, len(self)))]
            try:
                self.model = freed(path, sequences, few)
            except NotSequences as error:
                raise NotSequences(f"{path}: {error}: --padded runs it as it is") from error

    @classmethod
    def open(cls, size: Size, asked: Asked) -> Bert:
        return _mini(asked) if size == "mini" else _full(asked)

    def __len__(self) -> int:
        return len(self._windows)

    def sample(self, index: int) -> Tensors:
        """Ids, mask and segments of a window, each int64 [L], by the names that the file has for them."""
        sample = dict(zip(self._inputs, self._windows.tensors(index), strict=True))
        return self._sequences.cut(sample) if self._sequences else sample

    def length(self, sample: Tensors) -> int:
        tokens = len(sample[self._inputs[0]])
        return self._sequences.bucket(tokens) if self._sequences else tokens

    def collate(self, samples: Sequence[Tensors]) -> Tensors:
        """Windows padded to the bucket of the longest: int64 [N, L]."""
        return self._sequences.join(samples) if self._sequences else super().collate(samples)

    def predictor(self, load: LoadEngine) -> Predictor:
        engine = load(self.model)
        if self._sequences:
            return SequencePredictor(engine, self._sequences, self.respond)
        return EnginePredictor(engine, self.respond)

    def respond(self, outputs: Tensors) -> Array:
        """The logits of each window, float32 [N, L, 2]: start and end."""
        found = [outputs[name] for name in self._outputs]
        logits = np.stack(found, axis=-1) if len(found) == 2 else found[0]
        return np.ascontiguousarray(logits, np.float32)

    @property
    def scored(self) -> bool:
        return self.origin != "synthetic" and self._windows.labelled

    def score(self, responses: Mapping[int, bytes]) -> Score:
        """F1 in %, and exact match beside it; a question's part is its F1, 0…1."""
        logits = [self._logits(response, index) for index, response in enumerate(self.answers(responses))]
        said = self._windows.answers(logits)
        truths = self._windows.truths()
        matched = 100 * float(best(exact, said, truths).mean())
        return replace(mean("F1", "%", best(f1, said, truths), scale=100), beside={"exact match": matched})

    def _logits(self, response: bytes, index: int) -> Array:
        """What was answered to a window, float32 [length, 2]: the logits of padding are nobody's."""
        length = self._windows.length(index)
        wanted = length if self._sequences else LENGTH
        if len(response) != wanted * 2 * np.dtype(np.float32).itemsize:
            raise DataError(f"{self.data}: the answer to sample {index} has {len(response)} bytes")
        return np.frombuffer(response, np.float32).reshape(wanted, 2)[:length]


def _full(asked: Asked) -> Bert:
    windows = _open_windows(asked.data) if asked.data else MadeUpWindows(MADE_UP, BERT_LARGE.vocabulary)
    found = find(asked.weights, OFFICIAL, _write_made_up, f"bert-full-synthetic-{SEED}")
    return Bert("full", found, windows, asked.padded)


def _open_windows(folder: Path) -> Windows:
    """The windows of SQuAD's dev set in `folder`. Raises DataError."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    file = read(folder / FILE)
    path = _vocabulary(folder)
    spellings = read_vocabulary(path)
    if len(spellings) != BERT_LARGE.vocabulary:
        raise DataError(f"{path}: has {len(spellings):,} spellings, the network {BERT_LARGE.vocabulary:,}")
    return SquadWindows(file, WordPieces(spellings, str(path)), str(folder / FILE))


def _vocabulary(folder: Path) -> Path:
    own, official = folder / VOCABULARY, OFFICIAL_VOCABULARY
    if own.exists():
        return own
    try:
        return fetch(official.url, official.path, official.md5, tries=1)
    except FetchError as error:
        raise DataError(f"{own}: is missing, and the official one cannot be had: {error}") from error


def _write_made_up(path: Path) -> None:
    """Weights lie in a file beside, which engines map into memory instead of copying it."""
    model = transformer.build(BERT_LARGE, transformer.Synthetic(BERT_LARGE, SEED))
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")


def _mini(asked: Asked) -> Bert:
    sparse = asked.weights == SPARSE
    found = trained(f"{Bert.name}-{SPARSE}" if sparse else Bert.name, partial(transformer.build, BERT_MINI))
    file = Tales(asked.split, asked.count).file()
    windows = SquadWindows(file, WordPieces(vocabulary()), f"tales, {asked.split} split")
    opened = Bert("mini", found, windows, asked.padded)
    if sparse:
        opened.baseline, opened.notes = "auto", (*found.notes, SPARSE_NOTE)
    return opened


def _inputs(file: OnnxFile, path: Path) -> tuple[str, ...]:
    """The file's names of ids, mask and segments: told by name, else by order."""
    fits = all(
        spec.dtype == np.int64 and len(spec.shape) == 2 and spec.shape[1] in (None, LENGTH) for spec in file.inputs
    )
    if len(file.inputs) != 3 or not fits:
        have = "; ".join(map(str, file.inputs))
        raise ModelInvalid(f"{path}: takes ({have}), not ids, mask and segments, each int64 [?, {LENGTH}]")
    names = [spec.name for spec in file.inputs]
    told = [next((name for name in names if name in role), None) for role in ROLES]
    return tuple(names) if None in told else tuple(name for name in told if name)


def _outputs(file: OnnxFile, path: Path) -> tuple[str, ...]:
    """The file's names of start and end logits, told by name, else by order; or of both in one."""

    def fits(*shape: int) -> list[str]:
        return [
            spec.name
            for spec in file.outputs
            if spec.dtype == np.float32
            and len(spec.shape) == len(shape) + 1
            and all(have in (None, want) for have, want in zip(spec.shape[1:], shape, strict=True))
        ]

    pair, both = fits(LENGTH), fits(LENGTH, 2)
    if len(pair) == 2:
        return tuple(sorted(pair, key=lambda name: "end" in name))
    if len(both) == 1:
        return tuple(both)
    have = "; ".join(map(str, file.outputs))
    raise ModelInvalid(f"{path}: gives ({have}), not start and end logits, float32 [?, {LENGTH}] each")
