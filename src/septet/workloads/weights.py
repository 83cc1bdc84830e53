# SPDX-License-Identifier: Apache-2.0
"""Settle where a network's weights come from: the user's file, the official one, or seeded noise."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from septet.engines.freeing import free
from septet.engines.model import OnnxFile, read_onnx
from septet.errors import FetchError, ModelError, ModelInvalid, ModelNotFound, Unreachable
from septet.pipelines.sequence import Sequences
from septet.tensor import Array, Tensors
from septet.workloads.fetch import cache_dir, fetch, md5_of

Origin = Literal["official", "user", "trained", "synthetic"]
"""Where weights come from. Synthetic weights are seeded noise: good for speed, never for accuracy."""

Write = Callable[[Path], None]
"""Writes a model to the path that it is given, and files that belong to it into the same folder."""

SYNTHETIC_NOTE = "synthetic weights: speed only"
FORGET_SECONDS = 3600.0
"""For how long an address that did not answer is not asked again, unless it is asked for by name."""


@dataclass(frozen=True)
class Official:
    """A published file, its address and its MD5."""

    url: str
    md5: str

    @property
    def path(self) -> Path:
        """Where it lies in the cache."""
        return cache_dir() / "official" / self.md5[:8] / self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Found:
    """A model file, where its weights come from, and what every output must say of them."""

    path: Path
    origin: Origin
    notes: tuple[str, ...] = ()

    def read(self) -> OnnxFile:
        """What the file says of itself. Raises ModelInvalid, which says so where it is a file of the cache."""
        try:
            return read_onnx(self.path)
        except ModelInvalid as error:
            if self.origin == "user":
                raise
            raise ModelInvalid(f"{error}: a file of the cache: delete {self.path.parent} and run again") from error


@dataclass(frozen=True)
class Unchecked:
    """A published file of which no checksum was ever published: it is not fetched, but brought by the user."""

    url: str

    @property
    def words(self) -> str:
        """What a card says of it."""
        return f"published without a checksum: bring {self.url} with --weights FILE"

    @property
    def how(self) -> str:
        """What to do to have it."""
        return f"fetch {self.url} yourself and give it with --weights FILE: no checksum of it is published"


def find(asked: str, official: Official | Unchecked, write: Write, key: str) -> Found:
    """The model file for what the user `asked`: a path, ``official``, ``synthetic`` or ``auto``.

    ``auto`` takes the official file and, where it cannot be had, weights that `write` draws, cached under
    `key`. Raises ModelNotFound, Unreachable, ChecksumMismatch, and FetchError for ``official`` where the file is
    unchecked.
    """
    match asked, official:
        case "synthetic", _:
            return Found(built(write, key), "synthetic", (SYNTHETIC_NOTE,))
        case "official", Official(url, md5):
            return Found(fetch(url, official.path, md5), "official")
        case "auto", Official():
            return _automatic(official, write, key)
        case "official", Unchecked():
            raise FetchError(f"not fetched: {official.how}")
        case "auto", Unchecked():
            note = f"{SYNTHETIC_NOTE} (for the official ones, {official.how})"
            return Found(built(write, key), "synthetic", (note,))
    return given(asked)


def given(asked: str) -> Found:
    """The user's own file. Raises ModelNotFound."""
    path = Path(asked)
    if not path.is_file():
        raise ModelNotFound(f"{path}: no such model file (or say auto, official or synthetic)")
    return Found(path, "user")


def shipped(network: str) -> Path:
    """Where the trained weights of the miniature of `network` ship, as its recipe wrote them."""
    return Path(__file__).parent / "data" / f"{network}-mini.npz"


def trained(network: str, build: Callable[[Mapping[str, Array]], onnx.ModelProto], form: str = "") -> Found:
    """The miniature of `network`: what `build` makes of its trained weights, float32 by name, whatever they are
    stored in. Another `form` of it, such as «-int8», is kept beside it. Raises ModelError."""
    stored = shipped(network)

    def write(path: Path) -> None:
        with np.load(stored, allow_pickle=False) as arrays:
            onnx.save(build({name: array.astype(np.float32) for name, array in arrays.items()}), path)

    return Found(built(write, f"{network}-mini-{md5_of(stored)[:12]}{form}"), "trained")


def freed(path: Path, sequences: Sequences, samples: Sequence[Tensors]) -> Path:
    """The model at `path` with its dimension of tokens made free, proven on `samples` of their own length and kept
    in the cache. Raises NotSequences."""
    about = path.stat()
    key = md5(f"{path.resolve()} {about.st_size} {about.st_mtime_ns}".encode(), usedforsecurity=False).hexdigest()

    def write(to: Path) -> None:
        free(path, to, sequences, samples)

    return built(write, f"free-{key[:16]}")


def _automatic(official: Official, write: Write, key: str) -> Found:
    stamp = official.path.with_suffix(".unreachable")
    if not official.path.exists() and _fresh(stamp):
        return Found(built(write, key), "synthetic", (f"{SYNTHETIC_NOTE} ({stamp.read_text()})",))
    try:
        return Found(fetch(official.url, official.path, official.md5, tries=1), "official")
    except FetchError as error:
        why = f"the official file cannot be had: {error}"
        if isinstance(error, Unreachable):
            with suppress(OSError):  # on a full disk the address is asked again next time
                stamp.write_text(why)
        return Found(built(write, key), "synthetic", (f"{SYNTHETIC_NOTE} ({why})",))


def _fresh(stamp: Path) -> bool:
    return stamp.exists() and time.time() - stamp.stat().st_mtime < FORGET_SECONDS


def built(write: Write, key: str) -> Path:
    """The model that `write` writes, built once and kept in the cache under `key`.

    It is written into a folder beside, which takes its name only when it is whole: a full disk or a killed
    build leaves nothing under `key`. Raises ModelError.
    """
    folder = cache_dir() / "built" / key
    path = folder / "model.onnx"
    if path.exists():
        return path
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=folder.parent))
        try:
            write(beside / path.name)
            _rename(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise ModelError(f"{path}: cannot be built: {error.strerror or error}") from error
    return path


def _rename(beside: Path, folder: Path) -> None:
    """Give `beside` the name `folder`, unless another process was first: its build is the same."""
    beside.chmod(0o755)
    try:
        beside.replace(folder)
    except OSError:
        if not folder.exists():
            raise
