# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from networks_made import CLASSES, WIDTH, perceptron, sharp_attention, vectors
from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, load
from septet.errors import SearchElsewhere
from septet.optimize.folder import SearchFolder
from septet.optimize.ledger import Ledger
from septet.optimize.own import OwnModel
from septet.optimize.passes import outputs
from septet.optimize.search import FIRST_WORD, Search
from septet.optimize.stopwatch import Feeds, Timing
from septet.optimize.subject import Part
from septet.tensor import Array, Tensors

COUNT = 3_000


def the_later_the_faster(engines: Sequence[Engine], feeds: Feeds) -> list[Timing]:
    """A stopwatch whose figures are the same each time."""
    return [Timing(1 / place, 1 / place, 1, 3) for place in range(1, len(engines) + 1)]


def sure(path: Path, count: int, seed: int = 0) -> list[Tensors]:
    """Samples of which the network in FP32 is sure, so that rounding alone changes few answers."""
    samples = vectors(4 * count, seed)
    scores = np.sort(outputs(path, [{"x": np.stack([sample["x"] for sample in samples])}])[0]["scores"])
    order = np.argsort(scores[:, -2] - scores[:, -1])[:count]
    return [samples[place] for place in sorted(order)]


def top_one(path: Path, samples: Sequence[Tensors]) -> Callable[[Sequence[Tensors], Sequence[int]], Array]:
    """A score whose labels are what the network in FP32 says, but for one sample in ten."""
    truth = outputs(path, [{"x": np.stack([sample["x"] for sample in samples])}])[0]["scores"].argmax(axis=1)
    truth[::10] = (truth[::10] + 1) % CLASSES

    def score(answers: Sequence[Tensors], indices: Sequence[int]) -> Array:
        said = np.array([answer["scores"].argmax() for answer in answers])
        return np.asarray(said == truth[np.asarray(indices)])

    return score


def plainly(ledger: Ledger) -> Ledger:
    """The ledger without the sizes of IRs: OpenVINO numbers the nodes that it adds by what it made before."""
    again = msgspec.json.decode(msgspec.json.encode(ledger), type=Ledger)
    again.rows = [msgspec.structs.replace(row, size=0) for row in again.rows]
    return again


def searched(subject: OwnModel, keep: float, folder: Path, tell: Callable[[str, float], None] | None = None,
             minutes: float | None = None) -> Ledger:  # fmt: skip
    with SearchFolder(folder, subject, keep) as kept:
        return Search(
            subject,
            keep,
            kept,
            stopwatch=the_later_the_faster,
            tell=tell or (lambda words, done: None),
            minutes=minutes,
        ).run()


def verdicts(ledger: Ledger) -> dict[str, str]:
    return {row.candidate.words: row.verdict for row in ledger.rows}


@pytest.fixture
def loud(tmp_path: Path) -> OwnModel:
    """A classifier that INT8 breaks in one layer."""
    path = perceptron(tmp_path / "loud.onnx", outliers=1_000)
    samples = sure(path, COUNT)
    return OwnModel(path, samples, top_one(path, samples), path.parent / "search")


def test_a_network_that_int8_breaks_keeps_its_accuracy_or_its_precision(loud: OwnModel, tmp_path: Path) -> None:
    ledger = searched(loud, 0.99, tmp_path / "search")
    said = verdicts(ledger)
    assert said["openvino int8 (static, minmax)"] == said["onnx int8 (static, minmax)"] == "rejected"
    partly = [row for row in ledger.rows if row.candidate.recipe.kept and row.verdict == "kept"]
    assert partly
    assert all("layer1" in row.candidate.recipe.kept for row in partly)
    assert min(len(row.candidate.recipe.kept) for row in partly) < 4
    product = ledger.product
    assert product is not None
    assert product.final is not None
    assert product.final.verdict == "kept"


def test_what_is_chosen_keeps_accuracy_on_samples_that_nobody_has_seen(loud: OwnModel, tmp_path: Path) -> None:
    ledger = searched(loud, 0.99, tmp_path / "search")
    product = ledger.product
    assert product is not None
    file = tmp_path / "search" / product.file
    fresh = [{"x": np.stack([sample["x"] for sample in sure(loud.model, 2_000, seed=99)])}]
    config = EngineConfig(product.candidate.precision)
    with load(product.candidate.engine, file, config, Cpu.detect().partition()) as engine:
        have = engine.infer(fresh[0])["scores"].argmax(axis=1)
    assert np.mean(have == outputs(loud.model, fresh)[0]["scores"].argmax(axis=1)) > 0.99


def test_a_softmax_that_amplifies_error_is_never_shipped_broken(tmp_path: Path) -> None:
    path = sharp_attention(tmp_path / "hot.onnx", temperature=30)
    subject = OwnModel(path, vectors(400, shape=(8, WIDTH)), None, path.parent / "search")
    ledger = searched(subject, 0.99, tmp_path / "search")
    assert verdicts(ledger)["onnx int8 (static, minmax)"] == "rejected"
    product = ledger.product
    assert product is not None
    assert product is ledger.reference or (product.final is not None and product.final.low >= 0.99)


def test_fifty_samples_leave_a_thousandth_undecided(tmp_path: Path) -> None:
    path, samples = perceptron(tmp_path / "a.onnx"), vectors(125)
    subject = OwnModel(path, samples, top_one(path, samples), path.parent / "search")
    assert subject.count("final") == 50
    ledger = searched(subject, 0.999, tmp_path / "search")
    assert ledger.product is ledger.reference
    others = [row for row in ledger.rows if row is not ledger.reference]
    assert "kept" not in {row.verdict for row in others}
    finals = [row for row in others if row.final]
    assert finals
    assert all(row.verdict == "undecided" and "more samples" in row.why for row in finals)


class Drawn(OwnModel):
    """A model of whose samples for the last word a sixteenth is usual, and all can be drawn."""

    def count(self, part: Part) -> int:
        return self.most(part) // 16 if part == "final" else self.most(part)

    def most(self, part: Part) -> int:
        return super().count(part)


def test_a_last_word_that_leaves_a_doubt_is_said_on_more_samples(tmp_path: Path) -> None:
    path = perceptron(tmp_path / "a.onnx")
    samples = sure(path, COUNT)
    subject = Drawn(path, samples, top_one(path, samples), tmp_path)
    steps: list[str] = []
    ledger = searched(subject, 0.99, tmp_path / "search", lambda words, done: steps.append(words))
    (first, *_) = rows = [row for row in ledger.rows if row.final is not None]
    assert first is ledger.product
    assert first.final is not None
    assert (first.verdict, first.final.looks, len(rows)) == ("kept", 2, 1)
    assert FIRST_WORD * subject.count("final") < first.drawn <= subject.most("final")
    words = [words for words in steps if words.startswith("the last word")]
    assert len(words) == 2
    assert words[1].endswith(f"on {first.drawn:,} samples")


def test_a_last_word_is_not_drawn_out_where_the_most_would_not_tell(tmp_path: Path) -> None:
    path = perceptron(tmp_path / "a.onnx")
    samples = sure(path, 1_000)
    subject = Drawn(path, samples, top_one(path, samples), tmp_path)
    ledger = searched(subject, 0.999, tmp_path / "search")
    rows = [row for row in ledger.rows if row.final is not None]
    assert {row.drawn for row in rows} == {FIRST_WORD * subject.count("final")}
    assert sorted(row.final.looks for row in rows if row.final) == [*range(1, len(rows) + 1)]


def test_a_last_word_changes_nothing_of_what_the_search_had_found(tmp_path: Path) -> None:
    path = perceptron(tmp_path / "a.onnx")
    samples = sure(path, COUNT)
    right = top_one(path, samples)
    truth = outputs(path, [{"x": np.stack([sample["x"] for sample in samples])}])[0]["scores"]

    def worse_at_last(answers: Sequence[Tensors], indices: Sequence[int]) -> Array:
        found = np.asarray(right(answers, indices), float)
        off = [np.abs(one["scores"] - truth[index]).max() for one, index in zip(answers, indices, strict=True)]
        if set(indices) <= final and np.median(off) > 1e-3:
            found[: len(found) // 5] = 0
        return found

    subject = OwnModel(path, samples, worse_at_last, tmp_path / "search")
    final = set(subject._parts["final"])
    first = searched(subject, 0.99, tmp_path / "search")
    assert any(row.sure and row.final and row.final.verdict == "rejected" for row in first.rows)
    assert searched(subject, 0.99, tmp_path / "search") == first


def test_a_second_look_may_take_the_time_that_was_reserved_and_none_beyond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = perceptron(tmp_path / "a.onnx")
    samples = sure(path, COUNT)
    subject = Drawn(path, samples, top_one(path, samples), tmp_path)
    now = [0.0]
    monkeypatch.setattr("septet.optimize.search.time.monotonic", lambda: now[0])

    def ended_at(minutes: float, folder: Path) -> Ledger:
        def timed(engines: Sequence[Engine], feeds: Feeds) -> list[Timing]:
            now[0] += 60 * minutes
            return the_later_the_faster(engines, feeds)

        with SearchFolder(folder, subject, 0.99) as kept:
            return Search(subject, 0.99, kept, stopwatch=timed, minutes=100).run()

    early = ended_at(80, tmp_path / "in time")
    late = ended_at(120, tmp_path / "late")
    assert (early.product is early.reference, early.out_of_time) == (False, False)
    assert (late.product is late.reference, late.out_of_time) == (True, True)
    made_up_for = searched(subject, 0.99, tmp_path / "late").product
    assert made_up_for is not None
    assert early.product is not None
    assert made_up_for.candidate == early.product.candidate


class Interrupted(BaseException):
    """As a kill: nothing in the search catches it."""


def test_interrupted_anywhere_and_started_again_it_ends_the_same(loud: OwnModel, tmp_path: Path) -> None:
    steps: list[str] = []
    whole = searched(loud, 0.99, tmp_path / "whole", lambda words, done: steps.append(words))
    for stop in range(0, len(steps), 3):
        folder = tmp_path / f"stopped-{stop}"
        seen: list[str] = []

        def until(words: str, done: float, seen: list[str] = seen, stop: int = stop) -> None:
            if len(seen) == stop:
                raise Interrupted
            seen.append(words)

        with pytest.raises(Interrupted):
            searched(loud, 0.99, folder, until)
        again: list[str] = []

        def note(words: str, done: float, again: list[str] = again) -> None:
            again.append(words)

        resumed = searched(loud, 0.99, folder, note)
        assert plainly(resumed) == plainly(whole)
        tried = [words for words in seen if words.startswith("trying")]
        assert set(tried[:-1]).isdisjoint(again)  # the last one was interrupted


def test_a_finished_search_is_answered_from_its_folder(loud: OwnModel, tmp_path: Path) -> None:
    first = searched(loud, 0.99, tmp_path / "search")
    steps: list[str] = []
    assert searched(loud, 0.99, tmp_path / "search", lambda words, done: steps.append(words)) == first
    assert steps == []


def test_a_folder_holds_one_search(loud: OwnModel, tmp_path: Path) -> None:
    searched(loud, 0.99, tmp_path / "search")
    with pytest.raises(SearchElsewhere, match="holds a search of loud at 99 %"):
        searched(loud, 0.999, tmp_path / "search")
    with SearchFolder(tmp_path / "search", loud, 0.99), pytest.raises(SearchElsewhere, match="another process"):
        searched(loud, 0.99, tmp_path / "search")


def test_without_time_nothing_is_tried_and_with_time_it_goes_on(loud: OwnModel, tmp_path: Path) -> None:
    short = searched(loud, 0.99, tmp_path / "search", minutes=1e-9)
    assert short.product is short.reference
    assert searched(loud, 0.99, tmp_path / "search").product != short.reference
