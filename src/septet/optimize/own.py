# SPDX-License-Identifier: Apache-2.0
"""A user's own model, with samples of theirs and, where they have one, a score of theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, LoadEngine, load
from septet.engines.model import OnnxFile, read_onnx
from septet.engines.tokens import called_mask, sequences_of
from septet.errors import DataError, EngineError, ModelInvalid, NotSequences, UsageError
from septet.optimize.agreement import agreement, classes_of
from septet.optimize.fitted import Fitted
from septet.optimize.function import function_named, text_of, told
from septet.optimize.own_length import at_own_length
from septet.optimize.samples import Given, Samples, open_samples
from septet.optimize.subject import PARTS, Part, Subject
from septet.optimize.support import require_operators
from septet.pipelines.sequence import Sequences
from septet.score import Score, mean
from septet.tensor import Array, Tensors, TensorSpec

OwnScore = Callable[[Sequence[Tensors], Sequence[int]], Score | Sequence[float] | Array]
"""Takes the outputs of samples, by name and without batch dimension, and which samples they are, by their place in
the data. Gives a Score, or for each sample a number 0…1, 1 being wholly right, whose mean is the score. An output
that has no row for each sample of a call comes whole, and samples are run one by one then. Where sequences are run
at their own length, as a note says, an output with a place for each token is as long as the sample is without its
padding."""

SHARES: dict[Part, float] = {"calibration": 0.2, "search": 0.4, "final": 0.4}
CALIBRATION = 128
"""No more samples than this are kept for calibration: what is left decides more."""

LEAST = 10
"""Fewer samples cannot be parted."""

BATCH = 16

TIMED = 8
"""So many samples of the calibration set are timed in one call too, where they can share it."""

TRIED = 8
"""On so many samples it is tried whether they can share a call, and whether padding changes their answers."""

AGREEMENT_NOTE = "judged by agreement of outputs with FP32, which is not accuracy: give --score for that"
CLASSIFIER_NOTE = "{}, float [N, classes], is taken for a classifier's scores: its largest entry is compared"
REPEATS_NOTE = "{:,} samples are left out that repeat others: what was seen before tells nothing new"
OWN_NOTE = "sequences at their own length, FP32's too: {:,} tokens, which are {:,} when all are padded to {}"
PADDED_NOTE = "sequences are run as they came, padding and all, and only those of one length together: {}"


class OwnModel(Subject):
    """The model at `path`, judged by `score` or, without one, by how far outputs agree with FP32's.

    Sequences are run at their own length where the model heeds their mask; what must be made of it for that goes
    into `folder`. Raises ModelNotFound, ModelInvalid (which names what ONNX Runtime does not know), DataError,
    UsageError.
    """

    def __init__(self, path: Path, data: Given, score: OwnScore | str | None, folder: Path) -> None:
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
        samples = open_samples(data, file.inputs)
        self._score: OwnScore | None = function_named(score) if isinstance(score, str) else score
        self.judged = "accuracy" if self._score else "agreement"
        self.identity = samples.digest() + (text_of(self._score) if self._score else "")
        self._alone = all(spec.shape[:1] in ((None,), (1,)) for spec in file.inputs)
        self._samples, self.notes = self._fitted(file, samples)
        self._parts = self._parted(self._samples.distinct())
        self.data = f"{samples.words}: " + ", ".join(f"{len(self._parts[part]):,} {part}" for part in PARTS)
        if self._samples.sequences:
            self._free_lengths(self._samples.sequences, folder)
        outputs = read_onnx(self.model).outputs
        self._classes = classes_of(outputs)
        if not self._score:
            classified = (CLASSIFIER_NOTE.format(self._classes),) if self._classes else ()
            self.notes = (AGREEMENT_NOTE, *classified, *self.notes)
        self._rows = {spec.name for spec in outputs if self._alone and spec.shape[:1] in ((None,), (1,))}
        self.joins = False
        self._reference: dict[Part, list[Tensors]] = {part: [] for part in PARTS}
        self._try_some(file.inputs, outputs)
        together = self._parts["calibration"][:TIMED]
        full = self.joins and len(together) == TIMED and self._samples.alike(together)
        self.batches = (1, TIMED) if full else (1,)

    def count(self, part: Part) -> int:
        return len(self._parts[part])

    def run(self, part: Part, load: LoadEngine, count: int, batch: int) -> None:
        with load(self.model) as engine:
            self._answers(engine, self._parts[part][:count], batch)

    def exam(self, part: Part, load: LoadEngine, count: int) -> Score:
        chosen = self._parts[part][:count]
        with load(self.model) as engine:
            answers = self._answers(engine, chosen, BATCH)
        if self._score is None:
            return agreement(answers, self._wanted(part, count), self._classes)
        padding = ", which gets outputs without padding," if self._samples.cuts else ""
        with told(f"the score{padding}", UsageError):
            return _as_score(self._score(answers, chosen), len(chosen))

    def _fitted(self, file: OnnxFile, samples: Samples) -> tuple[Fitted, tuple[str, ...]]:
        """`samples` as the network takes them, and what must be said of that."""
        try:
            if not self._alone:
                raise NotSequences("it takes so many at a time, and no other number")
            return Fitted(samples, file.inputs, self._alone, sequences_of(file)), ()
        except NotSequences as error:
            masked = any(called_mask(spec.name) and len(spec.shape) == 2 for spec in file.inputs)
            notes = (PADDED_NOTE.format(error),) if masked else ()
        return Fitted(samples, file.inputs, self._alone, None), notes

    def _parted(self, distinct: Sequence[int]) -> dict[Part, list[int]]:
        """Which samples each part has. Raises DataError where they are too few."""
        repeats = len(self._samples.looks) - len(distinct)
        if len(distinct) < LEAST:
            have = f"{len(distinct)} that are not the same are too few" if repeats else "too few"
            raise DataError(f"{self._samples.words}: {have}: calibration, search and final set need {LEAST}")
        if repeats:
            self.notes += (REPEATS_NOTE.format(repeats),)
        return _parted(distinct)

    def _free_lengths(self, sequences: Sequences, folder: Path) -> None:
        """Run sequences at their own length, where some are shorter than the longest and their answers stay.

        Raises DataError where they must be padded and are not.
        """
        looks, path, why = self._samples.looks, self.model, ""
        longest = sequences.longest or max(look.given for look in looks)
        shorter = [index for index in self._parts["calibration"] if looks[index].own < longest]
        if shorter:
            try:
                few = [self._samples.given(index) for index in self._spread(shorter)]
                self.model, self._samples.cuts = at_own_length(path, sequences, longest, few, folder)
                self.data += ", each at its own length"
                ran = [looks[index].own for part in PARTS for index in self._parts[part]]
                self.notes += (OWN_NOTE.format(sum(ran), longest * len(ran), longest),)
                return
            except NotSequences as error:
                why = f": {error}"
                self.notes += (PADDED_NOTE.format(error),)
        if sequences.longest and any(look.given != longest for look in looks):
            raise DataError(f"{self._samples.words}: not all have the {longest} tokens that {path} takes{why}")

    def _spread(self, chosen: Sequence[int]) -> list[int]:
        """A few of `chosen`, of all lengths."""
        order = sorted(chosen, key=lambda index: self._samples.looks[index].own)
        return [order[place] for place in sorted({*np.linspace(0, len(order) - 1, TRIED).astype(int).tolist()})]

    def _wanted(self, part: Part, count: int) -> list[Tensors]:
        """What FP32 answers to the first samples of a part."""
        known = self._reference[part]
        if len(known) < count:
            chosen = self._parts[part][len(known) : count]
            with load("onnx", self.model, EngineConfig(), Cpu.detect().partition()) as engine:
                more = self._answers(engine, chosen, BATCH)
            for index, answer in zip(chosen, more, strict=True):
                _require_numbers(answer, f"{self.model}: FP32 on {self._samples.where(index)}")
            known += more
        return known[:count]

    def _answers(self, engine: Engine, chosen: Sequence[int], batch: int) -> list[Tensors]:
        """The outputs of each sample; samples that fit each other share a call."""
        found: dict[int, Tensors] = {}
        for some in self._samples.calls(chosen, batch if self.joins else 1):
            found |= zip(some, self._call(engine, [self._samples[index] for index in some]), strict=True)
        return [found[index] for index in chosen]

    def _call(self, engine: Engine, samples: Sequence[Tensors]) -> list[Tensors]:
        if not self._alone:
            return [engine.infer(samples[0])]
        batch = self._samples.join(samples)
        outputs = engine.infer(batch)
        for name in self._rows:
            if outputs[name].shape[:1] != (len(samples),):
                have = f"{name} is {list(outputs[name].shape)} for {len(samples)} samples"
                raise ModelInvalid(f"{self.model}: {have}: it has not one row for each, as it had for others")
        return self._samples.part(outputs, batch, self._rows)

    def _try_some(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        """Run a few samples in FP32: whether they can share a call, and which outputs have a row for each.

        Raises DataError, where not even one runs.
        """
        free = self._alone and all(spec.shape[:1] == (None,) for spec in (*inputs, *outputs))
        with load("onnx", self.model, EngineConfig(), Cpu.detect().partition()) as engine:
            self.joins = free and all(
                self._has_rows(engine, self._samples[index]) for index in self._parts["calibration"][:TRIED]
            )
            if not self.joins and not self._samples.cuts:  # what is free is not the batch then
                self._rows -= {spec.name for spec in outputs if spec.shape[:1] == (None,)}
            try:
                self._answers(engine, self._parts["calibration"][:1], 1)
            except EngineError as error:
                raise DataError(f"{self.model}: does not run on {self._samples.words}: {error}") from error

    def _has_rows(self, engine: Engine, sample: Tensors) -> bool:
        """Whether every output has one row for one `sample`, and two for two of them."""
        try:
            return all(
                array.shape[:1] == (count,)
                for count in (1, 2)
                for array in engine.infer(self._samples.join([sample] * count)).values()
            )
        except EngineError:
            return False


def _parted(samples: Sequence[int]) -> dict[Part, list[int]]:
    """Which of `samples` each part has; an order that means something does not matter."""
    count = len(samples)
    order = np.random.default_rng(0).permutation(samples).tolist()
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
