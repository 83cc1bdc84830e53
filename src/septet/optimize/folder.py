# SPDX-License-Identifier: Apache-2.0
"""The folder of one search: its ledger, files and rankings, owned by one process at a time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from septet.devices.cpu import Cpu
from septet.engines.engine import ENGINES, engine_class
from septet.errors import EngineUnavailable, ResultsNotWritten, SearchElsewhere
from septet.optimize import graph
from septet.optimize.ledger import Ledger, open_ledger, save
from septet.optimize.subject import Subject
from septet.whole import write_whole

Groups = list[tuple[str, ...]]

FILES = "files"
"""The folder in a search's that holds what was made of the model."""

UNFINISHED = ".unfinished-"
"""How names of folders begin that are being written, or were, by a process that was killed."""


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the name `path` once all is written. Raises ResultsNotWritten."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{UNFINISHED}{path.name}-", dir=path.parent) as beside:
            inner = Path(beside) / path.name
            inner.mkdir()
            yield inner
            inner.rename(path)
    except OSError as error:
        raise ResultsNotWritten(f"{path}: not written: {error.strerror or error}") from error


def remove_unfinished(parent: Path, name: str = "") -> None:
    """Remove what killed processes left of the whole folder `name`, or of any, in `parent`."""
    for left in parent.glob(f"{UNFINISHED}{escape(name)}-*" if name else f"{UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)


class SearchFolder:
    """The folder of a search of `subject` at the ratio `keep`, locked while open.

    Raises SearchElsewhere where it holds the search of anything else, or where another process searches in it, and
    ResultsNotWritten where it cannot be made.
    """

    def __init__(self, path: Path, subject: Subject, keep: float) -> None:
        self.path = path
        self._subject = subject
        self._keep = keep
        self.ledger: Ledger

    @property
    def file(self) -> Path:
        """Where the ledger stands."""
        return self.path / "ledger.json"

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ResultsNotWritten(f"{self.path}: {error.strerror or error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.ledger = self._opened()
            for parent in (self.path, self.path / FILES):
                remove_unfinished(parent)
        except BlockingIOError as error:
            os.close(self._lock)
            raise SearchElsewhere(f"{self.path}: another process is searching in it") from error
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    def save(self) -> None:
        """Write the ledger down. Raises ResultsNotWritten."""
        save(self.file, self.ledger)

    def ranking(self, name: str, rank: Callable[[], Groups]) -> Groups:
        """The ranking of that name: `rank` is asked for it once."""
        path = self.path / f"ranking-{name}.json"
        if not path.exists():
            write_whole(path, msgspec.json.encode(rank()))
        return msgspec.json.decode(path.read_bytes(), type=Groups)

    def _opened(self) -> Ledger:
        """The ledger that lies there, or a new one."""
        subject, cpu = self._subject, Cpu.detect()
        source = graph.digest(subject.model)
        fingerprint = _fingerprint(subject, self._keep, source)
        if self.file.exists():
            ledger = open_ledger(self.file)
            if ledger.fingerprint != fingerprint:
                raise SearchElsewhere(
                    f"{self.path}: holds a search of {ledger.name} at {100 * ledger.keep:g} % with other weights, "
                    "samples, score, terms, engines or CPU: remove it, or name another folder with --output"
                )
            return ledger
        return Ledger(
            name=subject.name,
            source=source,
            fingerprint=fingerprint,
            judged=subject.judged,
            data=subject.data,
            keep=self._keep,
            notes=list(subject.notes),
            cpu=f"{cpu.name}, {len(cpu.cores)} cores",
            versions=_versions(),
        )


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ENGINES:
        with suppress(EngineUnavailable):  # it is not installed, and has no version
            found[name] = engine_class(name).version()
    return {name: version for name, version in found.items() if version}


def _fingerprint(subject: Subject, keep: float, source: str) -> str:
    """What makes two searches the same: the model, the samples, the terms, engines and CPU."""
    cpu = Cpu.detect()
    terms = (
        source,
        subject.name,
        subject.data,
        subject.identity,
        subject.judged,
        keep,
        cpu.name,
        cpu.features,
        _versions(),
    )
    return hashlib.sha256(repr(terms).encode()).hexdigest()[:32]
