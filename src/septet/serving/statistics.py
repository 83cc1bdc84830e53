# SPDX-License-Identifier: Apache-2.0
"""What a version of a model has done so far: Triton's statistics, and histograms of latency."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from septet.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InstanceCrashed,
    ModelFailed,
    QueueFull,
    RequestCancelled,
    RequestTimedOut,
    SeptetError,
)
from septet.metrics import Histogram
from septet.serving.pending import Pending

_REASONS: dict[type[SeptetError], str] = {
    QueueFull: "REJECTED",
    RequestTimedOut: "REJECTED",
    DeadlineExceeded: "CANCELED",
    RequestCancelled: "CANCELED",
    ModelFailed: "BACKEND",
    InstanceCrashed: "BACKEND",
    InferenceFailed: "BACKEND",
}
"""Error -> Triton's reason of a failure; every other error is OTHER."""

REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")


@dataclass(slots=True)
class Duration:
    """How often something was done, and for how many ns in all."""

    count: int = 0
    ns: int = 0

    def add(self, count: int, ns: int) -> None:
        """Count more of it."""
        self.count += count
        self.ns += ns


@dataclass(slots=True)
class BatchCount:
    """Executions of one batch size, by phase."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass(frozen=True, slots=True)
class Phases:
    """When an execution began, inference began and ended, and all was answered; ns of the monotonic clock."""

    begin: int
    infer: int
    output: int
    end: int


class Statistics:
    """Counts of one version of a model. A lock is taken once a batch, not once a request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.inferences = 0
        self.executions = 0
        self.last_inference = 0
        self.success = Duration()
        self.fail = Duration()
        self.queue = Duration()
        self.compute_input = Duration()
        self.compute_infer = Duration()
        self.compute_output = Duration()
        self.batches: dict[int, BatchCount] = {}
        self.failures = dict.fromkeys(REASONS, 0)
        self.request_latency = Histogram()
        self.queue_latency = Histogram()

    def executed(self, batch: list[Pending], phases: Phases) -> None:
        """Count a batch that was answered."""
        count, size, total, queued = len(batch), 0, 0, 0
        begin, end = phases.begin, phases.end
        with self._lock:
            for pending in batch:
                size += pending.size
                waited, took = begin - pending.queued, end - pending.request.arrived
                queued += waited
                total += took
                self.queue_latency.observe(waited / 1_000)
                self.request_latency.observe(took / 1_000)
            self.inferences += size
            self.executions += 1
            self.last_inference = time.time_ns() // 1_000_000
            self.success.add(count, total)
            self.queue.add(count, queued)
            batches = self.batches.get(size)
            if batches is None:
                batches = self.batches[size] = BatchCount()
            self._phases(batches, phases, count)

    def _phases(self, batch: BatchCount, phases: Phases, count: int) -> None:
        before = phases.infer - phases.begin
        during = phases.output - phases.infer
        after = phases.end - phases.output
        # Triton's durations are summed over requests here, over executions there
        self.compute_input.add(count, count * before)
        self.compute_infer.add(count, count * during)
        self.compute_output.add(count, count * after)
        batch.compute_input.add(1, before)
        batch.compute_infer.add(1, during)
        batch.compute_output.add(1, after)

    def failed(self, pending: Pending, error: SeptetError) -> None:
        """Count a request that was answered with an error."""
        reason = _REASONS.get(type(error), "OTHER")
        took = time.monotonic_ns() - pending.request.arrived
        with self._lock:
            self.fail.add(1, took)
            self.failures[reason] += 1
