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
from septet.optimize.samples import Given, call, open_samples
from septet.optimize.subject import PARTS, Part, Subject
from septet.optimize.support import require_operators
from septet.score import Score, mean
from septet.tensor import Array, Tensors, TensorSpec

OwnScore = Callable[[Sequence[Tensors], Sequence[int]], Score | Sequence[float] | Array]
"""Takes the outputs of samples, by name and without batch dimension, and which samples they are, by their place in
the data. Gives a Score, or for each sample a number 0…1, 1 being wholly right, whose mean is the score."""

SHARES: dict[Part, float] = {"calibration": 0.2, "search": 0.4, "final": 0.4}
CALIBRATION = 128
"""No more samples than this are kept for calibration: what is left decides more."""

LEAST = 10
"""Fewer samples cannot be parted."""

BATCH = 16

AGREEMENT_NOTE = "judged by agreement of outputs with FP32, which is not accuracy: give --score for that"


class OwnModel(Subject):
    """The model at `path`, judged by `score` or, without one, by how far outputs agree with FP32's.

    Raises ModelNotFound, ModelInvalid (which names what ONNX Runtime does not know), DataError, UsageError.
    """

    def __init__(self, path: Path, data: Given, score: OwnScore | str | None = None) -> None:
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
        self._score: OwnScore | None = call(score) if isinstance(score, str) else score
        self.judged = "accuracy" if self._score else "agreement"
        self.notes = () if self._score else (AGREEMENT_NOTE,)
        self._classes = classes_of(file.outputs)
        self._parts = _parted(len(self._samples))
        self.data = f"{self._samples.words}: " + ", ".join(f"{len(self._parts[part]):,} {part}" for part in PARTS)
        self._free = all(spec.shape[:1] == (None,) for spec in self._inputs)
        self._alone = all(spec.shape[:1] in ((None,), (1,)) for spec in self._inputs)
        self.batches = (1, 8) if self._free and self._alike() else (1,)
        self._reference: dict[Part, list[Tensors]] = {part: [] for part in PARTS}
        self._try_first()

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
        return _as_score(self._score(answers, chosen), len(chosen))

    def _wanted(self, part: Part, count: int) -> list[Tensors]:
        """What FP32 answers to the first samples of a part."""
        known = self._reference[part]
        if len(known) < count:
            with load("onnx", self.model, EngineConfig(), Cpu.detect().partition()) as engine:
                known += self._answers(engine, self._parts[part][len(known) : count], BATCH)
        return known[:count]

    def _answers(self, engine: Engine, chosen: Sequence[int], batch: int) -> Iterator[Tensors]:
        """The outputs of each sample; samples of one shape that follow each other share a call."""
        size = batch if self._free else 1
        for begin in range(0, len(chosen), size):
            samples = [self._sample(index) for index in chosen[begin : begin + size]]
            for _, alike in groupby(samples, _shapes):
                yield from self._call(engine, list(alike))

    def _call(self, engine: Engine, samples: Sequence[Tensors]) -> Iterator[Tensors]:
        if not self._alone:
            yield engine.infer(samples[0])
            return
        outputs = engine.infer({name: np.stack([sample[name] for sample in samples]) for name in samples[0]})
        for place in range(len(samples)):
            yield {name: array[place] if array.ndim else array for name, array in outputs.items()}

    def _sample(self, index: int) -> Tensors:
        """Sample `index` in the inputs' dtypes. Raises DataError where its shape does not fit."""
        sample = self._samples[index]
        found: dict[str, Array] = {}
        for spec in self._inputs:
            if spec.name not in sample:
                raise DataError(f"{self._samples.words}: sample {index} has no {spec.name}")
            array = sample[spec.name]
            if not np.can_cast(array.dtype, spec.dtype, "same_kind"):
                raise DataError(f"{self._samples.words}: {spec.name} is {array.dtype}, the network takes {spec}")
            found[spec.name] = np.ascontiguousarray(array, spec.dtype).reshape(array.shape)
            wanted = spec.shape[1:] if self._alone else spec.shape
            fits = TensorSpec(spec.name, spec.dtype, wanted)
            if not fits.admits(found[spec.name]):
                have = f"{spec.name} of sample {index} is {list(array.shape)}"
                raise DataError(f"{self._samples.words}: {have}, the network takes {fits}")
        return found

    def _alike(self) -> bool:
        """Whether samples may share a call: those of the calibration set have one shape."""
        return len({_shapes(self._sample(index)) for index in self._parts["calibration"][:BATCH]}) == 1

    def _try_first(self) -> None:
        """Run one sample in FP32. Raises ModelInvalid, DataError."""
        with load("onnx", self.model, EngineConfig(), Cpu.detect().partition()) as engine:
            try:
                list(self._answers(engine, self._parts["calibration"][:1], 1))
            except EngineError as error:
                raise DataError(f"{self.model}: does not run on {self._samples.words}: {error}") from error


def _shapes(sample: Tensors) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in sample.values())


def _parted(count: int) -> dict[Part, list[int]]:
    """Which samples each part has; an order that means something does not matter."""
    order = np.random.default_rng(0).permutation(count).tolist()
    calibration = max(1, min(CALIBRATION, round(SHARES["calibration"] * count)))
    search = round((count - calibration) * SHARES["search"] / (SHARES["search"] + SHARES["final"]))
    ends = (0, calibration, calibration + search, count)
    return {part: order[ends[place] : ends[place + 1]] for place, part in enumerate(PARTS)}


def _as_score(found: Score | Sequence[float] | Array, count: int) -> Score:
    if isinstance(found, Score):
        return found
    parts = np.asarray(found, float)
    if parts.shape != (count,):
        raise UsageError(f"the score gave {parts.shape}, not one number for each of {count} samples")
    if not np.isfinite(parts).all() or (parts < 0).any() or (parts > 1).any():
        raise UsageError("the score gave a number that is not within 0…1 for a sample")
    graded = not np.isin(parts, (0.0, 1.0)).all()
    return mean("score", "%", parts, scale=100, graded=graded)
