# SPDX-License-Identifier: Apache-2.0
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer

from septet.errors import DataError
from septet.pipelines.text import Passage, WordPieces, read_vocabulary, split, windows
from septet.tensor import Array
from septet.workloads.bert import OFFICIAL_VOCABULARY
from septet.workloads.fetch import md5_of
from septet.workloads.squad import File, MadeUpWindows, SquadWindows, best, exact, f1, normal, read

HALF = Path(__file__).parents[4] / "shared" / "data" / "squad" / "dev-v1.1-half.json"
VOCABULARY = Path(os.environ.get("SEPTET_BERT_VOCABULARY", "none"))

MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def plain_normal(text: str) -> list[str]:
    """SQuAD's words of an answer, from the definition: lower case, no marks, no articles, single blanks."""
    bare = "".join(character for character in text.lower() if character not in MARKS)
    words = []
    for word in bare.split():
        # an article counts as one wherever it stands between characters that are no word's
        parts, part = [], ""
        for character in word:
            if character.isalnum() or character == "_":
                part += character
            else:
                parts += [part, character]
                part = ""
        kept = "".join(" " if one in ("a", "an", "the") else one for one in [*parts, part])
        words += kept.split()
    return words


def plain_f1(said: str, truth: str) -> float:
    ours, theirs = plain_normal(said), plain_normal(truth)
    left = list(theirs)
    shared = 0
    for word in ours:
        if word in left:
            left.remove(word)
            shared += 1
    if shared == 0:
        return 0.0
    precision, recall = shared / len(ours), shared / len(theirs)
    return 2 * precision * recall / (precision + recall)


SAID = st.lists(
    st.sampled_from(["the", "The", "a", "an.", "cat", "Cat's", "dog", "—", "a–b", "  ", "$12", "1,000", "é"])
)


@settings(max_examples=500)
@given(SAID, SAID)
def test_answers_are_measured_as_defined(said: list[str], truth: list[str]) -> None:
    ours, theirs = " ".join(said), " ".join(truth)
    assert normal(ours).split() == plain_normal(ours)
    assert f1(ours, theirs) == pytest.approx(plain_f1(ours, theirs))
    assert exact(ours, theirs) == (plain_normal(ours) == plain_normal(theirs))


@settings(max_examples=300)
@given(st.text(max_size=40))
def test_any_text_is_normalised_as_defined(text: str) -> None:
    assert normal(text).split() == plain_normal(text)


def test_the_best_truth_counts() -> None:
    assert best(f1, ["the red cat", "x"], [["dog", "cat"], ["y"]]).tolist() == [pytest.approx(2 / 3), 0]
    assert best(exact, ["The cat!"], [["dog", "cat"]]).tolist() == [1]


def squad(**changes: Any) -> dict[str, Any]:
    question = {"id": "q1", "question": "Who sat?", "answers": [{"text": "the cat", "answer_start": 0}]} | changes
    context = question.pop("context", "the cat sat on the mat")
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": [question]}]}]}


def write(folder: Path, content: object) -> Path:
    path = folder / "dev-v1.1.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_good_file_is_read(tmp_path: Path) -> None:
    assert isinstance(read(write(tmp_path, squad())), File)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (squad(context=" \n"), "question q1: its passage is empty"),
        (squad(question=" "), "question q1: the question is empty"),
        (squad(answers=[]), "question q1: has no answer"),
        (squad(answers=[{"text": "a dog", "answer_start": 0}]), "question q1: the answer 'a dog' is not in the"),
        (squad(answers=[{"text": "", "answer_start": 0}]), "question q1: the answer '' is not in"),
        (squad(answers=[{"text": "the cat", "answer_start": 1}]), "the answer 'the cat' is not at character 1"),
        (
            squad(answers=[{"text": "the cat", "answer_start": -12}]),
            "the answer 'the cat' is not at character -12",
        ),
        ({"data": 2 * squad()["data"]}, "question q1: another question has the same name"),
        ({"data": []}, "holds no question"),
        ('{"data": [', "not of SQuAD's form"),
        ({"data": [{"title": "t"}]}, "missing required field `paragraphs`"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "not of SQuAD's form"),
    ],
)
def test_bad_data_is_named(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(DataError, match=r"dev-v1\.1\.json") as caught:
        read(write(tmp_path, content))
    assert words in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dev-v1\.1\.json: No such file"):
        read(tmp_path / "dev-v1.1.json")


def test_made_up_windows_are_seeded_and_of_squads_lengths() -> None:
    made = MadeUpWindows(2_000, 30_522)
    assert all(np.array_equal(*pair) for pair in zip(made.tensors(3), made.tensors(3), strict=True))
    lengths = np.array([made.tensors(index)[1].sum() for index in range(len(made))])
    assert lengths.mean() == pytest.approx(178.5, rel=0.03)
    assert np.median(lengths) == pytest.approx(164, rel=0.03)
    assert np.quantile(lengths, 0.9) == pytest.approx(272, rel=0.05)
    assert (lengths == 384).mean() == pytest.approx(0.024, abs=0.012)
    ids = np.array([made.tensors(index)[0] for index in range(200)])
    assert ids.min() == 0
    assert ids.max() < 30_522
    with pytest.raises(DataError, match="no answers"):
        made.truths()


needs_half = pytest.mark.skipif(not HALF.is_file(), reason=f"needs {HALF.name}, which is not here")


@pytest.fixture(scope="module")
def half() -> File:
    return read(HALF)


@pytest.fixture(scope="module")
def trained(half: File) -> WordPieces:
    """A vocabulary trained on the passages: somewhat coarser than the official one is fine."""
    passages = (paragraph.context for article in half.data for paragraph in article.paragraphs)
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(passages, vocab_size=20_000, min_frequency=2, show_progress=False)
    return WordPieces(tokenizer.get_vocab())


def pointing(file: File, pieces: WordPieces) -> list[Array]:
    """Logits that point at the first answer of each question, wherever a window holds it."""
    found = []
    for paragraph in (paragraph for article in file.data for paragraph in article.paragraphs):
        words = split(paragraph.context)
        passage = Passage(words, pieces([words])[0])
        owners = passage.pieces.words
        for question in paragraph.qas:
            answer = question.answers[0]
            first = len(split(paragraph.context[: answer.answer_start] + "x")) - 1
            owned = np.flatnonzero((owners >= first) & (owners < first + len(split(answer.text))))
            for window in windows(pieces([[question.question]])[0].ids, passage):
                logits = np.zeros((384, 2), np.float32)
                begin, end = owned[0] - window.begin, owned[-1] - window.begin
                if begin >= 0 and end < window.size:
                    logits[window.first + begin, 0] = logits[window.first + end, 1] = 9
                found.append(logits)
    return found


@needs_half
def test_half_of_squad_has_about_as_many_windows_as_it_should(half: File, trained: WordPieces) -> None:
    tales = SquadWindows(half, trained, "half")
    assert len(tales.truths()) == 5_665
    # the whole dev set has 10,833 windows of 10,570 questions under the official vocabulary
    assert 1.01 < len(tales) / 5_665 < 1.05
    lengths = np.array([tales.tensors(index)[1].sum() for index in range(len(tales))])
    assert 160 < lengths.mean() < 195
    assert 145 < np.median(lengths) < 180
    assert 0.01 < (lengths == 384).mean() < 0.05


@needs_half
@pytest.mark.skipif(
    not VOCABULARY.is_file() or md5_of(VOCABULARY) != OFFICIAL_VOCABULARY.md5,
    reason="needs the official vocabulary: SEPTET_BERT_VOCABULARY=…/vocab.txt",
)
def test_half_of_squad_under_the_official_vocabulary(half: File) -> None:
    tales = SquadWindows(half, WordPieces(read_vocabulary(VOCABULARY)), "half")
    lengths = np.array([tales.tensors(index)[1].sum() for index in range(len(tales))])
    assert (len(tales), lengths.min(), lengths.max()) == (5_859, 41, 384)
    assert lengths.mean() == pytest.approx(178.5, rel=0.01)
    assert np.median(lengths) == pytest.approx(164, rel=0.01)


@needs_half
@pytest.mark.parametrize(
    ("measure", "plain"),
    [(f1, plain_f1), (exact, lambda said, truth: float(plain_normal(said) == plain_normal(truth)))],
)
def test_real_answers_are_measured_as_defined(
    half: File, measure: Callable[[str, str], float], plain: Callable[[str, str], float]
) -> None:
    answers = [q.answers for article in half.data for p in article.paragraphs for q in p.qas]
    truths = [[one.text for one in some] for some in answers]
    said = [some[-1] for some in truths[1:]] + [truths[0][0]]
    ours = best(measure, said, truths)
    theirs = [max(plain(one, truth) for truth in some) for one, some in zip(said, truths, strict=True)]
    assert np.allclose(ours, theirs)
    assert 0 < ours.mean() < 0.3


@needs_half
def test_answers_that_are_pointed_at_are_found_again(half: File, trained: WordPieces) -> None:
    few = File(half.data[:3])
    tales = SquadWindows(few, trained, "few")
    found = best(f1, tales.answers(pointing(few, trained)), tales.truths())
    assert found.mean() > 0.93
