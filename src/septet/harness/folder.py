# SPDX-License-Identifier: Apache-2.0
"""The folder of one run: LoadGen's logs and ``results.json``, owned by one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from septet.errors import ResultsExist, ResultsNotWritten
from septet.harness.result import Result, save_results

_LOCK = ".lock"


class ResultsFolder:
    """A results folder, locked while open.

    Each result is saved as soon as there is one, so that an interrupted run loses only what was unfinished.
    Raises ResultsExist where the folder holds results already or another run is writing to it, and
    ResultsNotWritten where it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results: list[Result] = []

    @property
    def file(self) -> Path:
        """Where the results stand."""
        return self.path / "results.json"

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except (FileExistsError, NotADirectoryError) as error:
            raise ResultsNotWritten(f"{self.path}: is not a folder, nor can one be made there") from error
        except OSError as error:
            raise ResultsNotWritten(f"{self.path}: {error.strerror or error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise ResultsExist(f"{self.path}: another run is writing its results there") from error
        if self.file.exists():
            os.close(self._lock)
            raise ResultsExist(f"{self.path}: holds the results of an earlier run; name another folder")
        return self

    def add(self, result: Result) -> None:
        """Save one more result. Raises ResultsNotWritten; those saved before stay."""
        self.results.append(result)
        save_results(self.file, self.results)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # the lock file stays beside results: without it two runs could each lock a file of that name
        if [path.name for path in self.path.iterdir()] == [_LOCK]:
            (self.path / _LOCK).unlink()
            self.path.rmdir()
        os.close(self._lock)
