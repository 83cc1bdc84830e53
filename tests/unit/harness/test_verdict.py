# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

from septet.harness.job import Outcome
from septet.harness.scenario import bounds_of
from septet.harness.verdict import explain

VALID = Outcome(True, [], {}, {}, "", "")


def invalid(*reasons: str, hopeless: bool = False, **figures: float) -> Outcome:
    return Outcome(False, list(reasons), figures, {}, "", "", hopeless)


def test_a_valid_run_needs_no_words() -> None:
    assert explain(VALID, bounds_of("resnet50", "Server", official=True)) == []


def test_latency_over_the_limit() -> None:
    outcome = Outcome(False, ["x"], {"result_99.00_percentile_latency_ns": 17.3e6}, {}, "", "")
    [line] = explain(outcome, bounds_of("resnet50", "Server", official=True))
    assert "99th percentile of latency must be within 15 ms and took 17.3 ms" in line
    assert "a lower rate" in line


def test_a_run_that_gave_up_early_speaks_of_latency() -> None:
    [line] = explain(invalid(hopeless=True), bounds_of("resnet50", "MultiStream", official=True))
    assert "within 50 ms" in line
    assert "fewer streams" in line


def test_too_short_a_run_says_which_way() -> None:
    bounds = bounds_of("resnet50", "Offline", official=True)
    [short] = explain(invalid(result_min_duration_met=0.0, result_min_queries_met=1.0), bounds)
    assert "before the 60 s" in short
    bounds = bounds_of("resnet50", "SingleStream", official=True)
    [few] = explain(invalid(result_min_queries_met=0.0, result_query_count=900.0), bounds)
    assert "900 queries of the 1024" in few


def test_early_stopping_is_put_in_words() -> None:
    bounds = replace(bounds_of("resnet50", "Server", official=False), limit_seconds=0.015)
    outcome = invalid("x", early_stopping_met=0.0, result_query_count=300.0)
    [line] = explain(outcome, bounds)
    assert "300 queries are too few" in line


def test_a_reason_that_is_not_known_is_passed_on_as_it_is() -> None:
    assert explain(invalid("Odd thing. "), bounds_of("resnet50", "Offline", official=True)) == ["Odd thing."]
