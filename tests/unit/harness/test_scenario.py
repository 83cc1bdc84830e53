# SPDX-License-Identifier: Apache-2.0
import pytest

from septet.harness.rules import SCENARIO_RULES, SCENARIOS, Scenario
from septet.harness.scenario import bounds_of


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_official_bounds_are_the_rules(scenario: Scenario) -> None:
    bounds, rules = bounds_of("resnet50", scenario, official=True), SCENARIO_RULES[scenario]
    assert (bounds.min_seconds, bounds.min_queries, bounds.min_samples, bounds.percentile) == (
        rules.min_seconds,
        rules.min_queries,
        rules.min_samples,
        rules.percentile,
    )
    assert bounds.library == 1_024


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_quick_bounds_are_shorter_but_judge_the_same_latency(scenario: Scenario) -> None:
    quick, official = (bounds_of("resnet50", scenario, official) for official in (False, True))
    assert quick.min_seconds < official.min_seconds
    assert (quick.percentile, quick.limit_seconds) == (official.percentile, official.limit_seconds)


def test_limits_are_in_seconds() -> None:
    assert bounds_of("resnet50", "Server", official=True).limit_seconds == 0.015
    assert bounds_of("resnet50", "MultiStream", official=True).limit_seconds == 0.05
    assert bounds_of("resnet50", "Offline", official=True).limit_seconds is None


def test_queries_at_a_rate() -> None:
    bounds = bounds_of("resnet50", "Server", official=True)
    assert bounds.queries_at(1.0) == 270_336
    assert bounds.queries_at(10_000.0) == 600_000
