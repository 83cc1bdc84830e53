# SPDX-License-Identifier: Apache-2.0
"""A small transducer learns spoken digits from some people and hears another: real sound through the same code."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from septet.pipelines.audio import RATE
from septet.tensor import Array
from septet.workloads.speech import Spoken
from septet.workloads.transducer import Transducer

pytest.importorskip("torch", reason="training needs torch: pip install 'septet[train]'")

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "fsdd"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class SpokenDigits:
    """Strings of one to three digits, drawn from recordings of `people`."""

    def __init__(self, *people: str) -> None:
        self._waves: dict[tuple[str, int], list[Array]] = {}
        for path in sorted(FOLDER.glob("*.wav")):
            digit, person, _ = path.stem.split("_")
            if person in people:
                samples, rate = soundfile.read(path, dtype="float32")
                self._waves.setdefault((person, int(digit)), []).append(resample_poly(samples, RATE // rate, 1))
        self._people = people

    def spoken(self, index: int) -> Spoken:
        draw = np.random.default_rng(index)
        person, said = str(draw.choice(self._people)), draw.integers(10, size=draw.integers(1, 4)).tolist()
        pieces: list[Array] = []
        spans: list[tuple[int, int]] = []
        for place, digit in enumerate(said):
            if place:
                self._add(draw.normal(0, 1e-3, RATE // 10), " ", pieces, spans)
            takes = self._waves[person, digit]
            self._add(_voiced(draw, takes[draw.integers(len(takes))]), DIGITS[digit], pieces, spans)
        wave = np.concatenate([*pieces, draw.normal(0, 1e-3, RATE // 5)])
        return Spoken(wave.astype(np.float32), " ".join(DIGITS[digit] for digit in said), spans)

    @staticmethod
    def _add(piece: Array, text: str, pieces: list[Array], spans: list[tuple[int, int]]) -> None:
        """Nobody says where letters begin: they are spread evenly."""
        ends = spans[-1][1] if spans else 0
        borders = (ends + np.linspace(0, len(piece), len(text) + 1)).astype(int).tolist()
        spans.extend(pairwise(borders))
        pieces.append(piece)


def _voiced(draw: np.random.Generator, take: Array) -> Array:
    """`take`, played faster or slower: two people's voices are made many."""
    count = int(len(take) * draw.uniform(0.75, 1.35))
    return np.interp(np.linspace(0, len(take) - 1, count), np.arange(len(take)), take)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="no recordings of spoken digits beside this checkout")
def test_digits_of_a_person_never_heard_are_heard(load_recipe: Callable[[str], ModuleType]) -> None:
    recipe = load_recipe("rnnt")
    net = Transducer(hidden=96, predict=32, joint=64)
    people = sorted({path.stem.split("_")[1] for path in FOLDER.glob("*.wav")})
    network = recipe.train(net, SpokenDigits(*people[1:]), steps=500, seed=1)
    score = recipe.accuracy(network, net, SpokenDigits(people[0]), 100)
    assert score.low > 12  # one digit in ten would be right by chance; two people are few to learn from
