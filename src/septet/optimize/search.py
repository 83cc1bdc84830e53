# SPDX-License-Identifier: Apache-2.0
"""The search for the fastest form of a network that keeps its accuracy.

Everything that was finished lies in the search's folder. Started again, the search asks for the same things in the
same order, and is answered from there: so it ends as if it had never been interrupted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from msgspec.structs import replace

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, load
from septet.errors import CandidateImpossible, EngineError, ModelError
from septet.optimize import graph, ranking
from septet.optimize.bisection import fewest
from septet.optimize.candidate import REFERENCE, Candidate, Recipe
from septet.optimize.folder import FILES, SearchFolder, whole_folder
from septet.optimize.gate import Judgement, judge, times_to_tell
from septet.optimize.ledger import Ledger, Row
from septet.optimize.passes import apply, passes
from septet.optimize.plan import Family, plan
from septet.optimize.scores import Scores
from septet.optimize.stopwatch import Stopwatch, interleaved
from septet.optimize.subject import Part, Subject
from septet.optimize.workshop import Workshop
from septet.score import Score
from septet.tensor import Tensors

CALIBRATION = 128
"""Samples from which scales are taken, at most."""

PROOF = 4
"""Samples on which passes prove that they change nothing."""

TIMED = 8
"""Samples of which calls are timed, alone and in one batch."""

FIRST_LOOK = 8
"""A candidate is first judged on one in so many samples: one that already misses is not run on all."""

LEAST_LOOK = 32
"""A first look takes at least so many samples."""

FIRST_WORD = 4
"""The first look at samples not seen before takes at most so many times the usual number."""

RESERVE = 0.25
"""The share of the time that is kept for timing and for the last word."""

Tell = Callable[[str, float], None]
"""Takes what is being done, in words, and how far it is, 0…1."""


class Search:
    """One search, in `folder`, which may hold the beginnings of it.

    `minutes` is how long it may look for candidates, timing and last word included as far as can be foreseen.
    """

    def __init__(
        self,
        subject: Subject,
        keep: float,
        folder: SearchFolder,
        *,
        minutes: float | None = None,
        tell: Tell = lambda words, done: None,
        stopwatch: Stopwatch = interleaved,
    ) -> None:
        self.subject = subject
        self._keep = keep
        self._folder = folder
        self._tell = tell
        self._stopwatch = stopwatch
        self._end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._reserve = 60 * (minutes or 0) * RESERVE
        self._partition = Cpu.detect().partition()
        self.ledger: Ledger = folder.ledger
        self._scores = Scores(folder.path / "scores", self._score_reference)
        self.late = False
        self._done = 0.0
        self._shop: Workshop

    def run(self) -> Ledger:
        """Search; the ledger's `chosen` is the product. Raises whatever the network in FP32 raises."""
        self._shop = Workshop(self._prepared(), self._calibration, self._folder.path / FILES)
        self._note_reference()
        families = plan(graph.read(self._shop.path), Cpu.detect())
        for place, family in enumerate(families):
            self._done = place / (len(families) + 1)
            self._try_family(family)
        self._done = len(families) / (len(families) + 1)
        self._try_rest_in_bf16()
        self._time()
        self._decide()
        self._tidy()
        return self.ledger

    @property
    def file(self) -> Path:
        """The model file of the product."""
        row = self.ledger.product or self.ledger.reference
        return self._file(row.candidate)

    def feed(self) -> Tensors:
        """What the engine gets for one sample."""
        return self.subject.feeds("calibration", self._load_reference, 1, 1)[0]

    # What candidates are made of and held against

    def _prepared(self) -> Path:
        """The model after its passes."""
        subject, folder = self.subject, self._folder.path / "prepared"
        if not folder.exists():
            self._tell("folding the graph", 0.0)
            with whole_folder(folder) as beside:
                todo = passes(subject.reads, subject.largest_only)
                feeds = subject.feeds(
                    "calibration", self._load_reference, min(PROOF, self._count("calibration")), 1
                )
                self.ledger.passes = apply(subject.model, beside / "model.onnx", feeds, todo)
                self._folder.save()
        return folder / "model.onnx"

    def _calibration(self) -> list[Tensors]:
        count = min(CALIBRATION, self._count("calibration"))
        return self.subject.feeds("calibration", self._load_reference, count, 1)

    def _note_reference(self) -> None:
        if self.ledger.row(REFERENCE) is None:
            size = sum(part.stat().st_size for part in graph.files(self.subject.model))
            self.ledger.put(Row(REFERENCE, "", size, "kept", "the reference itself"))
            self._folder.save()

    # Candidates

    def _try_family(self, family: Family) -> None:
        """Try its members until one keeps accuracy; where none does, give layers of the best back."""
        rows = []
        for candidate in family:
            row = self._try(candidate)
            if row is None:
                return
            rows.append(row)
            if row.sure:
                return
        best = max(rows, key=_kept)
        if not any(row.holds for row in rows) and best.search and best.candidate.recipe.quantiser == "static":
            self._give_back(best.candidate)

    def _try_rest_in_bf16(self) -> None:
        """The best INT8 file of each quantiser for OpenVINO once more, with what it leaves in floating point in
        bf16."""
        best: dict[str, Row] = {}
        for row in self.ledger.rows:
            if row.holds and (row.candidate.engine, row.candidate.precision) == ("openvino", "int8"):
                other = best.get(row.candidate.recipe.quantiser)
                if other is None or _kept(row) > _kept(other):
                    best[row.candidate.recipe.quantiser] = row
        if Cpu.detect().bf16:
            for row in best.values():
                self._try(replace(row.candidate, precision="int8-bf16"))

    def _give_back(self, candidate: Candidate) -> None:
        """Find how few layers, of those that do most harm, must stay in floating point for `candidate` to hold."""
        ranked = self._ranked(candidate)

        def holds(count: int) -> bool:
            kept = tuple(sorted(name for group in ranked[:count] for name in group))
            recipe = replace(candidate.recipe, kept=kept)
            row = self._try(replace(candidate, recipe=recipe))
            return row is None or row.holds  # out of time: nothing more is tried

        if len(ranked) > 1:
            fewest(len(ranked) - 1, holds)

    def _ranked(self, candidate: Candidate) -> list[tuple[str, ...]]:
        """The layers in groups, the most harmful first."""

        def quantised(kept: ranking.Names) -> Path:
            recipe = replace(candidate.recipe, kept=tuple(kept))
            if used:
                self._shop.drop(used[-1])
            used.append(recipe)
            return self._shop.file(recipe)

        used: list[Recipe] = []

        def tell(done: float) -> None:
            self._tell(f"ranking {len(layers)} layers of {candidate.words}: {100 * done:.0f} %", self._done)

        layers = self._shop.layers
        found = self._folder.ranking(
            candidate.recipe.key,
            lambda: ranking.rank(self._shop.path, layers, self._shop.feeds, quantised, tell),
        )
        if used:
            self._shop.drop(used[-1])
        return found

    def _try(self, candidate: Candidate) -> Row | None:
        """The row of a candidate: the one that it has, or a new one; None where there is no time left for it."""
        row = self.ledger.row(candidate)
        if row is None and not self._late(self._reserve):
            self._tell(f"trying {candidate.words}", self._done)
            row = self._tried(candidate)
            self.ledger.put(row)
            self._folder.save()
        return row

    def _late(self, reserve: float = 0.0) -> bool:
        """Whether no more than `reserve` seconds are left, so that something is left undone."""
        late = time.monotonic() > self._end - reserve
        self.late = self.late or late
        return late

    def _tried(self, candidate: Candidate) -> Row:
        try:
            file = self._shop.file(candidate.recipe)
            found = self._judged(candidate)
        except (CandidateImpossible, EngineError, ModelError) as error:
            return Row(candidate, "", 0, "rejected", f"cannot be run: {error}")
        size = sum(part.stat().st_size for part in graph.files(file))
        return Row(candidate, str(file.relative_to(self._folder.path)), size, found.verdict, found.why, found)

    def _judged(self, candidate: Candidate) -> Judgement:
        """What the search samples say; a part of them is enough for a candidate that already misses."""
        whole = self._count("search")
        few = max(LEAST_LOOK, whole // FIRST_LOOK)
        if few <= whole // 2:
            first = self._against(candidate, "search", few)
            if first.verdict == "rejected":
                return first
        return self._against(candidate, "search", whole)

    def _against(self, candidate: Candidate, part: Part, count: int, looks: int = 1) -> Judgement:
        reference = self._scores(part, count)
        score = self.subject.exam(part, lambda _: self._engine(candidate), count)
        return judge(score, reference, self._keep, self.subject.judged, looks)

    # Speed, and the last word

    def _time(self) -> None:
        """Time all candidates that hold against each other, unless that was done."""
        rows = [row for row in self.ledger.rows if row.holds or row.candidate == REFERENCE]
        if all(row.timing for row in rows) or len(rows) < 2:
            return
        self.ledger.chosen = None  # candidates came to it since it was decided: the search had run out of time
        self._tell(f"timing {len(rows)} candidates in turn", self._done)
        feeds = {
            batch: self.subject.feeds("calibration", self._load_reference, TIMED // batch * batch, batch)
            for batch in self.subject.batches
        }
        with ExitStack() as stack:
            timings = self._stopwatch(
                [stack.enter_context(self._engine(row.candidate, threads=1)) for row in rows], feeds
            )
        for row, timing in zip(rows, timings, strict=True):
            self.ledger.put(replace(row, timing=timing))
        self._folder.save()

    def _decide(self) -> None:
        """Take the fastest that keeps accuracy on samples that were not seen before, FP32 where there is none."""
        if self.ledger.chosen is None or self.ledger.out_of_time != self.late:
            winner = next((row for row in self._finalists() if row.verdict == "kept"), self.ledger.reference)
            self.ledger.out_of_time = self.late
            self.ledger.chosen = self.ledger.rows.index(winner)
            self._folder.save()

    def _finalists(self) -> Iterator[Row]:
        """The candidates that hold and are faster than FP32, the fastest first, each with its last word."""
        faster = [row for row in self.ledger.rows if row.holds and (self.ledger.speedup(row) or 0) > 1]
        for row in sorted(faster, key=each):
            while (count := self._to_draw(row)) > row.drawn:
                self._tell(f"the last word on {row.candidate.words}, on {count:,} samples", self._done)
                found = self._against(row.candidate, "final", count, self._looks() + 1)
                row = replace(row, final=found, drawn=count, verdict=found.verdict, why=found.why)
                self.ledger.put(row)
                self._folder.save()
            yield row

    def _looks(self) -> int:
        """How often candidates have been held against samples not seen before."""
        return max((row.final.looks for row in self.ledger.rows if row.final), default=0)

    def _to_draw(self, row: Row) -> int:
        """How many samples its last word takes: as many as tell, by what was seen last; never fewer than usual.

        A first look that may be far off draws a few times the usual number at most. Where it leaves a doubt which
        the most that can be drawn would clear, so many are drawn.
        """
        usual, most = self._count("final"), self.subject.most("final")
        if row.final is None:
            assert row.search is not None
            wanted = min(FIRST_WORD * usual, self._count("search") * times_to_tell(row.search))
            return min(_doubled(usual, wanted), most)
        wanted = row.drawn * times_to_tell(row.final)
        hopeful = row.final.verdict == "undecided" and row.final.ratio >= self._keep and wanted <= most
        return min(_doubled(usual, wanted), most) if hopeful and not self._late() else row.drawn

    def _tidy(self) -> None:
        """Remove the files of what was rejected."""
        wanted = {row.candidate.recipe for row in self.ledger.rows if row.verdict != "rejected"}
        for row in list(self.ledger.rows):
            if row.file and row.candidate.recipe not in wanted:
                self._shop.drop(row.candidate.recipe)
                self.ledger.put(replace(row, file=""))
                self._folder.save()

    # Engines

    def _count(self, part: Part) -> int:
        return self.subject.count(part)

    def _score_reference(self, part: Part, count: int) -> Score:
        self._tell(f"FP32 on {count:,} samples ({part})", self._done)
        return self.subject.exam(part, self._load_reference, count)

    def _load_reference(self, path: Path | None) -> Engine:
        return self._engine(REFERENCE)

    def _engine(self, candidate: Candidate, threads: int | None = None) -> Engine:
        """The engine of a candidate; the reference runs the model as it came."""
        config = EngineConfig(candidate.precision, threads)
        return load(candidate.engine, self._file(candidate), config, self._partition)

    def _file(self, candidate: Candidate) -> Path:
        return self.subject.model if candidate == REFERENCE else self._shop.file(candidate.recipe)


def _kept(row: Row) -> float:
    """The share of FP32's score that was seen on the search samples."""
    return row.search.ratio if row.search else 0.0


def _doubled(usual: int, wanted: float) -> int:
    """`usual`, doubled until it is `wanted`: candidates whose last words are as long share FP32's answers."""
    count = usual
    while count < wanted:
        count *= 2
    return count


def each(row: Row) -> float:
    """CPU time a sample; endless where it was not timed."""
    return row.timing.each if row.timing else float("inf")
