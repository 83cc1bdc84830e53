# SPDX-License-Identifier: Apache-2.0
"""The rules of MLPerf Inference v0.7: the only place in Septet where they stand.

They are not read from LoadGen, whose built-in configuration is that of a later version (other seeds,
600 s instead of 60 s, no SSD latencies, DLRM at 60 ms). `SOURCES` names the documents, `CITED` says which
of them each column of the table comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from septet.errors import ScenarioNotInCategory, UnknownNetwork, UsageError

Scenario = Literal["SingleStream", "MultiStream", "Server", "Offline"]
Category = Literal["datacenter", "edge"]

SCENARIOS: tuple[Scenario, ...] = ("SingleStream", "MultiStream", "Server", "Offline")
CATEGORIES: tuple[Category, ...] = ("datacenter", "edge")

SOURCES = {
    "POL": "mlcommons/inference_policies a5e34b2 (2020-11-17) inference_rules.adoc",
    "CONF": "mlcommons/inference v0.7.1 mlperf.conf",
    "CHECK": "mlcommons/inference r0.7 cd105ff3 tools/submission/submission-checker.py",
    "REF": "mlcommons/inference v0.7.1, the network's own folder",
}

CITED = {
    "seeds": "CONF",
    "min_seconds": "POL, CHECK",
    "min_queries": "POL, CHECK",
    "min_samples": "POL, CHECK",
    "percentile": "POL",
    "dataset": "POL",
    "samples": "REF",
    "qsl_size": "CHECK",
    "metric": "POL, CHECK",
    "reference": "CHECK",
    "server_limit_ms": "POL, CONF",
    "multistream_interval_ms": "POL, CONF",
    "scenarios": "POL, CHECK",
    "targets": "POL, CHECK",
}


@dataclass(frozen=True)
class Seeds:
    """Seeds of LoadGen's random numbers."""

    qsl: int = 12786827339337101903
    sample_index: int = 12640797754436136668
    schedule: int = 3135815929913719677


@dataclass(frozen=True)
class ScenarioRules:
    """What a scenario asks of every network: at least `min_seconds`, `min_queries` queries and
    `min_samples` samples; latency is judged at `percentile` (a fraction), None where it is not judged."""

    min_seconds: float
    min_queries: int
    min_samples: int
    percentile: float | None


@dataclass(frozen=True)
class NetworkRules:
    """What v0.7 says of one network.

    `reference` is the FP32 score in the unit of `metric`; a target is a ratio of it. `targets` maps
    (category, ratio) to the required scenarios; `optional` holds those a submitter may add.
    """

    title: str
    dataset: str
    samples: int
    qsl_size: int
    metric: str
    reference: float
    server_limit_ms: float | None
    multistream_interval_ms: float | None
    targets: dict[tuple[Category, float], tuple[Scenario, ...]]
    optional: dict[Category, tuple[Scenario, ...]]

    def ratios(self) -> tuple[float, ...]:
        """The accuracy targets, as ratios of the reference."""
        return tuple(sorted({ratio for _, ratio in self.targets}))

    def target(self, ratio: float) -> float:
        """The score that holds `ratio` of the reference."""
        return self.reference * ratio

    def required(self, category: Category, ratio: float) -> tuple[Scenario, ...]:
        """The scenarios that `category` requires at `ratio`; empty where the network is not in it."""
        return self.targets.get((category, ratio), ())

    def allowed(self, category: Category) -> tuple[Scenario, ...]:
        """The scenarios of `category`, required at any ratio or optional, in the order of `SCENARIOS`."""
        there = {s for (of, _), required in self.targets.items() if of == category for s in required}
        there.update(self.optional.get(category, ()))
        return tuple(scenario for scenario in SCENARIOS if scenario in there)


SEEDS = Seeds()

SCENARIO_RULES: dict[Scenario, ScenarioRules] = {
    "SingleStream": ScenarioRules(60.0, 1_024, 0, 0.90),
    "MultiStream": ScenarioRules(60.0, 270_336, 0, 0.99),
    "Server": ScenarioRules(60.0, 270_336, 0, 0.99),
    "Offline": ScenarioRules(60.0, 1, 24_576, None),
}

_SERVED: tuple[Scenario, ...] = ("Server", "Offline")
_STREAMED: tuple[Scenario, ...] = ("SingleStream", "Offline")
_OFFLINE: tuple[Scenario, ...] = ("Offline",)
_MULTISTREAM: dict[Category, tuple[Scenario, ...]] = {"edge": ("MultiStream",)}

NETWORK_RULES: dict[str, NetworkRules] = {
    "resnet50": NetworkRules(
        title="ResNet-50 v1.5",
        dataset="ImageNet 2012 validation",
        samples=50_000,
        qsl_size=1_024,
        metric="top-1 %",
        reference=76.46,
        server_limit_ms=15.0,
        multistream_interval_ms=50.0,
        targets={("datacenter", 0.99): _SERVED, ("edge", 0.99): _STREAMED},
        optional=_MULTISTREAM,
    ),
    "ssd-mobilenet": NetworkRules(
        title="SSD-MobileNet-v1",
        dataset="COCO 2017 validation, 300×300",
        samples=5_000,
        qsl_size=256,
        metric="mAP %",
        reference=22.0,
        server_limit_ms=None,
        multistream_interval_ms=50.0,
        targets={("edge", 0.99): _STREAMED},
        optional=_MULTISTREAM,
    ),
    "ssd-resnet34": NetworkRules(
        title="SSD-ResNet-34",
        dataset="COCO 2017 validation, 1200×1200",
        samples=5_000,
        qsl_size=64,
        metric="mAP %",
        reference=20.0,
        server_limit_ms=100.0,
        multistream_interval_ms=66.0,
        targets={("datacenter", 0.99): _SERVED, ("edge", 0.99): _STREAMED},
        optional=_MULTISTREAM,
    ),
    "bert": NetworkRules(
        title="BERT-large",
        dataset="SQuAD v1.1 dev, sequences of at most 384",
        samples=10_833,
        qsl_size=10_833,
        metric="F1 %",
        reference=90.874,
        server_limit_ms=130.0,
        multistream_interval_ms=None,
        targets={
            ("datacenter", 0.99): _SERVED,
            ("datacenter", 0.999): _SERVED,
            ("edge", 0.99): _STREAMED,
        },
        optional={},
    ),
    "rnnt": NetworkRules(
        title="RNN-T",
        dataset="LibriSpeech dev-clean, at most 15 s",
        samples=2_513,
        qsl_size=2_513,
        metric="100 − WER %",
        reference=92.548,
        server_limit_ms=1_000.0,
        multistream_interval_ms=None,
        targets={("datacenter", 0.99): _SERVED, ("edge", 0.99): _STREAMED},
        optional={},
    ),
    "3d-unet": NetworkRules(
        title="3D U-Net",
        dataset="BraTS 2019 fold 1",
        samples=67,
        qsl_size=16,
        metric="mean Dice",
        reference=0.853,
        server_limit_ms=None,
        multistream_interval_ms=None,
        targets={
            ("datacenter", 0.99): _OFFLINE,
            ("datacenter", 0.999): _OFFLINE,
            ("edge", 0.99): _STREAMED,
            ("edge", 0.999): _STREAMED,
        },
        optional={},
    ),
    "dlrm": NetworkRules(
        title="DLRM",
        dataset="Criteo Terabyte day 23, first half",
        samples=330_067,
        qsl_size=204_800,
        metric="AUC %",
        reference=80.25,
        server_limit_ms=30.0,
        multistream_interval_ms=None,
        targets={("datacenter", 0.99): _SERVED, ("datacenter", 0.999): _SERVED},
        optional={},
    ),
}

NULL_RULES = NetworkRules(
    title="null",
    dataset="indices",
    samples=1_024,
    qsl_size=1_024,
    metric="echoed %",
    reference=100.0,
    server_limit_ms=1.0,
    multistream_interval_ms=50.0,
    targets={("datacenter", 0.99): _SERVED, ("edge", 0.99): _STREAMED},
    optional=_MULTISTREAM,
)
"""Bounds for the null network, which is Septet's own and no benchmark: they measure the harness itself."""


def rules_of(network: str) -> NetworkRules:
    """The rules of `network`. Raises UnknownNetwork."""
    if network == "null":
        return NULL_RULES
    if network not in NETWORK_RULES:
        raise UnknownNetwork(f"no network is called {network!r}; there are: {', '.join(NETWORK_RULES)}")
    return NETWORK_RULES[network]


@dataclass(frozen=True)
class Run:
    """A scenario, and the accuracy target that it is judged at, as a ratio of the FP32 reference."""

    scenario: Scenario
    ratio: float


def runs_of(
    network: str,
    category: Category | None = None,
    ratio: float | None = None,
    wanted: tuple[Scenario, ...] = (),
    *,
    required: bool = False,
) -> tuple[Run, ...]:
    """The runs of `network`: in `category` (or in any), at `ratio` (or at each), of `wanted` scenarios (or of
    all; of the required ones alone where `required` says so), in the order of `SCENARIOS`.

    An optional scenario is judged at the lowest ratio. Raises ScenarioNotInCategory where the rules have no
    such run, UsageError where the network has no such target.
    """
    rules = rules_of(network)
    if ratio is not None and ratio not in rules.ratios():
        have = ", ".join(f"{100 * of:g} %" for of in rules.ratios())
        raise UsageError(f"v0.7 has no {100 * ratio:g} % target for {network}; it has: {have}")
    among = (category,) if category else CATEGORIES
    there = [
        Run(scenario, of)
        for scenario in SCENARIOS
        for of in rules.ratios()
        if (ratio is None or of == ratio) and any(_has(rules, c, scenario, of, required) for c in among)
    ]
    where = f"the {category} category" if category else "any category"
    at = f" at {100 * ratio:g} %" if ratio else ""
    if not there:
        raise ScenarioNotInCategory(f"v0.7 does not have {network} in {where}{at}")
    names = list(dict.fromkeys(run.scenario for run in there))
    for scenario in wanted:
        if scenario not in names:
            raise ScenarioNotInCategory(
                f"v0.7 does not have {network} {scenario} in {where}{at}; it has: {', '.join(names)}"
            )
    return tuple(run for run in there if not wanted or run.scenario in wanted)


def _has(rules: NetworkRules, category: Category, scenario: Scenario, ratio: float, required: bool) -> bool:
    if scenario in rules.required(category, ratio):
        return True
    return not required and ratio == min(rules.ratios()) and scenario in rules.optional.get(category, ())


def category_of(network: str, run: Run, asked: Category | None) -> Literal["datacenter", "edge", "both"]:
    """The category that `run` counts for: the one asked for, or else all that have it."""
    rules = rules_of(network)
    among = [category for category in CATEGORIES if _has(rules, category, run.scenario, run.ratio, False)]
    return asked or (among[0] if len(among) == 1 else "both")
