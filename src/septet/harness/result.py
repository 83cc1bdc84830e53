# SPDX-License-Identifier: Apache-2.0
"""Result: the record of one run, and the JSON files that hold lists of them.

The schema is versioned: a file is ``{"schema": SCHEMA, "results": [Result, ...]}``. A file of a newer
schema is refused, never half-understood.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from septet.errors import ResultsNewer, ResultsUnreadable
from septet.whole import write_whole

SCHEMA = 1


class Metric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The scenario's figure of merit, such as ``Samples per second``, 812.4, ``samples/s``."""

    name: str
    value: float
    unit: str


class Latency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Query latencies in milliseconds; `percentiles` maps ``"50.00"`` … ``"99.90"`` to a latency."""

    min: float
    mean: float
    max: float
    percentiles: dict[str, float]
    limit: float | None = None
    limit_percentile: float | None = None

    def __post_init__(self) -> None:
        for name in self.percentiles:
            if not name.replace(".", "", 1).isdecimal():
                raise ValueError(f"{name!r} is no percentile")


class Accuracy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The accuracy run: `value` in `unit` with its 95 % interval, against the FP32 `reference`.

    `ratio` is value ÷ reference with its own interval, paired sample by sample where the reference was
    run on the same samples; `target` is the ratio to hold (0.99 or 0.999). `beside` holds further figures in
    `unit`, such as SQuAD's exact match beside F1.
    """

    metric: str
    unit: str
    value: float
    low: float
    high: float
    reference: float
    ratio: float
    ratio_low: float
    ratio_high: float
    target: float
    verdict: Literal["met", "missed", "undecided"]
    why: str
    samples: int
    beside: dict[str, float] = {}


class Loadgen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What issued the queries: `issuer` is ``MLPerf LoadGen`` or, for v0.7's MultiStream, Septet's own clock."""

    issuer: str
    version: str
    settings: dict[str, int | float | bool | str]


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where it ran: `memory` in GiB, `load` the one-minute load average before and after the run."""

    cpu: str
    cores: int
    memory: float
    load: tuple[float, float]
    system: str


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run of one scenario.

    `verdict` is LoadGen's on the performance run, and NOT RUN where only accuracy was asked for.
    """

    network: str
    size: Literal["full", "mini"]
    weights: Literal["official", "user", "trained", "synthetic"]
    data: str
    scenario: Literal["SingleStream", "MultiStream", "Server", "Offline"]
    category: Literal["datacenter", "edge", "both"]
    division: Literal["closed", "open"]
    official: bool
    engine: str
    precision: str
    threads: int
    streams: int
    batch: int
    metric: Metric | None
    latency: Latency | None
    queries: int
    samples: int
    seconds: float
    verdict: Literal["VALID", "INVALID", "NOT RUN"]
    why: list[str]
    accuracy: Accuracy | None
    notes: list[str]
    loadgen: Loadgen
    machine: Machine
    versions: dict[str, str]
    command: str
    commit: str
    time: str


class ResultsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of one results file."""

    results: list[Result]
    schema: int = SCHEMA


class _SchemaOnly(msgspec.Struct):
    schema: int


def load_results(path: Path) -> list[Result]:
    """Read a results file. Raises ResultsUnreadable, ResultsNewer."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ResultsUnreadable(f"{path}: {error.strerror or error}") from error
    try:
        schema = msgspec.json.decode(text, type=_SchemaOnly).schema
        if schema < 1:
            raise ResultsUnreadable(f"{path}: not a Septet results file: there is no schema {schema}")
        if schema > SCHEMA:
            raise ResultsNewer(
                f"{path}: follows results schema {schema}, and this Septet knows up to {SCHEMA}: upgrade Septet"
            )
        return msgspec.json.decode(text, type=ResultsFile).results
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ResultsUnreadable(f"{path}: not a Septet results file: {error}") from error


def save_results(path: Path, results: Sequence[Result]) -> None:
    """Write a results file whole or not at all. Raises ResultsNotWritten; an earlier file is then untouched."""
    text = msgspec.json.format(msgspec.json.encode(ResultsFile(list(results))), indent=2) + b"\n"
    write_whole(path, text)
