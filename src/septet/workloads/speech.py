# SPDX-License-Identifier: Apache-2.0
"""Spoken strings, synthesised without end: RNN-T's miniature data set.

An invented tongue is spelled as it sounds: each letter has its own resonances, length and source (voice or noise).
Voices differ in pitch and in the length of the throat, utterances in tempo, loudness and noise. An utterance is
drawn from its split and index alone; the lexicon is shared by all splits, voices and utterances are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.signal import lfilter

from septet.pipelines.audio import RATE
from septet.tensor import Array
from septet.workloads.split import Split, draws

COUNTS: dict[Split, int] = {"train": 100_000, "calibration": 100, "search": 500, "test": 1_200}

VOICED: dict[str, tuple[float, ...]] = {
    "a": (730, 1_090, 2_440),
    "e": (530, 1_840, 2_480),
    "i": (270, 2_290, 3_010),
    "o": (570, 840, 2_410),
    "u": (300, 870, 2_240),
    "m": (250, 1_100, 2_100),
    "n": (250, 1_600, 2_700),
    "l": (360, 1_300, 2_900),
    "r": (420, 1_250, 1_600),
}
"""Resonances in Hz (of vowels as Peterson and Barney measured men's, «Journal of the Acoustical Society of
America» 24, 1952)."""

NOISY: dict[str, tuple[float, ...]] = {
    "s": (5_200, 6_800),
    "h": (800, 1_700),
    "f": (1_400, 7_300),
    "t": (3_900, 5_000),
    "k": (1_500, 2_600),
}

BURSTS = "tk"
"""Letters that begin with silence and end soon."""

WORDS = 60


@dataclass(frozen=True)
class Spoken:
    """An utterance: float32 [samples] at 16 kHz, its text, and where each letter begins and ends, in samples."""

    wave: Array
    text: str
    spans: list[tuple[int, int]]


class Utterances:
    """The utterances of one split, `count` of them (by default as many as `COUNTS` says)."""

    def __init__(self, split: Split, count: int | None = None) -> None:
        self.split = split
        self._count = COUNTS[split] if count is None else count

    def __len__(self) -> int:
        return self._count

    def spoken(self, index: int) -> Spoken:
        """Utterance `index`; any index may be asked for."""
        draw = draws(self.split, index)
        return _speak(draw, _text(draw))

    def text(self, index: int) -> str:
        """What is said in utterance `index`, without speaking it."""
        return _text(draws(self.split, index))


@cache
def lexicon() -> tuple[str, ...]:
    """The words of the tongue: syllables of a consonant and a vowel, some closed by a consonant."""
    draw = np.random.default_rng(9)
    consonants, vowels = list("mnlrshftk"), list("aeiou")
    words: dict[str, None] = {}
    while len(words) < WORDS:
        syllables = [
            draw.choice(consonants)
            + draw.choice(vowels)
            + (draw.choice(list("nlrs")) if draw.random() < 0.25 else "")
            for _ in range(int(draw.integers(1, 4)))
        ]
        words["".join(syllables)] = None
    return tuple(words)


def _text(draw: np.random.Generator) -> str:
    return " ".join(draw.choice(lexicon(), int(draw.integers(1, 6))))


def _speak(draw: np.random.Generator, text: str) -> Spoken:
    throat, pitch, tempo = draw.uniform(0.85, 1.2), draw.uniform(90, 240), draw.uniform(0.75, 1.3)
    pieces, spans, at = [_pause(draw)], [], 0
    at = len(pieces[0])
    for letter in text:
        piece = _pause(draw) if letter == " " else _letter(draw, letter, throat, pitch, tempo)
        pieces.append(piece)
        spans.append((at, at + len(piece)))
        at += len(piece)
    pieces.append(_pause(draw))
    wave = np.concatenate(pieces)
    wave *= draw.uniform(0.05, 0.3) / np.abs(wave).max()
    noise = np.diff(draw.standard_normal(len(wave) + 1)) * 0.5 + 0.5 * draw.standard_normal(len(wave))
    wave += 10 ** draw.uniform(-2.0, 0.0) * wave.std() * noise
    return Spoken(wave.astype(np.float32), text, spans)


def _pause(draw: np.random.Generator) -> Array:
    return np.zeros(int(RATE * draw.uniform(0.06, 0.16)))


def _letter(draw: np.random.Generator, letter: str, throat: float, pitch: float, tempo: float) -> Array:
    voiced = letter in VOICED
    resonances = VOICED[letter] if voiced else NOISY[letter]
    seconds = (0.11 if letter in "aeiou" else 0.08) * tempo * draw.uniform(0.8, 1.25)
    count = int(RATE * seconds)
    source = _voice(draw, count, pitch) if voiced else draw.standard_normal(count)
    total = np.zeros(count)
    for place, resonance in enumerate(resonances):
        total += 0.6**place * _resonated(source, throat * resonance * draw.uniform(0.95, 1.05))
    total *= (0.25 if not voiced else 1.0) / (total.std() + 1e-9)
    edge = min(count // 3, 160)
    total[:edge] *= np.linspace(0, 1, edge)
    total[-edge:] *= np.linspace(1, 0, edge)
    if letter in BURSTS:
        total[: count // 2] = 0
    return total


def _voice(draw: np.random.Generator, count: int, pitch: float) -> Array:
    """Pulses of a pitch that glides a little."""
    glide = np.linspace(draw.uniform(0.93, 1.07), draw.uniform(0.93, 1.07), count)
    cycles = np.floor(np.cumsum(pitch * glide / RATE))
    return np.diff(cycles, prepend=0.0) + 0.01 * draw.standard_normal(count)


def _resonated(source: Array, hertz: float) -> Array:
    """`source` through a resonator of two poles, about 90 Hz wide and wider where it is higher."""
    hertz = min(hertz, 0.47 * RATE)
    radius = np.exp(-np.pi * (70 + 0.03 * hertz) / RATE)
    poles = [1.0, -2 * radius * np.cos(2 * np.pi * hertz / RATE), radius**2]
    return np.asarray(lfilter([1 - radius], poles, source))
