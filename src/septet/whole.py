# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from septet.errors import ResultsNotWritten


def require_writable(path: Path) -> None:
    """Raise ResultsNotWritten where `path` plainly cannot be written: better before a long run than after."""
    folder = path.parent
    if not folder.is_dir():
        raise ResultsNotWritten(f"{path}: not written: there is no folder {folder}")
    if path.is_dir():
        raise ResultsNotWritten(f"{path}: not written: it is a folder")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ResultsNotWritten(f"{path}: not written: no permission")


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path` by writing beside it and renaming, so that no reader sees half a file.

    A path that is not a regular file (a pipe, a terminal) is written straight. Raises ResultsNotWritten.
    """
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            path.write_bytes(content)
        else:
            _write_and_rename(path, content)
    except OSError as error:
        raise ResultsNotWritten(f"{path}: not written: {error.strerror or error}") from error


def _write_and_rename(path: Path, content: bytes) -> None:
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
