# SPDX-License-Identifier: Apache-2.0
"""SQuAD v1.1: its file, its questions as windows that a network sees, exact match and F1; and made-up windows."""

from __future__ import annotations

import re
import string
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from septet.errors import DataError
from septet.pipelines.span import answer
from septet.pipelines.text import LENGTH, Passage, WordPieces, split, windows
from septet.tensor import Array

FILE = "dev-v1.1.json"

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


class Answer(msgspec.Struct, frozen=True):
    """Words of the passage, and at which character of it they begin."""

    text: str
    answer_start: int


class Question(msgspec.Struct, frozen=True):
    """A question, its name, and the answers that several people gave."""

    id: str
    question: str
    answers: list[Answer]


class Paragraph(msgspec.Struct, frozen=True):
    """A passage and the questions on it."""

    context: str
    qas: list[Question]


class Article(msgspec.Struct, frozen=True):
    """Passages of one subject."""

    title: str
    paragraphs: list[Paragraph]


class File(msgspec.Struct, frozen=True):
    """A whole file of SQuAD's form."""

    data: list[Article]


def read(path: Path) -> File:
    """A file of SQuAD's form, checked.

    Raises DataError, naming the file and the question, for one that is missing, no JSON or not of that form,
    for an empty passage or question, a question without an answer, with one that its passage has not, or not
    where it says, or of a name that another question has.
    """
    try:
        file = msgspec.json.decode(path.read_bytes(), type=File)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not of SQuAD's form: {error}") from error
    _check(file, path)
    return file


def _check(file: File, path: Path) -> None:
    names: set[str] = set()
    for paragraph, question in _questions(file):
        where = f"{path}, question {question.id}"
        if question.id in names:
            raise DataError(f"{where}: another question has the same name")
        names.add(question.id)
        if not split(paragraph.context):
            raise DataError(f"{where}: its passage is empty")
        if not question.question.split():
            raise DataError(f"{where}: the question is empty")
        if not question.answers:
            raise DataError(f"{where}: has no answer")
        for one in question.answers:
            if not one.text.split() or one.text not in paragraph.context:
                raise DataError(f"{where}: the answer {one.text[:40]!r} is not in the passage")
            if one.answer_start < 0 or not paragraph.context.startswith(one.text, one.answer_start):
                raise DataError(f"{where}: the answer {one.text[:40]!r} is not at character {one.answer_start}")
    if not names:
        raise DataError(f"{path}: holds no question")


def _questions(file: File) -> Iterator[tuple[Paragraph, Question]]:
    for article in file.data:
        for paragraph in article.paragraphs:
            for question in paragraph.qas:
                yield paragraph, question


class Windows(ABC):
    """What a network sees of a data set, by index; `words` say in words what it is.

    Where it is `labelled` there are answers to judge by.
    """

    words: str
    labelled: bool

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def length(self, index: int) -> int:
        """How many tokens window `index` has, padding aside."""

    @abstractmethod
    def tensors(self, index: int) -> tuple[Array, Array, Array]:
        """Ids, mask and segments of window `index`, each int64 [384]."""

    @abstractmethod
    def answers(self, logits: Sequence[Array]) -> list[str]:
        """The answer to each question, from float [length, 2] of each window; only where labelled."""

    @abstractmethod
    def truths(self) -> list[list[str]]:
        """The right answers to each question; only where labelled."""


class SquadWindows(Windows):
    """The windows of all questions of a `file`, in its order.

    Raises DataError, naming `name` and the question, where its passage or question has no WordPiece.
    """

    labelled = True

    def __init__(self, file: File, pieces: WordPieces, name: str) -> None:
        asked = list(_questions(file))
        contexts = list(dict.fromkeys(paragraph.context for paragraph, _ in asked))
        words = [split(context) for context in contexts]
        cut = (Passage(*both) for both in zip(words, pieces(words), strict=True))
        passages = dict(zip(contexts, cut, strict=True))
        self._pieces = pieces
        self._windows = []
        self._first = [0]
        for (paragraph, question), said in zip(asked, pieces([[q.question] for _, q in asked]), strict=True):
            passage = passages[paragraph.context]
            if not len(passage.pieces) or not len(said):
                raise DataError(f"{name}, question {question.id}: nothing that can be read")
            self._windows += windows(said.ids, passage)
            self._first.append(len(self._windows))
        self._truths = [[one.text for one in question.answers] for _, question in asked]
        self.words = f"{name}, {len(asked):,} questions in {len(self):,} windows"

    def __len__(self) -> int:
        return len(self._windows)

    def length(self, index: int) -> int:
        return self._windows[index].length

    def tensors(self, index: int) -> tuple[Array, Array, Array]:
        return self._windows[index].tensors(self._pieces)

    def answers(self, logits: Sequence[Array]) -> list[str]:
        return [
            answer(self._windows[begin:end], logits[begin:end], self._pieces)
            for begin, end in zip(self._first[:-1], self._first[1:], strict=True)
        ]

    def truths(self) -> list[list[str]]:
        return self._truths


LENGTHS = (
    (0.0, 41), (0.1, 110), (0.25, 133), (0.5, 164), (0.75, 210), (0.9, 272), (0.976, 383), (0.976, 384), (1.0, 384)
)  # fmt: skip
"""How many tokens the windows of SQuAD's dev set have, padding aside, by their share."""


class MadeUpWindows(Windows):
    """Seeded random WordPieces of SQuAD's lengths, for speed where no data is given."""

    labelled = False
    _BEGIN, _END, _FIRST_WORD = 101, 102, 1_996  # as in the official vocabulary

    def __init__(self, count: int, vocabulary: int, seed: int = 0) -> None:
        self._count, self._vocabulary, self._seed = count, vocabulary, seed
        self.words = f"{count:,} made-up windows"

    def __len__(self) -> int:
        return self._count

    def length(self, index: int) -> int:
        return self._length(np.random.default_rng((self._seed, index)))

    def _length(self, draw: np.random.Generator) -> int:
        shares, lengths = np.array(LENGTHS).T
        return int(np.interp(draw.random(), shares, lengths))

    def tensors(self, index: int) -> tuple[Array, Array, Array]:
        draw = np.random.default_rng((self._seed, index))
        used = self._length(draw)
        ids, mask, segments = np.zeros((3, LENGTH), np.int64)
        question = int(draw.integers(7, 21))
        first = min(self._FIRST_WORD, self._vocabulary // 2)
        ids[:used] = draw.integers(first, self._vocabulary, used)
        ids[0], ids[question + 1], ids[used - 1] = self._BEGIN, self._END, self._END
        mask[:used], segments[question + 2 : used] = 1, 1
        return ids, mask, segments

    def answers(self, logits: Sequence[Array]) -> list[str]:
        raise DataError("made-up windows have no answers")

    def truths(self) -> list[list[str]]:
        raise DataError("made-up windows have no answers")


def normal(text: str) -> str:
    """`text` as SQuAD compares answers: lower case, without punctuation and articles, single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact(said: str, truth: str) -> float:
    """1 where both are the same answer, else 0."""
    return float(normal(said) == normal(truth))


def f1(said: str, truth: str) -> float:
    """The harmonic mean of precision and recall over the words of both, 0…1."""
    ours, theirs = normal(said).split(), normal(truth).split()
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0


def best(measure: Callable[[str, str], float], said: Sequence[str], truths: Sequence[Sequence[str]]) -> Array:
    """`measure` of each answer against the truth that it fits best: float64 [questions]."""
    return np.array([max(measure(one, t) for t in ts) for one, ts in zip(said, truths, strict=True)], np.float64)
