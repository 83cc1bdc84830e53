# SPDX-License-Identifier: Apache-2.0
"""Tales: the miniature's data set, questions over passages about people who never were.

A passage tells several people's facts, person by person: where one was born, what one works as, keeps, paid and
so on. A fact is told in one of several ways, by name or by pronoun, and asked for in others; the other people's
facts distract. What is true is drawn anew for each passage, so that nothing but the passage answers. A passage
is drawn from its split and index alone, so that there is no end of them and each can be drawn again; lengths
spread as those of SQuAD's dev set. The form is SQuAD's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from string import ascii_lowercase, digits

import numpy as np

from septet.pipelines.text import BEGIN, END, PAD, UNKNOWN
from septet.workloads.split import Split, draws
from septet.workloads.squad import Answer, Article, File, Paragraph, Question

COUNTS: dict[Split, int] = {"train": 100_000, "calibration": 500, "search": 1_000, "test": 2_000}

LENGTHS = (
    (0.0, 46), (0.1, 110), (0.25, 132), (0.5, 162), (0.75, 208), (0.9, 264), (0.95, 303), (0.982, 384),
    (0.993, 480), (1.0, 640),
)  # fmt: skip
"""How many tokens question and passage have together, by their share, as with SQuAD's dev set."""

_BY_PRONOUN = 0.65
_FILLER = 0.15
"""How often a fact does not name its person, and how often nothing of use is said between two."""


def _words(text: str) -> list[str]:
    return text.split()


_FORE = _words(
    "bal bre cor dal dru el fen gar hol ist jor kel lan mor nev or pel quo ran sel tam ul ver wol yar zan"
)
_AFT = _words("da den dor fa gan go ka la lin mar mo na nor pa ra rick sa so ta tov va vin")
_TOWN = _words("ash black bright cold deer east fair green high long mill north oak red salt stone thorn west")
_STEAD = _words("bridge bury field ford gate ham haven hill mouth port ton wick")
_LOOKS = _words("small heavy painted broken round old narrow bent")
_STUFFS = _words("copper wooden silver glass iron clay ivory leather")
_THINGS = _words("lantern box flute mirror clock bowl drum key chain crown mask ladder")
_TRADES = _words("baker weaver miller painter sailor judge doctor smith printer gardener hunter singer")
_PLACES = _words("mill harbour palace market library chapel prison garden")
_NUMBERS = _words("two three four five six seven eight nine ten eleven twelve thirty forty fifty sixty")
_COINS = _words("coins pounds sheep barrels horses sacks")
_SEASONS = _words("spring summer autumn winter")


@dataclass(frozen=True)
class Fact:
    """Ways to tell a fact of person {n} whose value is {v}, and ways to ask for it."""

    value: str
    told: tuple[str, ...]
    asked: tuple[str, ...]


FACTS = (
    Fact(
        "town",
        ("{n} was born in {v}.", "{n} came from {v}.", "The birthplace of {n} was {v}."),
        ("Where was {n} born?", "What place did {n} come from?", "Which town was the birthplace of {n}?"),
    ),
    Fact(
        "town",
        ("{n} died in {v}.", "{n} was buried in {v}.", "The grave of {n} is in {v}."),
        ("Where did {n} die?", "Where is the grave of {n}?", "In which town was {n} buried?"),
    ),
    Fact(
        "trade",
        ("{n} worked as a {v}.", "{n} earned money as a {v}.", "The trade of {n} was that of a {v}."),
        ("What did {n} work as?", "What was the trade of {n}?", "How did {n} earn money?"),
    ),
    Fact(
        "thing",
        ("{n} kept a {v}.", "{n} owned a {v}.", "In the house of {n} there stood a {v}."),
        ("What did {n} own?", "What did {n} keep?", "What stood in the house of {n}?"),
    ),
    Fact(
        "thing",
        ("{n} lost a {v}.", "{n} could never find a {v} again.", "A thief took from {n} a {v}."),
        ("What did {n} lose?", "What did a thief take from {n}?", "What could {n} never find again?"),
    ),
    Fact(
        "year",
        ("{n} married in {v}.", "The wedding of {n} was in {v}.", "{n} took a wife or husband in {v}."),
        ("When did {n} marry?", "When was the wedding of {n}?", "In which year did {n} take a wife or husband?"),
    ),
    Fact(
        "sum",
        ("{n} paid {v}.", "{n} spent {v} in all.", "It cost {n} no less than {v}."),
        ("How much did {n} pay?", "What did {n} spend in all?", "How much did it cost {n}?"),
    ),
    Fact(
        "person",
        ("{n} learned from {v}.", "{n} was a pupil of {v}.", "The teacher of {n} was {v}."),
        ("Who did {n} learn from?", "Who was the teacher of {n}?", "Whose pupil was {n}?"),
    ),
)

FILLERS = (
    "That winter was long and cold.",
    "Nobody knows why.",
    "Little else is written in the old books.",
    "The people of the valley still speak of it.",
    "There was no bread in those years.",
    "Some say that it was the rain.",
)

TITLE = "Tales"


class Tales:
    """The questions of one split, `count` of them (by default as many as `COUNTS` says), one a passage."""

    def __init__(self, split: Split, count: int | None = None) -> None:
        self.split = split
        self._count = COUNTS[split] if count is None else count

    def __len__(self) -> int:
        return self._count

    def paragraph(self, index: int, shrink: float = 1.0) -> Paragraph:
        """Passage `index` with its question; any index may be asked for. Its length is `shrink` of what it
        would be, so that training may begin with short ones."""
        draw = draws(self.split, index)
        shares, lengths = np.array(LENGTHS).T
        return _paragraph(draw, f"{self.split}-{index}", shrink * float(np.interp(draw.random(), shares, lengths)))

    def file(self) -> File:
        """All of them in SQuAD's form."""
        return File([Article(TITLE, [self.paragraph(index) for index in range(len(self))])])


@dataclass(frozen=True)
class _Told:
    """A fact as it stands in the passage: person, fact, value, and where the value begins."""

    person: str
    fact: Fact
    value: str
    begin: int


def _paragraph(draw: np.random.Generator, name: str, length: float) -> Paragraph:
    sentences: list[str] = []
    told: list[_Told] = []
    people: set[str] = set()
    kinds = draw.permutation(len(FACTS))[: int(draw.integers(2, 6))]  # few, so that people have the same ones
    left, at = length - 13, 0  # a question takes about 10 tokens, the marks between 3

    def say(sentence: str) -> None:
        nonlocal left, at
        sentences.append(sentence)
        left -= _tokens(sentence)
        at += len(sentence) + 1

    while left > 5 or not told:
        person = _new(draw, people)
        pronoun = ("She", "He")[int(draw.integers(2))]
        facts = draw.permutation(kinds)[: int(draw.integers(1, 4))]
        for place, number in enumerate(facts):
            if left <= 5 and told:
                break
            if draw.random() < _FILLER:
                say(_pick(draw, FILLERS))
            fact = FACTS[number]
            by_pronoun = place > 0 and draw.random() < _BY_PRONOUN
            shape = fact.told[0 if by_pronoun else int(draw.integers(len(fact.told)))]
            value = _VALUES[fact.value](draw)
            before, after = shape.format(n=pronoun if by_pronoun else person, v="\0").split("\0")
            told.append(_Told(person, fact, value, at + len(before)))
            say(before + value + after)
    asked = told[int(draw.integers(len(told)))]
    question = _pick(draw, asked.fact.asked).format(n=asked.person)
    return Paragraph(" ".join(sentences), [Question(name, question, [Answer(asked.value, asked.begin)])])


def _pick(draw: np.random.Generator, words: tuple[str, ...] | list[str]) -> str:
    return words[int(draw.integers(len(words)))]


def _person(draw: np.random.Generator) -> str:
    return (_pick(draw, _FORE) + _pick(draw, _AFT)).capitalize()


def _new(draw: np.random.Generator, people: set[str]) -> str:
    person = _person(draw)
    while person in people:
        person = _person(draw)
    people.add(person)
    return person


def _town(draw: np.random.Generator) -> str:
    town = (_pick(draw, _TOWN) + _pick(draw, _STEAD)).capitalize()
    return f"{town} by the Sea" if draw.random() < 0.1 else town


def _trade(draw: np.random.Generator) -> str:
    trade = _pick(draw, _TRADES)
    return f"{trade} at the {_pick(draw, _LOOKS)} {_pick(draw, _PLACES)}" if draw.random() < 0.4 else trade


def _thing(draw: np.random.Generator) -> str:
    parts = [_pick(draw, _LOOKS), _pick(draw, _STUFFS), _pick(draw, _THINGS)]
    return " ".join(parts[int(draw.integers(3)) :])


def _year(draw: np.random.Generator) -> str:
    year = str(draw.integers(1_300, 1_900))
    return f"the {_pick(draw, _SEASONS)} of {year}" if draw.random() < 0.4 else year


def _sum(draw: np.random.Generator) -> str:
    return f"{_pick(draw, _NUMBERS)} {_pick(draw, _COINS)}"


_VALUES = {"town": _town, "trade": _trade, "thing": _thing, "year": _year, "sum": _sum, "person": _person}


@cache
def vocabulary() -> dict[str, int]:
    """The WordPieces of tales: all words that stand in them, the parts of names, and single characters."""
    shapes = " ".join((*FILLERS, *(shape for fact in FACTS for shape in (*fact.told, *fact.asked))))
    words = shapes.replace("{n}", "").replace("{v}", "").replace(".", "").replace("?", "").lower().split()
    words += _words("she he by the sea at of")
    for part in (_LOOKS, _STUFFS, _THINGS, _TRADES, _PLACES, _NUMBERS, _COINS, _SEASONS, _FORE, _TOWN):
        words += part
    words += [str(number) for number in range(13, 19)]
    ends = [*_AFT, *_STEAD, *(f"{number:02}" for number in range(100)), *ascii_lowercase, *digits]
    pieces = [PAD, UNKNOWN, BEGIN, END, ".", "?", *ascii_lowercase, *digits, *words, *(f"##{end}" for end in ends)]
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def _tokens(sentence: str) -> int:
    """About how many tokens a sentence has: words that are not whole in the vocabulary have two."""
    known = vocabulary()
    words = sentence.lower().rstrip(".?").split()
    return 1 + sum(1 if word in known else 2 for word in words)
