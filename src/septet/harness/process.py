# SPDX-License-Identifier: Apache-2.0
"""Run one job in a process of its own, and never leave that process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

import septet.errors
from septet.errors import ResultsNotWritten, RunCrashed, SeptetError
from septet.harness.job import Calibration, Event, Failure, Job, Outcome, Progress

OnProgress = Callable[[Progress], None]


def calibrate(job: Job, on_progress: OnProgress) -> Calibration:
    """Run a calibration job. Raises what the job raised, or RunCrashed."""
    return cast(Calibration, _run(job, on_progress))


def test(job: Job, on_progress: OnProgress) -> Outcome:
    """Run a performance or accuracy job. Raises what the job raised, or RunCrashed."""
    return cast(Outcome, _run(job, on_progress))


def _run(job: Job, on_progress: OnProgress) -> Calibration | Outcome:
    folder = Path(job.folder)
    with _worker(_fresh(folder / "stderr.txt")) as worker:
        _send(worker, job)
        for event in _events(cast(BinaryIO, worker.stdout)):
            if isinstance(event, Progress):
                on_progress(event)
            elif isinstance(event, Failure):
                raise _error(event, folder)
            else:
                return event
        status = worker.wait()
    raise RunCrashed(f"the process of {job.network} {job.mode} died ({_death(status)}){_last_words(folder)}")


def _fresh(path: Path) -> BinaryIO:
    """`path`, opened empty in a folder that may have to be made. Raises ResultsNotWritten."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")
    except OSError as error:
        raise ResultsNotWritten(f"{path}: not written: {error.strerror or error}") from error


@contextmanager
def _worker(errors: BinaryIO) -> Iterator[subprocess.Popen[bytes]]:
    with errors as stderr:
        worker = subprocess.Popen(
            [sys.executable, "-m", "septet.harness.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,  # Ctrl-C reaches only us; we then end the worker ourselves
        )
    try:
        yield worker
    finally:
        _end(worker)


def _end(worker: subprocess.Popen[bytes]) -> None:
    """End the worker and whatever it started: its session is a process group of its own."""
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        with suppress(BrokenPipeError):
            cast(BinaryIO, pipe).close()


def _send(worker: subprocess.Popen[bytes], job: Job) -> None:
    stdin = cast(BinaryIO, worker.stdin)
    with suppress(BrokenPipeError):  # it may have died at once: reading its events tells how
        stdin.write(msgspec.json.encode(job) + b"\n")
        stdin.flush()


def _events(stream: BinaryIO) -> Iterator[Event]:
    for line in stream:
        yield msgspec.json.decode(line, type=Event)


def _error(failure: Failure, folder: Path) -> SeptetError:
    kind = getattr(septet.errors, failure.kind, None) if failure.kind else None
    if kind is None:
        return RunCrashed(f"the run failed: {failure.text}{_last_words(folder)}")
    return cast(SeptetError, kind(failure.text))


def _death(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _last_words(folder: Path) -> str:
    lines = (folder / "stderr.txt").read_text(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f": {last}" if last else ""
