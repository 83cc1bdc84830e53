# SPDX-License-Identifier: Apache-2.0
"""Settle where a network's weights come from: the user's file, the official one, or seeded noise."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from septet.errors import FetchError, ModelError, ModelNotFound, Unreachable
from septet.workloads.fetch import cache_dir, fetch, md5_of
from septet.workloads.workload import Origin

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


def find(asked: str, official: Official, make: Callable[[], onnx.ModelProto], key: str) -> Found:
    """The model file for what the user `asked`: a path, ``official``, ``synthetic`` or ``auto``.

    ``auto`` takes the official file and, where it cannot be had, weights that `make` draws, cached under
    `key`. Raises ModelNotFound, Unreachable, ChecksumMismatch.
    """
    match asked:
        case "official":
            return Found(fetch(official.url, official.path, official.md5), "official")
        case "synthetic":
            return Found(built(make, key), "synthetic", (SYNTHETIC_NOTE,))
        case "auto":
            return _automatic(official, make, key)
    path = Path(asked)
    if not path.is_file():
        raise ModelNotFound(f"{path}: no such model file (or say auto, official or synthetic)")
    return Found(path, "user")


def _automatic(official: Official, make: Callable[[], onnx.ModelProto], key: str) -> Found:
    stamp = official.path.with_suffix(".unreachable")
    if not official.path.exists() and _fresh(stamp):
        return Found(built(make, key), "synthetic", (f"{SYNTHETIC_NOTE} ({stamp.read_text()})",))
    try:
        return Found(fetch(official.url, official.path, official.md5, tries=1), "official")
    except FetchError as error:
        why = f"the official file cannot be had: {error}"
        if isinstance(error, Unreachable):
            stamp.write_text(why)
        return Found(built(make, key), "synthetic", (f"{SYNTHETIC_NOTE} ({why})",))


def _fresh(stamp: Path) -> bool:
    return stamp.exists() and time.time() - stamp.stat().st_mtime < FORGET_SECONDS


def built(make: Callable[[], onnx.ModelProto], key: str) -> Path:
    """The model that `make` makes, built once and kept in the cache under `key` with its checksum.

    A file that does not have its checksum (a full disk, a killed build) is built again.
    """
    path = cache_dir() / "built" / f"{key}.onnx"
    check = path.with_suffix(".md5")
    if path.exists() and check.exists() and check.read_text() == md5_of(path):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{time.monotonic_ns()}")
        onnx.save(make(), beside)
        digest = md5_of(beside)
        beside.replace(path)
        check.write_text(digest)
    except OSError as error:
        raise ModelError(f"{path}: cannot be built: {error.strerror or error}") from error
    return path
