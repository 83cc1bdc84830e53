# SPDX-License-Identifier: Apache-2.0
"""A user's samples: from a file, a folder, or a function of theirs."""

from __future__ import annotations

import hashlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from septet.errors import DataError
from septet.optimize.function import function_named, told
from septet.tensor import Array, Tensors, TensorSpec

Given = str | Path | Iterable[Tensors] | Callable[[], Iterable[Tensors]]
"""``samples.npz``, a folder, ``module:function``, or in Python the samples themselves."""


_UNREADABLE = (OSError, ValueError, EOFError, TypeError, AttributeError, BadZipFile, zlib.error)
"""What numpy raises for files that are cut off, damaged, or something else."""


class Samples(ABC):
    """Samples by their place: arrays by input name, without the dimension of batches where that is free or 1."""

    words: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Tensors:
        """Sample `index`. Raises DataError, naming the file."""

    def where(self, index: int) -> str:
        """How to find sample `index`."""
        return f"{self.words}: sample {index}"

    @abstractmethod
    def digest(self) -> str:
        """What tells these samples from others of the same words."""


class ArchiveSamples(Samples):
    """One ``.npz`` with an array [samples, …] for each input; others in it, labels perhaps, are passed over."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        arrays = _read(path)
        missing = [name for name in names if name not in arrays]
        if missing:
            raise DataError(f"{path}: has no array {', '.join(missing)}; it has: {', '.join(arrays)}")
        self._arrays = {name: arrays[name] for name in names}
        counts = {len(array) if array.ndim else 0 for array in self._arrays.values()}
        if len(counts) != 1 or counts == {0}:
            raise DataError(f"{path}: its arrays do not hold the same number of samples, at least one")
        self._count = counts.pop()
        self.words = f"{path.name}, {self._count:,} samples"

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Tensors:
        return {name: array[index] for name, array in self._arrays.items()}

    def digest(self) -> str:
        return digest(self._arrays)


class FolderSamples(Samples):
    """A folder with one ``.npz`` a sample, an array for each input, or one ``.npy`` where there is one input."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._names = names
        kinds = (".npz", ".npy") if len(names) == 1 else (".npz",)
        self._files = sorted(path for path in folder.iterdir() if path.suffix in kinds)
        if not self._files:
            raise DataError(f"{folder}: holds no {' or '.join(kinds)} files, one a sample")
        self.words = f"{folder.name}, {len(self):,} files"

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Tensors:
        path = self._files[index]
        if path.suffix == ".npy":
            return {self._names[0]: _read_one(path)}
        arrays = _read(path)
        missing = [name for name in self._names if name not in arrays]
        if missing:
            raise DataError(f"{path}: has no array {', '.join(missing)}")
        return {name: arrays[name] for name in self._names}

    def where(self, index: int) -> str:
        return str(self._files[index])

    def digest(self) -> str:
        """Of names, sizes and times: the files may be many, and large."""
        about = [(path.name, (found := path.stat()).st_size, found.st_mtime_ns) for path in self._files]
        return hashlib.sha256(repr(about).encode()).hexdigest()


class GivenSamples(Samples):
    """Samples that Python code gave."""

    def __init__(self, given: Iterable[Tensors], words: str) -> None:
        if not isinstance(given, Iterable):
            raise DataError(f"{words}: gave {type(given).__name__}, not samples")
        self._samples: list[Tensors] = []
        with told(words, DataError):
            for sample in given:
                if not isinstance(sample, Mapping):
                    raise DataError(f"{words}: gave {type(sample).__name__}, not arrays by input name")
                self._samples.append({name: np.asarray(array) for name, array in sample.items()})
        if not self._samples:
            raise DataError(f"{words}: gave no samples")
        self.words = f"{words}, {len(self):,} samples"

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Tensors:
        return self._samples[index]

    def digest(self) -> str:
        return hashlib.sha256("".join(map(digest, self._samples)).encode()).hexdigest()


def open_samples(given: Given, inputs: Sequence[TensorSpec]) -> Samples:
    """The samples for a network with these inputs. Raises DataError, UsageError."""
    names = [spec.name for spec in inputs]
    if callable(given):
        return _called(given, getattr(given, "__name__", "a function"))
    if not isinstance(given, str | Path):
        return GivenSamples(given, "given samples")
    path = Path(given)
    if path.is_dir():
        return FolderSamples(path, names)
    if path.suffix == ".npz" or path.exists():
        return ArchiveSamples(path, names)
    if ":" in str(given):
        return _called(function_named(str(given)), str(given))
    raise DataError(f"{given}: neither an .npz file, a folder, nor module:function")


def _called(function: Callable[[], Iterable[Tensors]], words: str) -> Samples:
    with told(words, DataError):
        given = function()
    return GivenSamples(given, words)


def digest(arrays: Tensors) -> str:
    """What tells `arrays` from others: of their names, dtypes, shapes and contents."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        content = repr(array.tolist()).encode() if array.dtype.hasobject else np.ascontiguousarray(array).tobytes()
        found.update(repr((name, array.dtype.str, array.shape)).encode() + content)
    return found.hexdigest()


def _read(path: Path) -> dict[str, Array]:
    found = _loaded(path)
    if isinstance(found, dict):
        return found
    raise DataError(f"{path}: one array without a name, not an .npz file")


def _read_one(path: Path) -> Array:
    found = _loaded(path)
    if isinstance(found, dict):
        raise DataError(f"{path}: several arrays with names, not an .npy file")
    return found


def _loaded(path: Path) -> Array | dict[str, Array]:
    """What numpy wrote, one array or several by name. Raises DataError."""
    try:
        with path.open("rb") as file:
            found: Array | Mapping[str, Array] = np.load(file, allow_pickle=False)
            return dict(found) if isinstance(found, Mapping) else found
    except _UNREADABLE as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
