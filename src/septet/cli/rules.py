# SPDX-License-Identifier: Apache-2.0
"""``septet rules``: what MLPerf Inference v0.7 asks."""

from __future__ import annotations

from collections.abc import Callable

import click
from rich import box
from rich.table import Table

from septet.cli.console import stdout
from septet.harness.rules import (
    CATEGORIES,
    CITED,
    NETWORK_RULES,
    SCENARIO_RULES,
    SEEDS,
    SOURCES,
    NetworkRules,
    rules_of,
)


@click.command()
@click.argument("network", required=False)
def rules(network: str | None) -> None:
    """Print the v0.7 rules of NETWORK, or of all seven."""
    shown = {network: rules_of(network)} if network else NETWORK_RULES
    console = stdout()
    for name, of in shown.items():
        console.print(_network_table(name, of))
    console.print(_scenario_table())
    for line in _footnotes():
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _footnotes() -> list[str]:
    seeds = f"qsl {SEEDS.qsl}, sample_index {SEEDS.sample_index}, schedule {SEEDS.schedule}"
    return [f"seeds: {seeds}  {CITED['seeds']}", *(f"{key}: {text}" for key, text in SOURCES.items())]


def _network_table(name: str, of: NetworkRules) -> Table:
    table = Table(title=f"{of.title} ({name})", title_justify="left", box=box.SIMPLE, show_header=False)
    for title, key, figure in _ROWS:
        table.add_row(title, figure(of), CITED[key])
    for category in CATEGORIES:
        table.add_row(f"{category}, required", _required(of, category), CITED["scenarios"])
        if of.optional.get(category):
            table.add_row(f"{category}, optional", ", ".join(of.optional[category]), CITED["scenarios"])
    for ratio in of.ratios():
        table.add_row(f"target {100 * ratio:g} %", f"{of.target(ratio):.5g} {of.metric}", CITED["targets"])
    return table


_ROWS: tuple[tuple[str, str, Callable[[NetworkRules], str]], ...] = (
    ("data set", "dataset", lambda of: of.dataset),
    ("samples", "samples", lambda of: f"{of.samples:,}"),
    ("samples in memory (QSL)", "qsl_size", lambda of: f"{of.qsl_size:,}"),
    ("FP32 reference", "reference", lambda of: f"{of.reference:g} {of.metric}"),
    ("Server latency, p99", "server_limit_ms", lambda of: _ms(of.server_limit_ms)),
    ("MultiStream interval", "multistream_interval_ms", lambda of: _ms(of.multistream_interval_ms)),
)


def _required(of: NetworkRules, category: str) -> str:
    required = [
        f"{100 * ratio:g} %: {', '.join(scenarios)}"
        for (where, ratio), scenarios in of.targets.items()
        if where == category
    ]
    return "; ".join(required) or "not in this category"


def _ms(limit: float | None) -> str:
    return "none" if limit is None else f"{limit:g} ms"


def _scenario_table() -> Table:
    table = Table(title="Every network", title_justify="left", box=box.SIMPLE)
    for title in ("scenario", "seconds", "queries", "samples", "latency percentile"):
        table.add_column(title, justify="left" if title == "scenario" else "right")
    for scenario, of in SCENARIO_RULES.items():
        percentile = "none" if of.percentile is None else f"{100 * of.percentile:g} %"
        samples = f"{of.min_samples:,}" if of.min_samples else "-"
        table.add_row(scenario, f"{of.min_seconds:g}", f"{of.min_queries:,}", samples, percentile)
    return table
