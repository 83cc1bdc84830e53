# SPDX-License-Identifier: Apache-2.0
"""Image data sets: ImageNet in its official layout, any folder of images, and images made up from a seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from septet.errors import DataError
from septet.pipelines.image import decode
from septet.tensor import Array

CLASSES = 1_000
MAP = "val_map.txt"
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


class Images(ABC):
    """Images by index, with a class each where `labelled`; `words` say in words what they are."""

    words: str
    labelled: bool

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def image(self, index: int) -> Array:
        """Image `index`, uint8 [H, W, 3] RGB. Raises DataError, naming the file."""

    @abstractmethod
    def label(self, index: int) -> int:
        """Its class, 0…999; only where `labelled`."""


class ImageNet(Images):
    """The official layout: a folder of images and a ``val_map.txt`` of lines «file class».

    Raises DataError for a malformed line, a class that there is none of, or a file that is missing or named twice.
    """

    labelled = True

    def __init__(self, folder: Path) -> None:
        self._entries = [
            _entry(folder, number, line) for number, line in enumerate(_lines(folder / MAP), 1) if line.strip()
        ]
        if not self._entries:
            raise DataError(f"{folder / MAP}: names no image")
        path, times = Counter(path for path, _ in self._entries).most_common(1)[0]
        if times > 1:
            raise DataError(f"{folder / MAP}: names {path} {times} times")
        self.words = f"{folder.name}: {len(self._entries):,} labelled images"

    def __len__(self) -> int:
        return len(self._entries)

    def image(self, index: int) -> Array:
        return decode(self._entries[index][0])

    def label(self, index: int) -> int:
        return self._entries[index][1]


class ImageFolder(Images):
    """All images under a folder, in order of their paths; nothing says what they show."""

    labelled = False

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not self._paths:
            raise DataError(f"{folder}: holds no image ({', '.join(sorted(SUFFIXES))})")
        self.words = f"{folder.name}: {len(self._paths):,} images without labels"

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, index: int) -> Array:
        return decode(self._paths[index])

    def label(self, index: int) -> int:
        raise DataError(f"{self._paths[index]}: has no label")


class MadeUpImages(Images):
    """Seeded smooth random images of 500 × 375 pixels, for speed where no data is given."""

    labelled = False

    def __init__(self, count: int, seed: int = 0) -> None:
        self._count = count
        self._seed = seed
        self.words = f"{count:,} made-up images"

    def __len__(self) -> int:
        return self._count

    def image(self, index: int) -> Array:
        draw = np.random.default_rng((self._seed, index))
        coarse = draw.integers(0, 256, (12, 16, 3), np.uint8)
        return cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_LINEAR)

    def label(self, index: int) -> int:
        raise DataError("made-up images have no labels")


def open_images(folder: Path) -> Images:
    """The images of `folder`, labelled if it has a ``val_map.txt``. Raises DataError."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return ImageNet(folder) if (folder / MAP).exists() else ImageFolder(folder)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8 (byte {error.start})") from error


def _entry(folder: Path, number: int, line: str) -> tuple[Path, int]:
    where = f"{folder / MAP}, line {number}"
    parts = line.split()
    if len(parts) != 2 or not parts[1].isdecimal():
        raise DataError(f"{where}: not «file class»: {line.strip()[:80]}")
    path, label = folder / parts[0], int(parts[1])
    if label >= CLASSES:
        raise DataError(f"{where}: class {label} is not among 0…{CLASSES - 1}")
    if not path.is_file():
        raise DataError(f"{where}: {path}: no such image")
    return path, label
