# SPDX-License-Identifier: Apache-2.0
"""Start and end logits to an answer in words, as the v0.7 reference does it for SQuAD.

Source: mlcommons/inference v0.7.1, language/bert/accuracy-squad.py, which follows Google's ``run_squad.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from septet.pipelines.text import Window, WordPieces
from septet.tensor import Array

N_BEST = 20
"""Only so many best starts and ends of each window are looked at."""

LONGEST_ANSWER = 30
"""An answer has at most this many pieces."""

NOTHING = "empty"
"""The answer where no span is allowed."""


def answer(windows: Sequence[Window], logits: Sequence[Array], pieces: WordPieces) -> str:
    """The answer to the question of `windows`, as it stands in the passage.

    `logits` holds of each window float [length, 2]: start and end.
    """
    found = [_best_span(window, pair) for window, pair in zip(windows, logits, strict=True)]
    place = int(np.argmax([score for score, _, _ in found]))
    score, start, end = found[place]
    return _words(windows[place], start, end, pieces) if score > -np.inf else NOTHING


def _best_span(window: Window, logits: Array) -> tuple[float, int, int]:
    """The best allowed span of one window: its score, -∞ if there is none, and its first and last piece,
    counted from the window's first."""
    starts, ends = (_highest(side) - window.first for side in logits.astype(np.float64).T)
    span = ends[None, :] - starts[:, None]
    inside = (starts >= 0) & (starts < window.size)
    best = np.zeros(len(starts), bool)
    best[inside] = window.best[starts[inside]]
    allowed = best[:, None] & (ends < window.size)[None, :] & (span >= 0) & (span < LONGEST_ANSWER)
    both = logits[starts + window.first, 0].astype(np.float64)[:, None] + logits[ends + window.first, 1]
    scores = np.where(allowed & np.isfinite(both), both, -np.inf)
    start, end = np.unravel_index(int(scores.argmax()), scores.shape)
    return float(scores[start, end]), int(starts[start]), int(ends[end])


def _highest(logits: Array) -> Array:
    """The places of the highest logits, best first, the first of equals before the others."""
    return np.argsort(-logits, kind="stable")[:N_BEST]


def _words(window: Window, start: int, end: int, pieces: WordPieces) -> str:
    """The text from piece `start` to piece `end` of `window`, in the passage's own spelling."""
    passage, first, last = window.passage, window.begin + start, window.begin + end
    spelt = " ".join(passage.pieces.spellings[first : last + 1]).replace(" ##", "").replace("##", "")
    owners = passage.pieces.words
    return recover(spelt, " ".join(passage.words[owners[first] : owners[last] + 1]), pieces)


def recover(spelt: str, text: str, pieces: WordPieces) -> str:
    """The part of `text` that `spelt`, which is clean, came from: its case, accents and marks kept.

    Characters are matched one to one, blanks aside. Where `spelt` is not in the cleaned text, or cleaning
    changed the number of characters, it is the whole `text`.
    """
    clean = pieces.clean(text)
    begin = clean.find(spelt)
    places = [place for place, character in enumerate(text) if character != " "]
    if begin < 0 or not spelt or len(places) != len(clean.replace(" ", "")):
        return text
    before = len(clean[:begin].replace(" ", ""))
    return text[places[before] : places[before + len(spelt.replace(" ", "")) - 1] + 1]
