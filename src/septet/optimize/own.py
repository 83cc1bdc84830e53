# SPDX-License-Identifier: Apache-2.0
"""A user's own model, with samples of theirs and, where they have one, a score of theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, LoadEngine, load
from septet.engines.model import read_onnx
from septet.errors import DataError, EngineError, ModelInvalid, UsageError
from septet.optimize.agreement import agreement, classes_of
from septet.optimize.function import function_named, text_of, told
from septet.optimize.samples import Given, open_samples
from septet.optimize.subject import PARTS, Part, Subject
from septet.optimize.support import require_operators
from septet.score import Score, mean
from septet.tensor import Array, Tensors, TensorSpec

OwnScore = Callable[[Sequence[Tensors], Sequence[int]], Score | Sequence[float] | Array]
"""Takes the outputs of samples, by name and without batch dimension, and which samples they are, by their place in
the data. Gives a Score, or for each sample a number 0…1, 1 being wholly right, whose mean is the score. An output
that has no row for each sample of a call comes whole, and samples are run one by one then."""

SHARES: dict[Part, float] = {"calibration": 0.2, "search": 0.4, "final": 0.4}
CALIBRATION = 128
"""No more samples than this are kept for calibration: what is left decides more."""

LEAST = 10
"""Fewer samples cannot be parted."""

BATCH = 16

TRIED = 8
"""Of so many samples it is tried whether they can share a call."""

AGREEMENT_NOTE = "judged by agreement of outputs with FP32, which is not accuracy: give --score for that"
CLASSIFIER_NOTE = "{}, float [N, classes], is taken for a classifier's scores: its largest entry is compared"


class OwnModel(Subject):
    """The model at `path`, judged by `score` or, without one, by how far outputs agree with FP32's.

    Raises ModelNotFound, ModelInvalid (which names what ONNX Runtime does not know), DataError, UsageError.
    """

    def __init__(self, path: Path, data: Given, score: OwnScore | str | None = None) -> None:
        if path.suffix != ".onnx":
            raise UsageError(f"{path}: an ONNX file's name ends in .onnx")
        if not (score is None or isinstance(score, str) or callable(score)):
            raise UsageError(f"a score is a function, or its name, not {type(score).__name__}")
        file = read_onnx(path)
        if file.quantised:
            raise ModelInvalid(f"{path}: is quantised already; give the FP32 model")
        require_operators(path)
        self.name = path.stem
        self.model = path
        self._inputs = file.inputs
        self._samples = open_samples(data, file.inputs)
        if len(self._samples) < LEAST:
            raise DataError(f"{self._samples.words}: too few: calibration, search and final set need {LEAST}")
        self._score: OwnScore | None = function_named(score) if isinstance(score, str) else score
        self.judged = "accuracy" if self._score else "agreement"
        self._classes = classes_of(file.outputs)
        classified = (CLASSIFIER_NOTE.format(self._classes),) if self._classes else ()
        self.notes = () if self._score else (AGREEMENT_NOTE, *classified)
        self._parts = _parted(len(self._samples))
        self.data = f"{self._samples.words}: " + ", ".join(f"{len(self._parts[part]):,} {part}" for part in PARTS)
        self.identity = self._samples.digest() + (text_of(self._score) if self._score else "")
        self._alone = all(spec.shape[:1] in ((None,), (1,)) for spec in self._inputs)
        self._rows = {spec.name for spec in file.outputs if self._alone and spec.shape[:1] in ((None,), (1,))}
        self.joins = False
        self._reference: dict[Part, list[Tensors]] = {part: [] for part in PARTS}
        self._try_some(file.outputs)
        self.batches = (1, 8) if self.joins and self._alike() else (1,)

    def count(self, part: Part) -> int:
        return len(self._parts[part])

    def run(self, part: Part, load: LoadEngine, count: int, batch: int) -> None:
        with load(self.model) as engine:
            for _ in self._answers(engine, self._parts[part][:count], batch):
                pass

    def exam(self, part: Part, load: LoadEngine, count: int) -> Score:
        chosen = self._parts[part][:count]
        with load(self.model) as engine:
            answers = list(self._answers(engine, chosen, BATCH))
        if self._score is None:
            return agreement(answers, self._wanted(part, count), self._classes)
        with told("the score", UsageError):
            return _as_score(self._score(answers, chosen), len(chosen))

    def _wanted(self, part: Part, count: int) -> list[Tensors]:
        """What FP32 answers to the first samples of a part."""
        known = self._reference[part]
        if len(known) < count:
            with load("onnx", self.model, EngineConfig(), Cpu.detect().partition()) as engine:
                more = list(self._answers(engine, self._parts[part][len(known) : count], BATCH))
            for index, answer in zip(self._parts[part][len(known) :], more, strict=False):
                _require_numbers(answer, f"{self.model}: FP32 on {self._samples.where(index)}")
            known += more
        return known[:count]

    def _answers(self, engine: Engine, chosen: Sequence[int], batch: int) -> Iterator[Tensors]:
        """The outputs of each sample; samples of one shape that follow each other share a call."""
        size = batch if self.joins else 1
        for begin in range(0, len(chosen), size):
            samples = [self._sample(index) for index in chosen[begin : begin + size]]
            for _, alike in groupby(samples, _shapes):
                yield from self._call(engine, list(alike))

    def _call(self, engine: Engine, samples: Sequence[Tensors]) -> Iterator[Tensors]:
        if not self._alone:
            yield engine.infer(samples[0])
            return
        outputs = engine.infer({name: np.stack([sample[name] for sample in samples]) for name in samples[0]})
        for name in self._rows:
            if outputs[name].shape[:1] != (len(samples),):
                have = f"{name} is {list(outputs[name].shape)} for {len(samples)} samples"
                raise ModelInvalid(f"{self.model}: {have}: it has not one row for each, as it had for others")
        for place in range(len(samples)):
            yield {name: array[place] if name in self._rows else array for name, array in outputs.items()}

    def _sample(self, index: int) -> Tensors:
        """Sample `index` in the inputs' dtypes. Raises DataError where its shape does not fit."""
        sample = self._samples[index]
        found: dict[str, Array] = {}
        for spec in self._inputs:
            if spec.name not in sample:
                raise DataError(f"{self._samples.where(index)}: has no {spec.name}")
            array = sample[spec.name]
            if not np.can_cast(array.dtype, spec.dtype, "same_kind"):
                have = f"{spec.name} is {array.dtype}"
                raise DataError(f"{self._samples.where(index)}: {have}, the network takes {spec}")
            found[spec.name] = np.ascontiguousarray(array, spec.dtype).reshape(array.shape)
            wanted = spec.shape[1:] if self._alone else spec.shape
            fits = TensorSpec(spec.name, spec.dtype, wanted)
            if not fits.admits(found[spec.name]):
                have = f"{spec.name} is {list(array.shape)}"
                raise DataError(f"{self._samples.where(index)}: {have}, the network takes {fits}")
        return found

    def _alike(self) -> bool:
        """Whether samples may share a call: those of the calibration set have one shape."""
        return len({_shapes(self._sample(index)) for index in self._parts["calibration"][:BATCH]}) == 1

    def _try_some(self, outputs: Sequence[TensorSpec]) -> None:
        """Run a few samples in FP32: whether they can share a call, and which outputs have a row for each.

        Raises DataError, where not even one runs.
        """
        free = self._alone and all(spec.shape[:1] == (None,) for spec in (*self._inputs, *outputs))
        with load("onnx", self.model, EngineConfig(), Cpu.detect().partition()) as engine:
            self.joins = free and all(
                self._has_rows(engine, self._sample(index)) for index in self._parts["calibration"][:TRIED]
            )
            if not self.joins:  # what is free is not the batch then
                self._rows -= {spec.name for spec in outputs if spec.shape[:1] == (None,)}
            try:
                list(self._answers(engine, self._parts["calibration"][:1], 1))
            except EngineError as error:
                raise DataError(f"{self.model}: does not run on {self._samples.words}: {error}") from error

    def _has_rows(self, engine: Engine, sample: Tensors) -> bool:
        """Whether every output has one row for one `sample`, and two for two of them."""
        try:
            return all(
                array.shape[:1] == (count,)
                for count in (1, 2)
                for array in engine.infer({name: np.stack([sample[name]] * count) for name in sample}).values()
            )
        except EngineError:
            return False


def _shapes(sample: Tensors) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in sample.values())


def _parted(count: int) -> dict[Part, list[int]]:
    """Which samples each part has; an order that means something does not matter."""
    order = np.random.default_rng(0).permutation(count).tolist()
    calibration = max(1, min(CALIBRATION, round(SHARES["calibration"] * count)))
    search = round((count - calibration) * SHARES["search"] / (SHARES["search"] + SHARES["final"]))
    ends = (0, calibration, calibration + search, count)
    return {part: order[ends[place] : ends[place + 1]] for place, part in enumerate(PARTS)}


def _require_numbers(answer: Tensors, words: str) -> None:
    """Raise DataError where an output is NaN: nothing can be held against that."""
    for name, array in answer.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise DataError(f"{words}: {name} is NaN, against which nothing can be judged")


def _as_score(found: Score | Sequence[float] | Array, count: int) -> Score:
    """`found` as a Score. Raises UsageError, where it is no score of so many samples."""
    if isinstance(found, Score):
        _require_parts(found.per_sample, count)
        return found
    try:
        parts = np.asarray(found, float)
    except (TypeError, ValueError):
        raise UsageError(f"the score gave {type(found).__name__}, not a number for each sample") from None
    _require_parts(parts, count)
    if (parts < 0).any() or (parts > 1).any():
        raise UsageError("the score gave a number that is not within 0…1 for a sample")
    # Of parts that jump, as right and wrong do, many are the same; what is measured finely hardly ever is.
    graded = len(np.unique(parts)) > count / 2
    return mean("score", "%", parts, scale=100, graded=graded)


def _require_parts(parts: Array, count: int) -> None:
    if np.shape(parts) != (count,):
        raise UsageError(f"the score gave {np.shape(parts)}, not one number for each of {count} samples")
    if not np.isfinite(parts).all():
        raise UsageError("the score gave a number that is not within 0…1 for a sample")
