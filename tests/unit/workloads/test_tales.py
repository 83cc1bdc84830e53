# SPDX-License-Identifier: Apache-2.0
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from septet.pipelines.text import WordPieces, split
from septet.workloads.split import Split
from septet.workloads.squad import SquadWindows, read
from septet.workloads.tales import COUNTS, Tales, vocabulary
from septet.workloads.transformer import BERT_MINI

SPLITS: list[Split] = list(COUNTS)


@pytest.mark.parametrize("part", SPLITS)
def test_a_tale_is_the_same_whenever_it_is_drawn(part: Split) -> None:
    forwards = [Tales(part).paragraph(index) for index in range(5)]
    backwards = [Tales(part).paragraph(index) for index in reversed(range(5))]
    assert forwards == list(reversed(backwards))
    assert forwards[0].context != forwards[1].context


def test_tales_of_two_splits_differ() -> None:
    assert len({Tales(part).paragraph(0).context for part in SPLITS}) == len(SPLITS)


def test_they_are_of_squads_form(tmp_path: Path) -> None:
    path = tmp_path / "tales.json"
    path.write_bytes(msgspec.json.encode(Tales("search", 50).file()))
    assert read(path) == Tales("search", 50).file()


def test_an_answer_stands_where_it_is_said_to_and_asks_for_reading() -> None:
    paragraphs = Tales("test").file().data[0].paragraphs
    lengths = Counter[int]()
    far = 0
    for paragraph in paragraphs:
        (question,) = paragraph.qas
        (answer,) = question.answers
        assert paragraph.context[answer.answer_start :].startswith(answer.text)
        lengths[len(split(answer.text))] += 1
        sentence = paragraph.context[: answer.answer_start].rpartition(". ")[2]
        far += sentence.startswith(("He ", "She "))
    assert len(paragraphs) == COUNTS["test"]
    assert set(lengths) == {1, 2, 3, 4, 5}
    # often the sentence itself does not name the person
    assert 0.15 < far / len(paragraphs) < 0.5


def test_lengths_spread_as_squads() -> None:
    windows = SquadWindows(Tales("test").file(), WordPieces(vocabulary()), "tales")
    lengths = np.array([windows.tensors(index)[1].sum() for index in range(len(windows))])
    assert lengths.mean() == pytest.approx(178.5, rel=0.03)
    assert np.median(lengths) == pytest.approx(164, rel=0.03)
    assert np.quantile(lengths, 0.9) == pytest.approx(272, rel=0.04)
    assert (lengths == 384).mean() == pytest.approx(0.024, abs=0.01)
    assert len(windows) > COUNTS["test"]


def test_the_vocabulary_knows_all_that_is_told() -> None:
    pieces = WordPieces(vocabulary())
    texts = [split(Tales("train").paragraph(index).context) for index in range(300)]
    assert all("[UNK]" not in cut.spellings for cut in pieces(texts))
    assert len(vocabulary()) == BERT_MINI.vocabulary
    assert list(vocabulary().values()) == list(range(BERT_MINI.vocabulary))


def test_a_tale_may_be_shorter() -> None:
    whole, short = (Tales("train").paragraph(3, shrink).context for shrink in (1.0, 0.3))
    assert len(short) < 0.6 * len(whole)
