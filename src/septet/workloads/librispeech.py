# SPDX-License-Identifier: Apache-2.0
"""LibriSpeech's layout, and the words that a transcript has right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from septet.errors import DataError
from septet.pipelines.audio import read
from septet.tensor import Array
from septet.workloads.transducer import LABELS

LONGEST = 15.0
"""Seconds; v0.7 leaves longer utterances out."""

SUFFIXES = (".flac", ".wav")


class LibriSpeech:
    """The utterances of a folder: ``SPEAKER/CHAPTER/*.flac`` and a ``*.trans.txt`` of lines «ID TEXT» beside them.

    Raises DataError, naming file and line, for a text without audio, audio without text or with two, or a letter
    that the network has no label for.
    """

    labelled = True

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        found: dict[Path, str] = {}
        for texts in sorted(folder.rglob("*.trans.txt")):
            _add_utterances(texts, found)
        if not found:
            raise DataError(f"{folder}: holds no transcript (SPEAKER/CHAPTER/*.trans.txt)")
        for path in sorted(folder.rglob("*")):
            if path.suffix in SUFFIXES and path not in found:
                raise DataError(f"{path}: has no transcript")
        self._utterances = [(path, text) for path, text in found.items() if _seconds(path) <= LONGEST]
        if not self._utterances:
            raise DataError(f"{folder}: no utterance is at most {LONGEST:g} s long")
        self.words = f"{folder.name}: {len(self._utterances):,} utterances of at most {LONGEST:g} s"

    def __len__(self) -> int:
        return len(self._utterances)

    def wave(self, index: int) -> Array:
        """Utterance `index`, float32 [samples] at 16 kHz."""
        return read(self._utterances[index][0])

    def text(self, index: int) -> str:
        """What is said in it, in small letters."""
        return self._utterances[index][1]


def _add_utterances(texts: Path, found: dict[Path, str]) -> None:
    """Add what one transcript says, by its audio."""
    try:
        lines = texts.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{texts}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{texts}: not text in UTF-8 (byte {error.start})") from error
    for number, line in enumerate(lines, 1):
        name, _, text = line.strip().partition(" ")
        where, spoken = f"{texts}, line {number}", text.strip().lower()
        if not name:
            continue
        if "/" in name:
            raise DataError(f"{where}: {name} is not the name of an utterance")
        if not spoken:
            raise DataError(f"{where}: {name} has no text")
        unknown = sorted(set(spoken) - set(LABELS))
        if unknown:
            raise DataError(f"{where}: no label for {', '.join(map(repr, unknown))}")
        path = next((path for suffix in SUFFIXES if (path := texts.with_name(name + suffix)).is_file()), None)
        if path is None:
            raise DataError(f"{where}: {texts.with_name(name)}{SUFFIXES[0]}: no such audio")
        if path in found:
            raise DataError(f"{where}: {name} has a text already")
        found[path] = spoken


def _seconds(path: Path) -> float:
    try:
        return float(soundfile.info(path).duration)
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError(f"{path}: not a readable audio file: {error}") from error


def text_of(symbols: Array) -> str:
    """The text that symbols spell."""
    return "".join(LABELS[symbol] for symbol in symbols.tolist())


def right_words(wanted: str, heard: str) -> int:
    """Words of `wanted` less the errors of `heard`: the fewest substitutions, deletions and insertions that turn
    one into the other (Levenshtein). Negative where there are more errors than words."""
    reference, hypothesis = wanted.split(), heard.split()
    row = np.arange(len(hypothesis) + 1)
    for place, word in enumerate(reference, 1):
        change = np.concatenate([[place], row[:-1] + [word != other for other in hypothesis]])
        change[1:] = np.minimum(change[1:], row[1:] + 1)
        # an insertion costs one more than what stands to its left
        steps = np.arange(len(row))
        row = np.minimum.accumulate(change - steps) + steps
    return len(reference) - int(row[-1])
