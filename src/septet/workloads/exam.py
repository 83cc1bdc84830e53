# SPDX-License-Identifier: Apache-2.0
"""Exam: a workload as the optimiser sees it. Candidates answer through the workload's own predictor, so that what
is judged is the official metric, and what calibrates is what the engine really gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, LoadEngine, load
from septet.errors import UsageError
from septet.optimize.agreement import agreement
from septet.optimize.recorder import Recording
from septet.optimize.subject import Part, Subject
from septet.score import Score
from septet.tensor import Tensors
from septet.workloads.split import Split
from septet.workloads.workload import Asked, Size, Workload, open_workload

_SPLITS: dict[Part, Split] = {"calibration": "calibration", "search": "search", "final": "test"}

BATCH = 16
"""Samples a call where speed is not what is asked."""

HEAVY = 1e11
"""Calls of more operations than this are timed one sample at a time: a batch gains nothing there."""

MORE = (16, 8, 4)
"""So many times the usual number of samples may be drawn for the last word, where the usual cannot tell: as many
as take no more than `HELD` bytes, for they are prepared once and held."""
HELD = 5 << 28

FEW: dict[Part, int] = {"calibration": 8, "search": 4, "final": 4}
MANY: dict[Part, int] = {"calibration": 128, "search": 512, "final": 1_024}
"""Samples of a network at full size, where its weights are noise and where they are not."""

AGREEMENT_NOTE = "judged by agreement of outputs with FP32, which is not accuracy"


DEFAULT = Asked()


class MiniatureExam(Subject):
    """A trained miniature, on the three splits of its generated data."""

    judged = "accuracy"

    def __init__(self, network: str, asked: Asked = DEFAULT) -> None:
        self._network = network
        self._asked = asked
        self._parts = {part: self._open(part) for part in _SPLITS}
        final = self._parts["final"]
        assert final.model is not None
        self.name = f"{network}-mini"
        self.model = final.model
        self.data = "; ".join(f"{part}: {workload.data}" for part, workload in self._parts.items())
        self.notes = final.notes
        self.largest_only = final.largest_only
        self.reads = _reads(final)
        self._samples: dict[Part, list[Tensors]] = {part: [] for part in self._parts}
        self._others: dict[tuple[Part, int], Workload] = {}

    def count(self, part: Part) -> int:
        return len(self._parts[part])

    def most(self, part: Part) -> int:
        usual = self.count(part)
        if part != "final":
            return usual
        each = sum(array.nbytes for array in self._prepared(part, 1)[0].values())
        return usual * next((times for times in MORE if times * usual * each <= HELD), 1)

    def run(self, part: Part, load: LoadEngine, count: int, batch: int) -> None:
        for _ in self._answers(part, load, count, batch):
            pass

    def exam(self, part: Part, load: LoadEngine, count: int) -> Score:
        workload = self._opened(part, count)
        return workload.score(dict(enumerate(self._answers(part, load, len(workload), BATCH))))

    def _opened(self, part: Part, count: int) -> Workload:
        """The workload on about the first `count` samples: a question may have several windows."""
        if count == len(self._parts[part]):
            return self._parts[part]
        if (part, count) not in self._others:
            self._others[part, count] = self._open(part, count)
        return self._others[part, count]

    def _open(self, part: Part, count: int | None = None) -> Workload:
        return open_workload(self._network, "mini", replace(self._asked, split=_SPLITS[part], count=count))

    def _answers(self, part: Part, load: LoadEngine, count: int, batch: int) -> Iterator[bytes]:
        """The logged bytes of the answers to the first `count` samples."""
        workload, samples = self._parts[part], self._prepared(part, count)
        with workload.predictor(load) as predict:
            for begin in range(0, count, batch):
                for row in predict(workload.collate(samples[begin : min(begin + batch, count)])):
                    yield row.tobytes()

    def _prepared(self, part: Part, count: int) -> list[Tensors]:
        """The first samples after preprocessing, which is done once: every candidate answers the same ones."""
        samples, workload = self._samples[part], self._parts[part]
        if count > len(workload):
            workload = self._opened(part, count)
        samples += [workload.sample(index) for index in range(len(samples), count)]
        return samples


def _reads(workload: Workload) -> frozenset[str] | None:
    """The outputs that the workload's predictor asks its engine for, heard on one sample."""
    recording = Recording(_reference_engine)
    with workload.predictor(recording) as predict:
        predict(workload.collate([workload.sample(0)]))
    return frozenset(recording.recorder.read) or None


class FullExam(Subject):
    """A network at full size, judged by how far its engine's outputs agree with FP32's.

    With weights that are noise, nothing is judged. The parts are spans of the data set, one after the other.
    """

    def __init__(self, network: str, asked: Asked) -> None:
        self._workload = workload = open_workload(network, "full", asked)
        assert workload.model is not None
        noise = workload.origin == "synthetic"
        self.name = f"{network}-full"
        self.model = workload.model
        self.judged = "speed" if noise else "agreement"
        self.notes = workload.notes if noise else (*workload.notes, AGREEMENT_NOTE)
        self.batches = (1, 8) if 8 * workload.card.full.flops <= HEAVY else (1,)
        self._spans = _spans(len(workload), FEW if noise else MANY)
        self.data = f"{workload.data}: " + ", ".join(f"{len(span)} {part}" for part, span in self._spans.items())
        self._reference: dict[tuple[Part, int], list[Tensors]] = {}

    def count(self, part: Part) -> int:
        return len(self._spans[part])

    def run(self, part: Part, load: LoadEngine, count: int, batch: int) -> None:
        workload, span = self._workload, self._spans[part][:count]
        with workload.predictor(load) as predict:
            for begin in range(0, len(span), batch):
                predict(workload.collate([workload.sample(index) for index in span[begin : begin + batch]]))

    def exam(self, part: Part, load: LoadEngine, count: int) -> Score:
        have = self._outputs(part, load, count)
        if (part, count) not in self._reference:
            self._reference[part, count] = self._outputs(part, _reference_engine, count)
        return agreement(have, self._reference[part, count], None)

    def _outputs(self, part: Part, load: LoadEngine, count: int) -> list[Tensors]:
        """What the engine gives for each sample."""
        recording = Recording(load)
        self.run(part, recording, count, 1)
        return recording.recorder.answers


def subject_of(network: str, size: Size, asked: Asked) -> Subject:
    """The network as the optimiser sees it. Raises whatever opening its workload raises."""
    if network == "null":
        raise UsageError("null: there is nothing to optimise")
    return MiniatureExam(network, asked) if size == "mini" else FullExam(network, asked)


def _spans(length: int, counts: Mapping[Part, int]) -> dict[Part, range]:
    """Spans for the parts, shortened alike where the data set is too small for all."""
    share = min(1.0, length / sum(counts.values()))
    spans: dict[Part, range] = {}
    begin = 0
    for part, count in counts.items():
        end = begin + max(1, int(share * count))
        spans[part] = range(begin, end)
        begin = end
    return spans


def _reference_engine(path: Path | None) -> Engine:
    return load("onnx", path, EngineConfig(), Cpu.detect().partition())
