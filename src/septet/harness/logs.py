# SPDX-License-Identifier: Apache-2.0
"""Read what LoadGen wrote: its verdict and figures, and the answers of an accuracy run."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from septet.errors import RunCrashed
from septet.harness.job import Outcome

ISSUER = "MLPerf LoadGen"


def read_outcome(folder: Path, settings: dict[str, Any]) -> Outcome:
    """LoadGen's verdict and figures, from its detail log. Raises RunCrashed if the log is not whole."""
    entries = _read_detail(folder / "mlperf_log_detail.txt")
    verdict = [value for key, value in entries if key == "result_validity"]
    if settings["mode"] == "PerformanceOnly" and not verdict:
        raise RunCrashed(f"LoadGen left no verdict in {folder}: is the disk full?")
    reasons = [str(value) for key, value in entries if key == "result_invalid_reason"]
    figures = {
        key: float(value)
        for key, value in entries
        if key.startswith(("result_", "early_stopping_")) and isinstance(value, (int, float))
    }
    return Outcome(
        valid=verdict[-1] == "VALID" if verdict else True,
        reasons=reasons,
        figures=figures,
        settings=settings,
        issuer=ISSUER,
        version=version("mlcommons-loadgen"),
    )


class _Entry(msgspec.Struct):
    key: str
    value: Any = None


def _read_detail(path: Path) -> list[tuple[str, Any]]:
    prefix = ":::MLLOG "
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise RunCrashed(f"LoadGen's log {path} cannot be read: {error.strerror}") from error
    entries = []
    for line in lines:
        if line.startswith(prefix):
            try:
                entry = msgspec.json.decode(line[len(prefix) :], type=_Entry)
            except msgspec.DecodeError as error:
                raise RunCrashed(f"LoadGen's log {path} is cut off: is the disk full?") from error
            entries.append((entry.key, entry.value))
    return entries


class _Answer(msgspec.Struct):
    qsl_idx: int
    data: str


def read_accuracy(folder: Path) -> dict[int, bytes]:
    """The answers of an accuracy run by sample index, from LoadGen's accuracy log. Raises RunCrashed."""
    path = folder / "mlperf_log_accuracy.json"
    try:
        answers = msgspec.json.decode(path.read_bytes(), type=list[_Answer])
    except (OSError, msgspec.DecodeError) as error:
        raise RunCrashed(f"LoadGen's accuracy log {path} cannot be read: {error}") from error
    return {answer.qsl_idx: bytes.fromhex(answer.data) for answer in answers}
