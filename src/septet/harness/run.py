# SPDX-License-Identifier: Apache-2.0
"""Run scenarios of one network on one engine, and join verdict, accuracy and machine into Results."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from septet.devices.cpu import Cpu, load_average
from septet.errors import NoValidResult, UsageError
from septet.harness import verdict
from septet.harness.ask import Ask, Layout
from septet.harness.bed import Bed, OnStep
from septet.harness.job import Outcome
from septet.harness.judge import judge_itself, judge_paired, judge_published
from septet.harness.logs import ISSUER
from septet.harness.machine import commit, machine, versions
from septet.harness.perform import Performance, perform
from septet.harness.result import Accuracy, Latency, Loadgen, Metric, Result
from septet.harness.rules import Run, Scenario, category_of, rules_of
from septet.harness.scenario import Bounds, bounds_of
from septet.score import Score
from septet.workloads.workload import Asked, Workload, open_workload

CLOCKED = "MultiStream as v0.7 defines it, which LoadGen 6 does not have: issued by Septet's own clock"

REFERENCE = ("onnx", "f32")
"""The engine and precision whose answers are the FP32 reference."""


class Session:
    """All runs of one network on one engine: they share calibrations and accuracy runs.

    Raises UsageError, ModelError, FetchError and DataError at once, before anything is run.
    """

    def __init__(self, ask: Ask, on_step: OnStep) -> None:
        self.ask = ask
        self._workload: Workload = open_workload(
            ask.network, ask.size, Asked(ask.weights, ask.data, ask.precision, ask.padded)
        )
        if ask.mode == "accuracy" and not self._workload.scored:
            raise UsageError(
                f"{ask.network}: no accuracy with {self._workload.origin} weights on {self._workload.data}"
            )
        self._bed = Bed(ask, on_step)
        self._scores: dict[tuple[str, str, str, Scenario], Score] = {}
        self._performed: dict[Scenario, tuple[Performance | None, list[str]]] = {}

    def run(self, run: Run) -> Result:
        """Run one scenario: performance, then accuracy, as `ask.mode` says.

        A scenario that is judged at two targets runs once, and gives a result for each. One without any valid
        setting on this machine gives an INVALID result, not an error.
        """
        before = load_average()
        bounds = bounds_of(self.ask.network, run.scenario, self.ask.official)
        if run.scenario not in self._performed:
            self._performed[run.scenario] = self._performance(bounds)
        performance, why = self._performed[run.scenario]
        accuracy = self._accuracy(run)
        return self._result(run, bounds, performance, why, accuracy, before)

    def _performance(self, bounds: Bounds) -> tuple[Performance | None, list[str]]:
        if self.ask.mode == "accuracy":
            return None, []
        try:
            performance = perform(self._bed, bounds)
        except NoValidResult as error:
            return None, [str(error)]
        return performance, verdict.explain(performance.outcome, bounds)

    def _accuracy(self, run: Run) -> Accuracy | None:
        """Accuracy against FP32. A quick run measures it once, in Offline, for all its scenarios."""
        if self.ask.mode == "performance" or not self._workload.scored:
            return None
        where: Scenario = run.scenario if self.ask.official else "Offline"
        score = self._score(self.ask.engine, self.ask.precision, self.ask.weights, where)
        if self._workload.origin != "trained":
            rules = rules_of(self.ask.network)
            whole = self.ask.size == "full" and len(self._workload) == rules.samples
            return judge_published(score, rules, whole, run.ratio)
        baseline = self._workload.baseline or self.ask.weights
        own = (self.ask.engine, self.ask.precision, self.ask.weights)
        if own == (*REFERENCE, baseline) or self._workload.model is None:
            return judge_itself(score, run.ratio)
        return judge_paired(score, self._score(*REFERENCE, baseline, where), run.ratio)

    def _score(self, engine: str, precision: str, weights: str, scenario: Scenario) -> Score:
        key = engine, precision, weights, scenario
        if key not in self._scores:
            bounds = bounds_of(self.ask.network, scenario, self.ask.official)
            answers = self._bed.answers(bounds, engine, precision, weights)
            if (engine, precision, weights) == (self.ask.engine, self.ask.precision, self.ask.weights):
                self._workload.keep(answers, self.ask.folder / self.ask.title / scenario / "answers")
            self._scores[key] = self._workload.score(answers)
        return self._scores[key]

    def _result(
        self,
        run: Run,
        bounds: Bounds,
        performance: Performance | None,
        why: list[str],
        accuracy: Accuracy | None,
        load_before: float,
    ) -> Result:
        ask, workload, cpu = self.ask, self._workload, Cpu.detect()
        layout = performance.layout if performance else Layout(ask.streams or 1, ask.batch or 1)
        figures = performance.outcome.figures if performance else {}
        official, notes = self._standing(bounds, performance, why, accuracy)
        return Result(
            network=ask.network,
            size=ask.size,
            weights=workload.origin,
            data=workload.data,
            scenario=bounds.scenario,
            category=category_of(ask.network, run, ask.category),
            division="closed" if ask.size == "full" and workload.origin == "official" else "open",
            official=official,
            engine=ask.engine,
            precision=ask.precision,
            threads=self._bed.threads,
            streams=layout.streams,
            batch=layout.batch,
            metric=_metric(bounds, performance) if performance else None,
            latency=_latency(bounds, figures) if performance else None,
            queries=int(figures.get("result_query_count", 0)),
            samples=_samples(bounds, performance) if performance else 0,
            seconds=_seconds(bounds, figures) if performance else 0.0,
            verdict=_verdict(self.ask.mode, why),
            why=why,
            accuracy=accuracy,
            notes=notes,
            loadgen=_loadgen(performance.outcome if performance else None),
            machine=machine(cpu, load_before, load_average()),
            versions=versions(),
            command=ask.command,
            commit=commit(),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _standing(
        self, bounds: Bounds, performance: Performance | None, why: list[str], accuracy: Accuracy | None
    ) -> tuple[bool, list[str]]:
        """Whether the run is official by the full v0.7 rules, and the notes that every output must show."""
        ask, workload, rules = self.ask, self._workload, rules_of(self.ask.network)
        notes = [*workload.notes, *ask.notes]
        if bounds.scenario == "MultiStream":
            notes.append(CLOCKED)
        if not ask.official:
            return False, ["unofficial quick run: shorter than v0.7 asks", *notes]
        lacks = []
        if ask.size != "full" or workload.origin != "official":
            lacks.append("not the reference network with its official weights")
        if len(workload) != rules.samples or not workload.scored:
            lacks.append("not the whole official data set")
        if performance is None or performance.outcome.issuer != ISSUER:
            lacks.append("not issued by LoadGen")
        if ask.mode != "both":
            lacks.append("not both performance and accuracy")
        if why:
            lacks.append("not valid")
        if accuracy is None or accuracy.verdict != "met":
            lacks.append("accuracy target not met")
        if lacks:
            return False, [f"unofficial, though of v0.7's length: {'; '.join(lacks)}", *notes]
        return True, notes


def _verdict(mode: str, why: list[str]) -> Literal["VALID", "INVALID", "NOT RUN"]:
    if mode == "accuracy":
        return "NOT RUN"
    return "INVALID" if why else "VALID"


def _metric(bounds: Bounds, performance: Performance) -> Metric:
    """The scenario's figure of merit, as v0.7 defines it."""
    figures = performance.outcome.figures
    match bounds.scenario:
        case "SingleStream":
            return Metric("90th percentile latency", figures["result_90.00_percentile_latency_ns"] / 1e6, "ms")
        case "MultiStream":
            return Metric("Streams", performance.rate, "streams")
        case "Server":
            return Metric("Scheduled rate", figures["result_scheduled_samples_per_sec"], "queries/s")
        case "Offline":
            return Metric("Throughput", figures["result_samples_per_second"], "samples/s")


def _latency(bounds: Bounds, figures: dict[str, float]) -> Latency | None:
    """Latencies of queries; None in Offline, which has one query only."""
    if bounds.scenario == "Offline":
        return None
    suffix = "_percentile_latency_ns"
    percentiles = {
        key.removeprefix("result_").removesuffix(suffix): value / 1e6
        for key, value in figures.items()
        if key.startswith("result_") and key.endswith(suffix)
    }
    return Latency(
        min=figures["result_min_latency_ns"] / 1e6,
        mean=figures["result_mean_latency_ns"] / 1e6,
        max=figures["result_max_latency_ns"] / 1e6,
        percentiles=percentiles,
        limit=None if bounds.limit_seconds is None else bounds.limit_seconds * 1e3,
        limit_percentile=None if bounds.percentile is None else bounds.percentile * 100,
    )


def _samples(bounds: Bounds, performance: Performance) -> int:
    figures = performance.outcome.figures
    match bounds.scenario:
        case "Offline":
            return round(figures["result_samples_per_second"] * figures["result_max_latency_ns"] / 1e9)
        case "MultiStream":
            return round(figures["result_query_count"] * performance.rate)
        case _:
            return round(figures["result_query_count"])


def _seconds(bounds: Bounds, figures: dict[str, float]) -> float:
    match bounds.scenario:
        case "Offline":
            return figures["result_max_latency_ns"] / 1e9
        case "MultiStream":
            return figures["result_seconds"]
        case "Server":
            return figures["result_query_count"] / figures["result_completed_samples_per_sec"]
        case "SingleStream":
            return figures["result_query_count"] / figures["result_qps_with_loadgen_overhead"]


def _loadgen(outcome: Outcome | None) -> Loadgen:
    if outcome is None:
        return Loadgen("none", "", {})
    return Loadgen(outcome.issuer, outcome.version, outcome.settings)
