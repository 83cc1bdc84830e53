# SPDX-License-Identifier: Apache-2.0
"""Scores on the disk: the reference's are measured once, whatever interrupts the search."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from septet.optimize.subject import Part
from septet.score import Score
from septet.whole import write_whole


class Scores:
    """Scores by part and count of samples, each measured by `measure` unless it lies in `folder`."""

    def __init__(self, folder: Path, measure: Callable[[Part, int], Score]) -> None:
        self._folder = folder
        self._measure = measure

    def __call__(self, part: Part, count: int) -> Score:
        path = self._folder / f"reference-{part}-{count}.npz"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            _write(path, self._measure(part, count))
        return _read(path)


def _write(path: Path, score: Score) -> None:
    file = io.BytesIO()
    numbers = np.array([score.value, score.low, score.high])
    words = np.array([score.metric, score.unit])
    np.savez(file, numbers=numbers, words=words, per_sample=score.per_sample, graded=np.array(score.graded))
    write_whole(path, file.getvalue())


def _read(path: Path) -> Score:
    with np.load(path, allow_pickle=False) as found:
        metric, unit = (str(word) for word in found["words"])
        value, low, high = (float(number) for number in found["numbers"])
        return Score(metric, unit, value, low, high, found["per_sample"], bool(found["graded"]))
