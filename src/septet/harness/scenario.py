# SPDX-License-Identifier: Apache-2.0
"""The bounds of one run: the rules' own for an official run, shorter ones for a quick run."""

from __future__ import annotations

from dataclasses import dataclass

from septet.harness.rules import SCENARIO_RULES, Scenario, rules_of

QUICK_SECONDS: dict[Scenario, float] = {
    "SingleStream": 4.0,
    "MultiStream": 4.0,
    "Server": 4.0,
    "Offline": 4.0,
}
"""How long a quick run lasts at least."""

QUICK_QUERIES: dict[Scenario, int] = {
    "SingleStream": 64,
    "MultiStream": 64,
    "Server": 662,
    "Offline": 1,
}
"""How many queries a quick run issues at least. LoadGen 6 itself calls a run VALID only from 64 queries
on in SingleStream and from 459 on in Server (662 with one query over the limit): its early stopping."""

QUICK_LIBRARY = 256
"""How many distinct samples a quick run keeps in memory at most."""


@dataclass(frozen=True)
class Bounds:
    """Least duration and counts of a run, and the latency that it must keep at `percentile`."""

    scenario: Scenario
    official: bool
    min_seconds: float
    min_queries: int
    min_samples: int
    library: int
    percentile: float | None
    limit_seconds: float | None

    def queries_at(self, rate: float) -> int:
        """How many queries a run at `rate` queries a second issues."""
        return max(self.min_queries, round(rate * self.min_seconds))


def bounds_of(network: str, scenario: Scenario, official: bool) -> Bounds:
    """The bounds of `network` in `scenario`. Raises UnknownNetwork."""
    rules, general = rules_of(network), SCENARIO_RULES[scenario]
    limit_ms = {"Server": rules.server_limit_ms, "MultiStream": rules.multistream_interval_ms}.get(scenario)
    return Bounds(
        scenario=scenario,
        official=official,
        min_seconds=general.min_seconds if official else QUICK_SECONDS[scenario],
        min_queries=general.min_queries if official else QUICK_QUERIES[scenario],
        min_samples=general.min_samples if official else 0,
        library=rules.qsl_size if official else min(rules.qsl_size, QUICK_LIBRARY),
        percentile=general.percentile,
        limit_seconds=None if limit_ms is None else limit_ms / 1_000,
    )
