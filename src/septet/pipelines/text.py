# SPDX-License-Identifier: Apache-2.0
"""Questions and passages to tensors, as the v0.7 reference does it for BERT.

Source: mlcommons/inference v0.7.1, language/bert/create_squad_data.py; WordPiece and its uncased clean-up are of
Devlin et al., «BERT: Pre-training of Deep Bidirectional Transformers», 2018, and of the code beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from septet.errors import DataError
from septet.tensor import Array

LENGTH = 384
"""How many tokens go into the network; what is shorter is padded."""

STRIDE = 128
"""How far each window over a long passage begins after the one before."""

LONGEST_QUESTION = 64
"""Tokens of a question beyond this are cut off."""

PAD, UNKNOWN, BEGIN, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"

_LONGEST_WORD = 100
"""A word of more characters than this is unknown."""

_SPACES = str.maketrans(dict.fromkeys("\t\r\n\u202f", " "))
"""What separates words in SQuAD's passages, beside the blank."""


@dataclass(frozen=True)
class Pieces:
    """A text in WordPieces: the id of each (int64), its spelling, and the word that it is from (int64)."""

    ids: Array
    spellings: list[str]
    words: Array

    def __len__(self) -> int:
        return len(self.spellings)


class WordPieces:
    """Uncased WordPiece over a vocabulary, spelling -> id.

    Raises DataError where one of the four special spellings is missing.
    """

    def __init__(self, vocabulary: Mapping[str, int], name: str = "the vocabulary") -> None:
        missing = [spelling for spelling in (PAD, UNKNOWN, BEGIN, END) if spelling not in vocabulary]
        if missing:
            raise DataError(f"{name}: has no {', '.join(missing)}")
        self.pad, self.begin, self.end = (vocabulary[spelling] for spelling in (PAD, BEGIN, END))
        model = WordPiece(dict(vocabulary), unk_token=UNKNOWN, max_input_chars_per_word=_LONGEST_WORD)
        self._normaliser = BertNormalizer(
            clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True
        )
        self._splitter = BertPreTokenizer()
        self._tokenizer = Tokenizer(model)
        self._tokenizer.normalizer = self._normaliser
        self._tokenizer.pre_tokenizer = self._splitter

    def __call__(self, texts: Sequence[Sequence[str]]) -> list[Pieces]:
        """The pieces of each of `texts`, which are given word by word.

        A word's pieces are the same wherever it stands: each is cut once, however often it is used.
        """
        words = list(dict.fromkeys(word for text in texts for word in text))
        encodings = self._tokenizer.encode_batch(words, add_special_tokens=False)
        known = {word: (one.ids, one.tokens) for word, one in zip(words, encodings, strict=True)}
        return [_joined([known[word] for word in text]) for text in texts]

    def clean(self, text: str) -> str:
        """`text` in lower case without accents, a blank around each punctuation mark."""
        parts = self._splitter.pre_tokenize_str(self._normaliser.normalize_str(text))
        return " ".join(part for part, _ in parts)


def _joined(words: Sequence[tuple[list[int], list[str]]]) -> Pieces:
    """The pieces of a text from the ids and spellings of each word."""
    ids = [number for numbers, _ in words for number in numbers]
    spellings = [spelling for _, cut in words for spelling in cut]
    places = [place for place, (numbers, _) in enumerate(words) for _ in numbers]
    return Pieces(np.array(ids, np.int64), spellings, np.array(places, np.int64))


def split(text: str) -> list[str]:
    """The words of a passage: what stands between blanks, tabs, ends of lines and narrow blanks."""
    return [word for word in text.translate(_SPACES).split(" ") if word]


def read_vocabulary(path: Path) -> dict[str, int]:
    """A ``vocab.txt``: one spelling a line, whose id is the number of the line from 0 on.

    Raises DataError, naming the file, for one that is missing, is not text or names a spelling twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text") from error
    spellings = [line.strip() for line in lines[: len(lines) - (lines[-1] == "")]]
    vocabulary = {spelling: number for number, spelling in enumerate(spellings)}
    if len(vocabulary) != len(spellings):
        twice = next(spelling for number, spelling in enumerate(spellings) if vocabulary[spelling] != number)
        raise DataError(f"{path}: has {twice!r} twice")
    return vocabulary


@dataclass(frozen=True)
class Passage:
    """A text with its words and its pieces."""

    words: list[str]
    pieces: Pieces


@dataclass(frozen=True)
class Window:
    """What the network sees at once: a question, and pieces `begin` … `begin` + `size` of a passage.

    `best` says of each of those pieces whether no other window shows more of what stands around it.
    """

    question: Array
    passage: Passage
    begin: int
    size: int
    best: Array

    @cached_property
    def first(self) -> int:
        """The place of the passage's first piece in the tensors."""
        return len(self.question) + 2

    @property
    def length(self) -> int:
        """How many tokens it has, padding aside."""
        return self.first + self.size + 1

    def tensors(self, pieces: WordPieces, length: int = LENGTH) -> tuple[Array, Array, Array]:
        """Ids, mask and segments, each int64 [length]: begin, question, end, passage, end, padding."""
        used = self.length
        ids, mask, segments = (
            np.full(length, pieces.pad, np.int64),
            np.zeros(length, np.int64),
            np.zeros(length, np.int64),
        )
        ids[0], ids[self.first - 1], ids[used - 1] = pieces.begin, pieces.end, pieces.end
        ids[1 : self.first - 1] = self.question
        ids[self.first : used - 1] = self.passage.pieces.ids[self.begin : self.begin + self.size]
        mask[:used], segments[self.first : used] = 1, 1
        return ids, mask, segments


def windows(question: Array, passage: Passage, length: int = LENGTH, stride: int = STRIDE) -> list[Window]:
    """The windows of `length` tokens that a passage needs, for a question of int64 [tokens]."""
    question = question[:LONGEST_QUESTION]
    room, count = length - len(question) - 3, len(passage.pieces)
    begins = [0]
    while begins[-1] + room < count:
        begins.append(begins[-1] + min(room, stride))
    sizes = [min(room, count - begin) for begin in begins]
    best = _best(begins, sizes, count)
    return [
        Window(question, passage, begin, size, best[begin : begin + size] == place)
        for place, (begin, size) in enumerate(zip(begins, sizes, strict=True))
    ]


def _best(begins: Sequence[int], sizes: Sequence[int], count: int) -> Array:
    """For each piece the window that shows most around it, the first of equals: int64 [count].

    A window is as good as the lesser of what it shows before and after the piece, and a little the better
    the larger it is.
    """
    places = np.arange(count)
    begin, size = np.array(begins)[:, None], np.array(sizes)[:, None]
    shown = np.minimum(places - begin, begin + size - 1 - places)
    found: Array = np.where(shown < 0, -np.inf, shown + 0.01 * size).argmax(axis=0)
    return found
