# SPDX-License-Identifier: Apache-2.0
"""``septet models``: look at a model repository without serving it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from septet.serving.check import Checked, check


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--load", is_flag=True, help="Load every model too, as serving it would.")
def models(folder: Path, load: bool) -> None:
    """Check the model repository FOLDER, and say what is wrong in which file and line.

    Ends with status 1 where a model could not be served.
    """
    wrong = 0
    for checked in check(folder, load=load):
        click.echo(_line(checked))
        for fault in checked.faults:
            click.echo(f"  {fault}")
        for note in checked.notes:
            click.echo(f"  note: {note}")
        wrong += bool(checked.faults)
    sys.exit(1 if wrong else 0)


def _line(checked: Checked) -> str:
    versions = ", ".join(map(str, checked.versions))
    about = (
        f"{checked.backend or 'no backend'}, version {versions}" if versions else checked.backend or "no backend"
    )
    return f"{checked.name}: {'wrong' if checked.faults else 'good'} ({about})"
