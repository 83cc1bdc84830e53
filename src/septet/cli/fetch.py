# SPDX-License-Identifier: Apache-2.0
"""``septet fetch``: get a network's official weights, and say what data a person must bring."""

from __future__ import annotations

import click
from rich.console import Console

from septet.cli.progress import Display
from septet.errors import FetchError
from septet.harness.job import Progress
from septet.workloads import fetch as fetching
from septet.workloads.weights import Official
from septet.workloads.workload import workload_class


@click.command()
@click.argument("network")
def fetch(network: str) -> None:
    """Get the official weights of NETWORK into the cache, and say what data to bring and where to put it.

    What broke off is resumed, what arrived is checked. Without a network connection it still says what is
    missing, and exits with 1.
    """
    card = workload_class(network).card
    click.echo(f"data: {card.bring}")
    folder = fetching.data_dir(network)
    state = "is there" if folder.is_dir() else "is not there yet"
    click.echo(f"      Put it into {folder} (it {state}), or name another folder with --data.")
    if not card.official:
        click.echo(f"weights: {card.weights}")
    failed: list[FetchError] = []
    with Display(Console(stderr=True)) as display:
        for official in card.official:
            try:
                click.echo(f"weights: {_fetched(official, display)}")
            except FetchError as error:
                failed.append(error)
    if failed:
        raise FetchError("; ".join(map(str, failed)))


def _fetched(official: Official, display: Display) -> str:
    if official.path.exists():
        return f"{official.path} was there already"

    def show(done: int, of: int | None) -> None:
        size = f"{done / 1e6:.0f} of {of / 1e6:.0f} MB" if of else f"{done / 1e6:.0f} MB"
        display.step(f"{official.url}", Progress(size, done / of if of else 0.0, 0.0))

    return str(fetching.fetch(official.url, official.path, official.md5, on_bytes=show))
