# SPDX-License-Identifier: Apache-2.0
import re
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from septet.errors import DataError
from septet.pipelines.span import LONGEST_ANSWER, N_BEST, NOTHING, answer, recover
from septet.pipelines.text import Passage, Window, WordPieces, read_vocabulary, split, windows
from septet.tensor import Array

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPELLINGS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS), "the", "##ing"]
SPELLINGS += [
    "steve",
    "smith",
    ".",
    ",",
    "'",
    "(",
    ")",
    "-",
    *"0123456789",
    *(f"##{digit}" for digit in range(10)),
]
PIECES = WordPieces({spelling: number for number, spelling in enumerate(SPELLINGS)})


def passage(text: str) -> Passage:
    words = split(text)
    return Passage(words, PIECES([words])[0])


def question(tokens: int) -> Array:
    return np.full(tokens, SPELLINGS.index("the"), np.int64)


def by_hand(text: str) -> list[str]:
    """Uncased WordPiece, from its words alone: lower case, no accents, marks apart, longest piece first."""
    bare = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    found = []
    for word in re.findall(r"\w+|[^\w\s]", bare):
        pieces, begin = [], 0
        while begin < len(word):
            ends = range(len(word), begin, -1)
            spellings = (("##" if begin else "") + word[begin:end] for end in ends)
            piece = next((spelling for spelling in spellings if spelling in SPELLINGS), None)
            if piece is None:
                pieces, begin = ["[UNK]"], len(word)
            else:
                pieces.append(piece)
                begin += len(piece.removeprefix("##"))
        found += pieces
    return found


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="abcTHEing éÜß.,'()-012 \t\n", max_size=60))
def test_texts_are_cut_as_the_words_say(text: str) -> None:
    words = split(text)
    pieces = PIECES([words])[0]
    assert pieces.spellings == by_hand(text)
    assert [SPELLINGS[number] for number in pieces.ids] == pieces.spellings
    for place, word in enumerate(words):
        mine = [s for s, owner in zip(pieces.spellings, pieces.words, strict=True) if owner == place]
        assert mine == by_hand(word)


def test_a_window_is_question_then_passage_then_padding() -> None:
    (window,) = windows(question(2), passage("Steve Smith."))
    ids, mask, segments = window.tensors(PIECES, 10)
    spelt = [SPELLINGS[number] for number in ids]
    assert spelt == ["[CLS]", "the", "the", "[SEP]", "steve", "smith", ".", "[SEP]", "[PAD]", "[PAD]"]
    assert mask.tolist() == [1] * 8 + [0] * 2
    assert segments.tolist() == [0] * 4 + [1] * 4 + [0] * 2
    assert {part.dtype for part in (ids, mask, segments)} == {np.dtype(np.int64)}


def test_a_long_question_is_cut_at_64() -> None:
    (window,) = windows(question(100), passage("a b"))
    assert window.first == 66
    assert window.tensors(PIECES)[1].sum() == 1 + 64 + 1 + 2 + 1


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70), st.integers(1, 2_000))
def test_windows_cover_a_passage_and_each_piece_is_best_in_one(tokens: int, count: int) -> None:
    text = passage("a " * count)
    found = windows(question(tokens), text)
    room = 384 - min(tokens, 64) - 3
    assert [window.begin for window in found] == [128 * place for place in range(len(found))]
    assert all(window.size == room for window in found[:-1])
    assert found[-1].begin + found[-1].size == count
    assert all(one.begin + one.size < count for one in found[:-1])
    times_best = np.zeros(count, int)
    for window in found:
        times_best[window.begin : window.begin + window.size] += window.best
    assert (times_best == 1).all()


@settings(deadline=None, max_examples=25)
@given(st.integers(350, 900))
def test_a_piece_is_best_where_the_lesser_side_is_greatest(count: int) -> None:
    found = windows(question(10), passage("a " * count))
    for piece in range(0, count, 7):
        scores = [
            min(piece - w.begin, w.begin + w.size - 1 - piece) + 0.01 * w.size
            if w.begin <= piece < w.begin + w.size
            else -1.0
            for w in found
        ]
        wanted = scores.index(max(scores))
        assert [bool(w.best[piece - w.begin]) for w in found if w.begin <= piece < w.begin + w.size].count(
            True
        ) == 1
        assert found[wanted].best[piece - found[wanted].begin]


def slow_answer(found: list[Window], logits: list[Array]) -> str:
    """The rule for the best span, pair by pair."""
    spans = []
    for place, (window, pair) in enumerate(zip(found, logits, strict=True)):
        starts, ends = (
            sorted(range(len(side)), key=lambda at, side=side: -float(side[at]))[:N_BEST]  # type: ignore[misc]
            for side in pair.T
        )
        for start in starts:
            for end in ends:
                first, last = start - window.first, end - window.first
                if (
                    not 0 <= first <= last < window.size
                    or last - first >= LONGEST_ANSWER
                    or not window.best[first]
                ):
                    continue
                spans.append((float(pair[start, 0]) + float(pair[end, 1]), place, first, last))
    if not spans:
        return NOTHING
    _, place, first, last = max(spans, key=lambda span: span[0])
    text = found[place].passage
    owners = text.pieces.words[found[place].begin + first : found[place].begin + last + 1]
    return " ".join(text.words[owners[0] : owners[-1] + 1])


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 700), st.integers(0, 2**31))
def test_the_best_span_is_the_best_of_all_that_are_allowed(count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    text = passage(" ".join(LETTERS[number] for number in draw.integers(0, 26, count)))
    found = windows(question(5), text)
    logits = [draw.standard_normal((384, 2)).astype(np.float32) for _ in found]
    assert answer(found, logits, PIECES) == slow_answer(found, logits)


def test_where_no_span_is_allowed_the_answer_is_a_word_that_says_so() -> None:
    found = windows(question(5), passage("a b c"))
    logits = np.zeros((384, 2), np.float32)
    logits[100:150] = 5
    assert answer(found, [logits], PIECES) == NOTHING
    assert answer(found, [np.full((384, 2), np.nan, np.float32)], PIECES) == NOTHING


@pytest.mark.parametrize(
    ("spelt", "text", "wanted"),
    [
        ("steve smith", "Steve Smith's", "Steve Smith"),
        ("1895", "(1895-1943).", "1895"),
        ("cafe", "Café,", "Café"),
        ("not there", "Steve Smith's", "Steve Smith's"),
        ("", "Steve", "Steve"),
        ("smith", "\u200bSteve Smith", "\u200bSteve Smith"),  # cleaning drops a character: the whole text
    ],
)
def test_an_answer_is_given_in_the_passages_spelling(spelt: str, text: str, wanted: str) -> None:
    assert recover(spelt, text, PIECES) == wanted


def test_a_vocabulary_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(SPELLINGS) + "\n", encoding="utf-8")
    assert list(read_vocabulary(path)) == SPELLINGS
    assert all(before + 1 == after for before, after in pairwise(read_vocabulary(path).values()))


@pytest.mark.parametrize(("content", "words"), [(b"a\nb\na\n", "has 'a' twice"), (b"\xff\xfe", "not UTF-8")])
def test_a_bad_vocabulary_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_vocabulary(path)
    assert "vocab.txt" in str(caught.value)
    with pytest.raises(DataError, match=r"none\.txt"):
        read_vocabulary(tmp_path / "none.txt")
    with pytest.raises(DataError, match=r"mine: has no \[CLS\], \[SEP\]"):
        WordPieces({"[PAD]": 0, "[UNK]": 1}, "mine")
