# SPDX-License-Identifier: Apache-2.0
import pytest

from septet.errors import ScenarioNotInCategory, UnknownNetwork, UsageError
from septet.harness.rules import (
    CITED,
    NETWORK_RULES,
    SCENARIO_RULES,
    SOURCES,
    Run,
    category_of,
    rules_of,
    runs_of,
)


def test_there_are_seven_networks() -> None:
    assert list(NETWORK_RULES) == [
        "resnet50",
        "ssd-mobilenet",
        "ssd-resnet34",
        "bert",
        "rnnt",
        "3d-unet",
        "dlrm",
    ]


@pytest.mark.parametrize(
    ("network", "ratio", "target"),
    [
        ("resnet50", 0.99, 75.695),
        ("ssd-mobilenet", 0.99, 21.78),
        ("ssd-resnet34", 0.99, 19.8),
        ("bert", 0.99, 89.965),
        ("bert", 0.999, 90.783),
        ("rnnt", 0.99, 91.6225),
        ("3d-unet", 0.99, 0.84447),
        ("3d-unet", 0.999, 0.852147),
        ("dlrm", 0.99, 79.4475),
        ("dlrm", 0.999, 80.1698),
    ],
)
def test_targets_are_those_of_the_checker(network: str, ratio: float, target: float) -> None:
    assert rules_of(network).target(ratio) == pytest.approx(target, rel=1e-5)


@pytest.mark.parametrize(
    ("network", "server", "interval", "library"),
    [
        ("resnet50", 15, 50, 1_024),
        ("ssd-mobilenet", None, 50, 256),
        ("ssd-resnet34", 100, 66, 64),
        ("bert", 130, None, 10_833),
        ("rnnt", 1_000, None, 2_513),
        ("3d-unet", None, None, 16),
        ("dlrm", 30, None, 204_800),
    ],
)
def test_limits(network: str, server: float | None, interval: float | None, library: int) -> None:
    rules = rules_of(network)
    assert (rules.server_limit_ms, rules.multistream_interval_ms, rules.qsl_size) == (
        server,
        interval,
        library,
    )


def test_a_limit_stands_exactly_where_the_scenario_is_allowed() -> None:
    for rules in NETWORK_RULES.values():
        assert (rules.server_limit_ms is not None) == ("Server" in rules.allowed("datacenter"))
        assert (rules.multistream_interval_ms is not None) == ("MultiStream" in rules.allowed("edge"))


def test_required_scenarios() -> None:
    assert rules_of("bert").required("datacenter", 0.999) == ("Server", "Offline")
    assert rules_of("bert").required("edge", 0.999) == ()
    assert rules_of("3d-unet").required("datacenter", 0.999) == ("Offline",)
    assert rules_of("dlrm").allowed("edge") == ()
    assert rules_of("resnet50").allowed("edge") == ("SingleStream", "MultiStream", "Offline")


def test_scenario_rules() -> None:
    assert {name: (of.min_queries, of.percentile) for name, of in SCENARIO_RULES.items()} == {
        "SingleStream": (1_024, 0.90),
        "MultiStream": (270_336, 0.99),
        "Server": (270_336, 0.99),
        "Offline": (1, None),
    }
    assert SCENARIO_RULES["Offline"].min_samples == 24_576
    assert {of.min_seconds for of in SCENARIO_RULES.values()} == {60.0}


def test_every_figure_cites_a_known_source() -> None:
    for cited in CITED.values():
        assert set(cited.split(", ")) <= set(SOURCES)


def test_asking_for_what_is_not_there() -> None:
    with pytest.raises(UnknownNetwork, match="resnet50, ssd-mobilenet"):
        rules_of("resnet")
    with pytest.raises(ScenarioNotInCategory, match="SingleStream, MultiStream, Offline"):
        runs_of("resnet50", "edge", wanted=("Server",))
    with pytest.raises(ScenarioNotInCategory, match="does not have dlrm in the edge category"):
        runs_of("dlrm", "edge")
    with pytest.raises(UsageError, match=r"no 99\.9 % target for resnet50; it has: 99 %"):
        runs_of("resnet50", ratio=0.999)
    with pytest.raises(ScenarioNotInCategory, match=r"bert in the edge category at 99\.9 %"):
        runs_of("bert", "edge", 0.999)
    with pytest.raises(ScenarioNotInCategory, match=r"bert SingleStream in any category at 99\.9 %"):
        runs_of("bert", None, 0.999, ("SingleStream",))


def test_defaults() -> None:
    assert [run.scenario for run in runs_of("resnet50")] == ["SingleStream", "MultiStream", "Server", "Offline"]
    assert [run.scenario for run in runs_of("resnet50", "datacenter")] == ["Server", "Offline"]
    assert {run.ratio for run in runs_of("resnet50")} == {0.99}
    assert category_of("resnet50", Run("Offline", 0.99), None) == "both"
    assert category_of("resnet50", Run("Server", 0.99), None) == "datacenter"
    assert category_of("resnet50", Run("Offline", 0.99), "edge") == "edge"


def test_a_scenario_is_run_at_every_target_that_it_has() -> None:
    assert runs_of("bert") == (
        Run("SingleStream", 0.99),
        Run("Server", 0.99),
        Run("Server", 0.999),
        Run("Offline", 0.99),
        Run("Offline", 0.999),
    )
    assert category_of("bert", Run("Offline", 0.999), None) == "datacenter"
    assert category_of("3d-unet", Run("Offline", 0.999), None) == "both"
    assert runs_of("bert", wanted=("Offline",), ratio=0.999) == (Run("Offline", 0.999),)


@pytest.mark.parametrize("network", NETWORK_RULES)
def test_required_runs_are_those_of_the_table(network: str) -> None:
    table = {
        (scenario, ratio)
        for (_, ratio), scenarios in NETWORK_RULES[network].targets.items()
        for scenario in scenarios
    }
    assert {(run.scenario, run.ratio) for run in runs_of(network, required=True)} == table
