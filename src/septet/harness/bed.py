# SPDX-License-Identifier: Apache-2.0
"""Bed: the test bed of one Ask. It turns calls into jobs, and runs each job in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from septet.devices.cpu import Cpu
from septet.harness import process
from septet.harness.ask import Ask, Layout
from septet.harness.calibrate import LARGEST_BATCH
from septet.harness.job import Calibration, Job, Mode, Outcome, Progress
from septet.harness.logs import read_accuracy
from septet.harness.scenario import Bounds, bounds_of

ACCURACY_BATCH = 16

CONNECTIONS = 16
"""Requests under way at once, where the engine is a server: enough for it to form batches of."""

OnStep = Callable[[str, Progress], None]
"""Takes what is being done, in words, and how far it is."""


class Bed:
    """Runs calibrations and tests of one network on one engine; calibrations are made once."""

    def __init__(self, ask: Ask, on_step: OnStep) -> None:
        self.ask = ask
        self.threads = ask.threads or len(Cpu.detect().cores)
        self.streams = ask.streams or (CONNECTIONS if ask.remote else self.threads)
        self._on_step = on_step
        self._calibrations: dict[tuple[int, int], Calibration] = {}

    def calibration(self, streams: int) -> Calibration:
        """How fast calls are with `streams` of them side by side."""
        return self._calibrated(streams, LARGEST_BATCH)

    def alone(self) -> float:
        """Seconds that a query of one sample takes by itself, on all threads together."""
        return self._calibrated(1, 1).seconds[1]

    def _calibrated(self, streams: int, largest: int) -> Calibration:
        key = streams, largest
        if key not in self._calibrations:
            quick = bounds_of(self.ask.network, "Offline", official=False)
            job = self._job("calibrate", quick, Layout(streams, largest), f"calibrate-{streams}")
            self._calibrations[key] = process.calibrate(job, self._tell("calibrating"))
        return self._calibrations[key]

    def measure(
        self, bounds: Bounds, layout: Layout, rate: float, words: str, *, give_up: bool = False
    ) -> Outcome:
        """Run one performance test at `rate`; `give_up` ends it as soon as it cannot become valid."""
        place = f"{bounds.scenario}/{'probe' if give_up else 'performance'}"
        job = self._job("performance", bounds, layout, place, rate, give_up)
        return process.test(job, self._tell(f"{bounds.scenario}, {words}"))

    def answers(self, bounds: Bounds, engine: str, precision: str, weights: str) -> dict[int, bytes]:
        """The answers of an accuracy test on any engine and with any weights, by sample index.

        In Server the samples arrive at about the rate that this network's own engine keeps.
        """
        ask = self.ask
        own = (ask.engine, ask.precision, ask.weights)
        place = "accuracy" if (engine, precision, weights) == own else "reference"
        rate = self.calibration(self.threads).rate(1) if bounds.scenario == "Server" else 1.0
        layout = Layout(self.threads, ACCURACY_BATCH)
        job = self._job("accuracy", bounds, layout, f"{bounds.scenario}/{place}", rate)
        file = job.file if place == "accuracy" else None
        job = msgspec.structs.replace(job, engine=engine, precision=precision, weights=weights, file=file)
        process.test(job, self._tell(f"{bounds.scenario}, {place} of {engine} {precision}"))
        return read_accuracy(Path(job.folder))

    def _job(
        self,
        mode: Mode,
        bounds: Bounds,
        layout: Layout,
        place: str,
        rate: float = 1.0,
        give_up: bool = False,
    ) -> Job:
        ask = self.ask
        return Job(
            network=ask.network,
            size=ask.size,
            weights=ask.weights,
            data=str(ask.data) if ask.data else None,
            engine=ask.engine,
            precision=ask.precision,
            threads=self.threads,
            streams=layout.streams,
            mode=mode,
            bounds=bounds,
            folder=str(ask.folder / ask.title / place),
            file=str(ask.file) if ask.file else None,
            batch=layout.batch,
            rate=rate,
            give_up=give_up,
            padded=ask.padded,
        )

    def _tell(self, words: str) -> Callable[[Progress], None]:
        return lambda progress: self._on_step(f"{self.ask.title}: {words}", progress)
