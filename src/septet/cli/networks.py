# SPDX-License-Identifier: Apache-2.0
"""``septet networks``: what can be run, and which weights and data are here for it."""

from __future__ import annotations

import click
from rich import box
from rich.table import Table

from septet.cli.console import stdout
from septet.harness.rules import CATEGORIES, NetworkRules, rules_of
from septet.workloads import workload
from septet.workloads.card import Card, Counts
from septet.workloads.fetch import data_dir

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@click.command()
def networks() -> None:
    """List the networks with sizes, targets, required scenarios, and the weights and data that are here."""
    console = stdout()
    for name in workload.networks():
        console.print(_table(name, rules_of(name), workload.workload_class(name).card))


def _table(name: str, rules: NetworkRules, card: Card) -> Table:
    table = Table(title=f"{name}: {rules.title}", title_justify="left", box=box.SIMPLE, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("full size", _counts(card.full))
    ships = "" if name in workload.miniatures() else "; its trained weights do not ship yet"
    table.add_row("miniature", f"{_counts(card.mini)}{ships}")
    table.add_row("data set", rules.dataset)
    table.add_row(
        "targets",
        ", ".join(f"{100 * ratio:g} % of {rules.reference:g} {rules.metric}" for ratio in rules.ratios()),
    )
    for category in CATEGORIES:
        table.add_row(category, _required(rules, category))
    table.add_row("official weights", weights_here(card))
    table.add_row("data", _data(name))
    return table


def _required(rules: NetworkRules, category: str) -> str:
    required = [
        f"{', '.join(scenarios)} at {100 * ratio:g} %"
        for (where, ratio), scenarios in rules.targets.items()
        if where == category
    ]
    return "; ".join(required) or "not in this category"


def _counts(counts: Counts) -> str:
    return f"{in_short(counts.parameters)} parameters, {in_short(counts.flops)}FLOP for {counts.sample}"


def in_short(number: float) -> str:
    """A number in three digits and a prefix: 25557032 is «25.6 M»."""
    for size, prefix in _PREFIXES:
        if number >= size:
            return f"{number / size:.3g} {prefix}"
    return f"{number:g} "


def weights_here(card: Card) -> str:
    """Which official files lie in the cache, in words."""
    if not card.official:
        return card.weights
    here = [official for official in card.official if official.path.exists()]
    if len(here) == len(card.official):
        return f"here: {', '.join(str(official.path) for official in here)}"
    return f"{len(here)} of {len(card.official)} files here; septet fetch gets them"


def _data(name: str) -> str:
    folder = data_dir(name)
    return f"here: {folder}" if folder.is_dir() else "not here; septet fetch says what to bring"
