# SPDX-License-Identifier: Apache-2.0
"""Served ÷ bare: LoadGen against a network behind ``septet serve``, over LoadGen against the same file on the same
engine in its own process; Offline, and Server under v0.7's latency limit, doubled where this machine is too slow
for it.

Bare and the three ways over the wire run in turn, `--rounds` times; medians of figures and of ratios. Client and
server have this machine's cores between them, so that a ratio says what everything but the engine takes from it.
In Server a network at full size has too few queries in a probe for a search: one stall of a shared machine fails
it. There the 99th percentile is measured at the same few rates for every side, in turn, and the highest rate is
where their medians meet the limit. The server is laid out as the bare engine is: by itself it knows
of no limit, and takes what answers one query soonest, an instance of all cores, and batches that are worth it.
Beside each figure: how many samples the server ran at once, and its CPU a sample. ResNet-50 is at full size, with
seeded weights, as INT8 and in BF16; the rest are the miniatures in BF16. A CPU without BF16 computes in FP32.

``--only TEXT`` takes what has every word of it in its name, such as "resnet50 full server grpc" or bert.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from scipy.optimize import isotonic_regression

import optimize
from ledger import Row, parser_of, report
from peer import Peer, free_ports, running, septet_command
from septet.client import Client
from septet.engines.remote import SHARED
from septet.errors import NoValidResult
from septet.harness.ask import Ask, Layout
from septet.harness.bed import Bed
from septet.harness.job import Progress
from septet.harness.perform import perform, server_layout
from septet.harness.rules import Scenario, rules_of
from septet.harness.scenario import Bounds, bounds_of
from septet.optimize.candidate import Candidate
from septet.optimize.product import VERSION
from septet.workloads.entry import plain_form, repository_of, repository_with, served_name
from septet.workloads.workload import Asked, Size, miniatures, open_workload

TITLE = "Served ÷ bare engine"

P99 = "result_99.00_percentile_latency_ns"

SHARED_MEMORY = "HTTP with shared memory"
WAYS = {"gRPC": "grpc", "HTTP": "http", SHARED_MEMORY: f"http{SHARED}"}
"""What it is called, and the scheme of its address."""

FIGURES: dict[Scenario, tuple[str, str]] = {
    "Offline": ("result_samples_per_second", "samples/s"),
    "Server": ("result_scheduled_samples_per_sec", "queries/s"),
}
"""The scenario's figure of merit by LoadGen's name, and its unit."""

FLOOR = 0.95
"""For ResNet-50 at full size in BF16 through shared memory. Its way takes about a millisecond of CPU, whatever its
form: INT8 takes half of BF16's time, and a sample of a miniature less than its way does."""

NO_PRODUCTS = Path(os.devnull)
"""Where nothing optimised lies: the miniatures are served as they are."""

LOADS = (0.3, 0.45, 0.6, 0.75, 0.9)
"""The rates of a full-size network in Server, in parts of what the bare engine can do at most."""

INT8 = Candidate("openvino", "int8", optimize.STATIC)


@dataclass(frozen=True)
class Subject:
    """A network as both sides run it: the `candidate` form of `size`, with these `weights`."""

    network: str
    size: Size
    weights: str
    candidate: Candidate

    @property
    def name(self) -> str:
        """Network and size, the form and, if they are no trained ones, the weights."""
        weights = "" if self.weights == "auto" else f" ({self.weights})"
        return f"{self.network} {self.size}{weights} {self.candidate.words}"

    @property
    def scenarios(self) -> list[Scenario]:
        """Those of the two that v0.7 has for it."""
        return ["Offline"] if rules_of(self.network).server_limit_ms is None else ["Offline", "Server"]

    def repository(self) -> Path:
        """What a server serves, as `septet serve NETWORK` lays it out, made where it is not there yet."""
        asked = Asked(self.weights)
        if self.candidate == plain_form():
            return repository_of(self.network, self.size, asked, NO_PRODUCTS)
        workload = open_workload(self.network, self.size, asked)
        assert workload.model is not None
        feeds = optimize.feeds_of(self.network, workload, optimize.NETWORKS[self.network])
        file = optimize.workshop(self.network, workload.model, feeds).file(self.candidate.recipe)
        return repository_with(self.served, self.candidate, file, lambda: feeds[0])

    @property
    def held(self) -> bool:
        """Whether it is held to the floor."""
        return self.size == "full" and self.candidate == plain_form()

    @property
    def served(self) -> str:
        """What the server calls it."""
        return served_name(self.network, self.size)


def subjects() -> list[Subject]:
    """All that are measured."""
    minis = [Subject(network, "mini", "auto", plain_form()) for network in miniatures()]
    full = [Subject("resnet50", "full", "synthetic", form) for form in (INT8, plain_form())]
    return [*full, *minis]


@dataclass(frozen=True)
class Seen:
    """What one run of one side showed: `rate` is 0 where none was valid. Of the server, how many samples a `batch`
    had, and its `cpu` in µs a sample. At a rate that was given, the 99th percentile `p99` of latencies, in s."""

    rate: float
    batch: float = 0.0
    cpu: float = 0.0
    p99: float = 0.0


class Side:
    """The bare engine, or one way to the server at `peer`."""

    def __init__(self, ask: Ask, peer: Peer | None = None) -> None:
        self._ask = ask
        self._bed = Bed(ask, silent)
        self._peer = peer

    def alone(self) -> float:
        """Seconds that a query by itself takes."""
        return self._bed.alone()

    def run(self, bounds: Bounds) -> Seen:
        """As `septet bench` runs it: layout and rate are found first; calibrations are made once."""
        return self._watched(lambda: Seen(self._rate(bounds)))

    def layout(self, bounds: Bounds) -> Layout:
        """The calls side by side and the largest batch with which `septet bench` runs it in Server."""
        return server_layout(self._bed, bounds.limit_seconds or math.inf)

    def run_at(self, rate: float, bounds: Bounds) -> Seen:
        """One test at `rate`, laid out as `septet bench` lays it out."""
        layout = self.layout(bounds)
        return self._watched(
            lambda: Seen(rate, p99=self._bed.measure(bounds, layout, rate, "measuring").figures[P99] / 1e9)
        )

    def most(self) -> float:
        """About how many samples a second all cores together can do at most."""
        calibration = self._bed.calibration(self._bed.streams)
        return calibration.rate_near(calibration.fastest_batch())

    def _watched(self, run: Callable[[], Seen]) -> Seen:
        """What `run` shows, and what the server did meanwhile."""
        if self._peer is None:
            return run()
        cpu, samples, batches = self._peer.cpu(), *self._counts(self._peer)
        seen = run()
        now, more, further = self._peer.cpu(), *self._counts(self._peer)
        if more == samples:
            return seen
        batch, each = (more - samples) / (further - batches), (now - cpu) / (more - samples) * 1e6
        return replace(seen, batch=batch, cpu=each)

    def _rate(self, bounds: Bounds) -> float:
        try:
            performance = perform(self._bed, bounds)
        except NoValidResult:
            return 0.0
        return performance.outcome.figures[FIGURES[bounds.scenario][0]]

    def _counts(self, peer: Peer) -> tuple[int, int]:
        """How many samples the model has answered, and in how many batches."""
        with Client(f"http://{peer.http}") as client:
            (found,) = client.statistics(served_name(self._ask.network, self._ask.size))
        return int(found["inference_count"]), int(found["execution_count"])


def silent(words: str, progress: Progress) -> None:
    """Progress is not shown while something is timed."""


@contextmanager
def served(subject: Subject, repository: Path, folder: Path) -> Iterator[Peer]:
    """A server of `subject` alone."""
    ports = free_ports(3)
    command, environment = septet_command(repository, ports)
    with running(subject.served, command, environment, ports, folder / f"{subject.served}.log") as peer:
        yield peer


def compare(subject: Subject, wanted: dict[Scenario, list[str]], rounds: int, folder: Path) -> list[Row]:
    """The rows of one network, over the `wanted` ways in each scenario."""
    repository = subject.repository()
    (file,) = (repository / subject.served / VERSION).glob("model.*")
    ask = Ask(subject.network, folder, subject.size, subject.weights, engine=subject.candidate.engine,
              precision=subject.candidate.precision, file=file, mode="performance")  # fmt: skip
    bare, rows = Side(ask), []
    for scenario, ways in wanted.items():
        bounds = within_reach(bare, bounds_of(subject.network, scenario, official=False))
        if subject.size == "full":
            repository = laid_out(repository, subject.served, bare.layout(bounds), folder / scenario)
        with served(subject, repository, folder) as peer:
            sides = {"bare": bare} | {way: Side(over(way, peer, subject, ask), peer) for way in ways}
            rows += compared(subject, scenario, bounds, sides, rounds)
    return rows


def laid_out(repository: Path, name: str, layout: Layout, folder: Path) -> Path:
    """`repository`, copied to `folder`, with so many instances of its only model, which divide the cores, and no
    larger batches."""
    shutil.copytree(repository, folder)
    config = folder / name / "config.pbtxt"
    text = re.sub(r"(instance_group .* count: )\d+", rf"\g<1>{layout.streams}", config.read_text())
    sizes = ", ".join(map(str, range(1, layout.batch + 1)))
    config.write_text(re.sub(r"(preferred_batch_size: \[ ).*( \])", rf"\g<1>{sizes}\g<2>", text))
    return folder


def over(way: str, peer: Peer, subject: Subject, ask: Ask) -> Ask:
    """The same, asked of the server at `peer`."""
    address = peer.grpc if WAYS[way] == "grpc" else peer.http
    return replace(ask, engine=f"{WAYS[way]}://{address}/{subject.served}", precision="served", file=None)


def compared(
    subject: Subject, scenario: Scenario, bounds: Bounds, sides: dict[str, Side], rounds: int
) -> list[Row]:
    """The rows of one scenario."""
    limit = f" within {1e3 * bounds.limit_seconds:g} ms" if bounds.limit_seconds else ""
    name = f"{subject.name}, {scenario}{limit}"
    if not (bounds.limit_seconds and subject.size == "full"):
        seen = in_turn(sides, rounds, partial(Side.run, bounds=bounds))
        return rows_of(name, scenario, seen, held=subject.held)
    tests = tests_of(sides, bounds, rounds)
    seen = {way: [met(each, bounds.limit_seconds)] for way, each in tests.items()}
    return latency_rows(name, tests) + rows_of(name, scenario, seen, held=subject.held)


def within_reach(bare: Side, bounds: Bounds) -> Bounds:
    """`bounds`, with v0.7's latency limit doubled until eight calls of the bare engine fit: with less, the highest
    rate is not what the engine can do but how seldom queries meet, and a shared machine stands still."""
    while bounds.limit_seconds is not None and bounds.limit_seconds < 8 * bare.alone():
        bounds = replace(bounds, limit_seconds=2 * bounds.limit_seconds)
    return bounds


def in_turn(sides: dict[str, Side], rounds: int, run: Callable[[Side], Seen]) -> dict[str, list[Seen]]:
    """What every side showed when it was `run`, in each round; every second round goes the other way round."""
    seen: dict[str, list[Seen]] = {way: [] for way in sides}
    for turn in range(rounds):
        for way in sides if turn % 2 == 0 else reversed(sides):
            seen[way].append(run(sides[way]))
            print(f"  {way}: {seen[way][-1]}", file=sys.stderr, flush=True)
    return seen


def tests_of(sides: dict[str, Side], bounds: Bounds, rounds: int) -> dict[str, list[Seen]]:
    """What every side showed at the same few rates, `rounds` times at each, the sides in turn."""
    most = sides["bare"].most()
    tests: dict[str, list[Seen]] = {way: [] for way in sides}
    for rate in (part * most for part in LOADS):
        for way, seen in in_turn(sides, rounds, partial(Side.run_at, rate=rate, bounds=bounds)).items():
            tests[way] += seen
    return tests


def met(tests: list[Seen], limit: float) -> Seen:
    """The rate at which the 99th percentile meets `limit`; it is none above those that were tried, and 0 where it
    lies above from the beginning.

    Between two rates it grows as a power of e, from one median to the next. A median that is lower than one before
    shares its mean with that: more load is no help, so what it shows is a machine that stood still too often.
    """
    rates = sorted({seen.rate for seen in tests})
    heights = [math.log(statistics.median(seen.p99 for seen in tests if seen.rate == rate)) for rate in rates]
    rate = float(np.interp(math.log(limit), isotonic_regression(heights).x, rates, left=0.0))
    batch, cpu = (statistics.median(getattr(seen, each) for seen in tests) for each in ("batch", "cpu"))
    return Seen(rate, batch, cpu)


def latency_rows(name: str, tests: dict[str, list[Seen]]) -> list[Row]:
    """The 99th percentiles at each rate, medians."""
    return [
        Row(f"{name}: {way} at {rate:.3g} queries/s", 1e3 * statistics.median(one.p99 for one in same), "ms p99")
        for way, seen in tests.items()
        for rate, same in groupby(seen, lambda one: one.rate)
    ]


def rows_of(name: str, scenario: Scenario, seen: dict[str, list[Seen]], *, held: bool) -> list[Row]:
    """Figures of each side, and what is left of the bare one's over each way, `held` to the floor or not."""
    unit = FIGURES[scenario][1]
    rows = [Row(f"{name}: bare", statistics.median(one.rate for one in seen["bare"]), unit)]
    for way in [side for side in seen if side != "bare"]:
        mine = seen[way]
        rows += [
            Row(f"{name}: {way}", statistics.median(one.rate for one in mine), unit),
            Row(f"{name}: {way}, a batch", statistics.median(one.batch for one in mine), "samples"),
            Row(f"{name}: {way}, the server", statistics.median(one.cpu for one in mine), "µs CPU a sample"),
        ]
        ratios = [over.rate / bare.rate for over, bare in zip(mine, seen["bare"], strict=True) if bare.rate]
        floor = FLOOR if held and way == SHARED_MEMORY else None
        ratio = statistics.median(ratios) if ratios else 0.0  # a bare engine without a valid rate shows nothing
        rows.append(Row(f"{name}: {way} ÷ bare", ratio, "×", floor=floor))
    return rows


def wanted(subject: Subject, words: list[str]) -> dict[Scenario, list[str]]:
    """The ways of each scenario that have all `words` in their names."""
    found = {
        scenario: [
            way for way in WAYS if all(word in f"{subject.name}, {scenario}, {way}".lower() for word in words)
        ]
        for scenario in subject.scenarios
    }
    return {scenario: ways for scenario, ways in found.items() if ways}


def main() -> None:
    """Read what is asked for, measure, print, and where asked write and judge."""
    parser = parser_of(TITLE)
    parser.add_argument("--only", default="", metavar="TEXT", help="what has every word of TEXT in its name")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="runs of each side (default 3)")
    asked = parser.parse_args()

    words = asked.only.lower().split()
    with tempfile.TemporaryDirectory() as folder:
        chosen = [(subject, ways) for subject in subjects() if (ways := wanted(subject, words))]
        if not chosen:
            parser.error(f"nothing has {asked.only!r} in its name")
        report(
            lambda: [
                row for subject, ways in chosen for row in compare(subject, ways, asked.rounds, Path(folder))
            ],
            title=TITLE,
            asked=asked,
        )


if __name__ == "__main__":
    main()
