# SPDX-License-Identifier: Apache-2.0
"""Say in plain words why a run is INVALID and what would make it valid."""

from __future__ import annotations

from septet.harness.job import Outcome
from septet.harness.scenario import Bounds


def explain(outcome: Outcome, bounds: Bounds) -> list[str]:
    """One line a reason, each with the change that would mend it; empty for a valid run."""
    if outcome.valid:
        return []
    found = [line for line in (_latency(outcome, bounds), _length(outcome, bounds)) if line]
    if outcome.figures.get("early_stopping_met") == 0.0 and not found:
        found.append(_too_few_to_tell(outcome, bounds))
    return found or [reason.strip() for reason in outcome.reasons] or ["LoadGen gave no reason"]


def _latency(outcome: Outcome, bounds: Bounds) -> str:
    if bounds.limit_seconds is None or bounds.percentile is None:
        return ""
    limit, percentile = bounds.limit_seconds * 1e3, bounds.percentile * 100
    seen = outcome.figures.get(f"result_{percentile:.2f}_percentile_latency_ns", 0.0) / 1e6
    if seen <= limit and not outcome.hopeless:
        return ""
    what = "fewer streams" if bounds.scenario == "MultiStream" else "a lower rate"
    took = f"took {seen:.3g} ms" if seen else "could no longer keep it"
    return (
        f"the {percentile:g}th percentile of latency must be within {limit:g} ms and {took}: "
        f"ask {what}, or use a faster engine or precision"
    )


def _length(outcome: Outcome, bounds: Bounds) -> str:
    figures = outcome.figures
    if figures.get("result_min_queries_met") == 0.0:
        return (
            f"it issued {figures.get('result_query_count', 0):.0f} queries of the {bounds.min_queries} "
            "that the rules ask: run it longer"
        )
    if figures.get("result_min_duration_met") == 0.0:
        return (
            f"it ended before the {bounds.min_seconds:g} s that it must last, because it was faster than "
            "expected: run it again, with the rate seen now as the expected one"
        )
    return ""


def _too_few_to_tell(outcome: Outcome, bounds: Bounds) -> str:
    count = outcome.figures.get("result_query_count", 0)
    return (
        f"{count:.0f} queries are too few for LoadGen to be 99 % sure of the latency percentile: "
        "run it longer, or at a lower rate so that fewer queries are late"
    )
