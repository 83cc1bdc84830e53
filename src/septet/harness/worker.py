# SPDX-License-Identifier: Apache-2.0
"""The process that runs one job: ``python -m septet.harness.worker``.

It reads a Job from its first line of standard input, writes Events as JSON lines to what was its standard
output, and ends when its standard input does, so that it never outlives the process that started it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, product
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import msgspec

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, is_address, load
from septet.errors import SeptetError
from septet.harness.calibrate import Batches, calibrate
from septet.harness.interval import Clock, run_interval
from septet.harness.job import Event, Failure, Job, Outcome, Progress
from septet.harness.library import Library
from septet.harness.logs import ISSUER
from septet.harness.meter import Meter
from septet.harness.target import Complete, InlineTarget, QueuedTarget, Target
from septet.workloads.predictor import AskedOnce, Predictor
from septet.workloads.workload import Asked, Workload, open_workload

SWITCH_SECONDS = 1e-4
"""How long a thread may keep Python's lock while LoadGen waits to issue: the default of 5 ms would be
the p99 of a fast network."""

MOST_ASKERS = 16
"""Threads that ask a server, in Server: more would only hand Python's lock around."""

_CALIBRATION_SAMPLES = 64
_WARM_SECONDS = 1.0


class Reporter:
    """Writes events, one whole line each, from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._writing = threading.Lock()
        self._started = time.perf_counter()
        self._said = 0.0

    def say(self, event: Event) -> None:
        with self._writing:
            self._stream.write(msgspec.json.encode(event) + b"\n")
            self._stream.flush()

    def end(self, event: Event) -> NoReturn:
        """Say `event` and leave at once, whatever LoadGen's threads are doing."""
        self.say(event)
        os._exit(0)

    def fail(self, error: BaseException) -> NoReturn:
        """Say why the job cannot go on, and leave."""
        text, kind = " ".join(str(error).split()), type(error).__name__
        if isinstance(error, SeptetError):
            self.end(Failure(kind, text))
        self.end(Failure("", f"{kind}: {text}"))

    def step(self, name: str, fraction: float) -> None:
        """Say how far step `name` is, at most four times a second."""
        now = time.perf_counter()
        if fraction <= 0:
            self._started = now
        if now - self._said < 0.25 and 0 < fraction < 1:
            return
        self._said = now
        spent = now - self._started
        self.say(Progress(name, min(fraction, 1.0), spent / fraction - spent if fraction > 0 else 0.0))


class Worker:
    """One job: the opened workload, its predictor on the loaded engine, the library between them."""

    def __init__(self, job: Job, report: Reporter) -> None:
        self.job = job
        self.report = report
        self.workload: Workload = open_workload(
            job.network,
            job.size,
            Asked(job.weights, Path(job.data) if job.data else None, job.precision, job.padded),
        )
        config = EngineConfig(job.precision, job.threads, job.streams)
        partition = Cpu.detect().partition()

        def load_engine(path: Path | None) -> Engine:
            return load(job.engine, Path(job.file) if job.file else path, config, partition)

        self.predictor: Predictor = self.workload.predictor(load_engine)
        self.library = Library(self.workload)

    def calibrate(self) -> Event:
        """Measure the speed of calls at each batch size."""
        samples = range(min(len(self.workload), _CALIBRATION_SAMPLES))
        self.load(samples)
        self.report.step("calibrating", 0.0)
        batches = Batches(self.library)

        def call(batch: int) -> None:
            self.predictor(self.library.gather(batches.next(batch)))

        return calibrate(lambda batch: self.warm_up((batch,)), call, self.job.streams, largest=self.job.batch)

    def loadgen(self) -> Event:
        """Run the job under MLPerf LoadGen."""
        # LoadGen is imported here because its configuration belongs to the process that imports it.
        from septet.harness import loadgen

        if self.job.bounds.scenario == "Server":
            sys.setswitchinterval(SWITCH_SECONDS)
        planned = self.job.bounds.queries_at(self.job.rate)
        meter = Meter(
            loadgen.complete,
            limit_seconds=self.job.bounds.limit_seconds if self.job.give_up else None,
            allowed=int((1 - (self.job.bounds.percentile or 0)) * planned),
            hopeless=lambda: self.report.end(_hopeless(self.job)),
        )
        target = Guarded(self.target(meter.complete), meter, self.report)
        running = threading.Event()
        watch = threading.Thread(target=self._watch, args=(meter, running), daemon=True)

        def load(indices: Sequence[int]) -> None:
            self.load(indices)
            if self.job.mode == "performance":
                self.warm_up_for(len(indices))
            if not watch.ident:
                watch.start()

        outcome = loadgen.run_test(self.job, target, len(self.workload), self._guard(load), self.library.unload)
        running.set()
        target.close()
        return outcome

    def interval(self) -> Event:
        """Run the job under v0.7's MultiStream clock."""
        bounds = self.job.bounds
        loaded = range(min(len(self.workload), bounds.library))
        self.load(loaded)
        self.warm_up_for(len(loaded))
        clock = Clock(bounds.limit_seconds or 0.0, round(self.job.rate), loaded)
        target = self.target(clock.complete)
        try:
            return run_interval(self.job, clock, target, lambda done: self.report.step("running", done))
        finally:
            target.close()

    def target(self, complete: Complete) -> Target:
        """Inline where one query is asked at a time, queued where many are; one by one as they come from a server,
        unless what is done with its answers is too much for one thread."""
        parts, scenario = (self.library, complete), self.job.bounds.scenario
        if scenario == "SingleStream":
            return InlineTarget(self.predictor, *parts)
        calls, batch, fail = self.job.streams, self.job.batch, self.report.fail
        if scenario == "Server" and is_address(self.job.engine):
            if isinstance(self.predictor, AskedOnce):
                from septet.harness.wired import WiredTarget  # with a client, which other runs do without

                return WiredTarget(self.predictor, *parts, calls=calls, batch=batch, fail=fail)
            calls = min(calls, MOST_ASKERS)
        return QueuedTarget(self.predictor, *parts, workers=calls, batch=batch, fail=fail)

    def load(self, indices: Sequence[int]) -> None:
        """Preprocess samples into memory."""
        self.report.step("loading samples", 0.0)
        self.library.load(
            indices, lambda done: self.report.step("loading samples", done / len(indices)), self.job.threads
        )

    def warm_up_for(self, loaded: int) -> None:
        """Warm up for a test over so many samples. Where queries come one by one, batches of any size are formed
        of those that wait: one that must be compiled first makes them late."""
        largest = min(self.job.batch, loaded)
        any_size = self.job.bounds.scenario in ("Server", "MultiStream")
        self.warm_up(sorted({1, largest}), range(2, largest) if any_size else ())

    def warm_up(self, batches: Sequence[int], then: Sequence[int] = ()) -> None:
        """Run every stream at these batch sizes and all lengths of the samples, and `then` at those, as far as
        `_WARM_SECONDS` allow: engines compile and allocate on first use."""
        start = time.perf_counter()
        lengths = self.library.of_each_length()
        with ThreadPoolExecutor(self.job.streams) as side_by_side:
            for index, batch in chain(product(lengths, batches), product(lengths, then)):
                inputs = self.library.gather([index] * batch)
                list(side_by_side.map(self.predictor, [inputs] * self.job.streams))
                if time.perf_counter() - start > _WARM_SECONDS:
                    break

    def _guard(self, step: Callable[[Sequence[int]], None]) -> Callable[[Sequence[int]], None]:
        """LoadGen cannot pass a Python exception on, so a failing callback ends the process with its reason."""

        def guarded(indices: Sequence[int]) -> None:
            try:
                step(indices)
            except BaseException as error:
                self.report.fail(error)

        return guarded

    def _watch(self, meter: Meter, ended: threading.Event) -> None:
        bounds, start = self.job.bounds, time.perf_counter()
        self.report.step("running", 0.0)
        while not ended.wait(0.25):
            if self.job.mode == "accuracy":
                fraction = meter.done / len(self.workload)
            elif bounds.scenario == "Offline":
                fraction = meter.done / max(1.1 * self.job.rate * bounds.min_seconds, bounds.min_samples)
            else:
                fraction = min((time.perf_counter() - start) / bounds.min_seconds, meter.done / bounds.min_queries)
            if fraction > 0:
                self.report.step("running", fraction)


class Guarded(Target):
    """A target that notes when queries are issued, and whose failure ends the process with its reason."""

    def __init__(self, inner: Target, meter: Meter, report: Reporter) -> None:
        self._inner = inner
        self._meter = meter
        self._report = report

    def issue(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        try:
            self._meter.issued(ids)
            self._inner.issue(ids, indices)
        except BaseException as error:
            self._report.fail(error)

    def close(self) -> None:
        self._inner.close()


def _hopeless(job: Job) -> Outcome:
    reasons = ["ended early: more queries over the latency limit than the whole test may have"]
    settings: dict[str, Any] = {"scenario": job.bounds.scenario}
    return Outcome(False, reasons, {}, settings, ISSUER, "", hopeless=True)


def run(job: Job, report: Reporter) -> Event:
    """Run `job` to its end."""
    report.step("opening", 0.0)
    worker = Worker(job, report)
    with worker.predictor:
        if job.mode == "calibrate":
            return worker.calibrate()
        if job.mode == "performance" and job.bounds.scenario == "MultiStream":
            return worker.interval()
        return worker.loadgen()


def main() -> None:
    """Take one job from standard input, run it, and report."""
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not mix with the events
    report = Reporter(events)
    line = sys.stdin.buffer.readline()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        report.say(run(msgspec.json.decode(line, type=Job), report))
    except BaseException as error:
        report.fail(error)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
