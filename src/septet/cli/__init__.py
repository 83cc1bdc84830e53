# SPDX-License-Identifier: Apache-2.0
"""The command ``septet``: one file a command, each imported only when it is called."""

from __future__ import annotations

import signal
import sys
from pkgutil import resolve_name
from types import FrameType

import click

import septet
from septet.errors import SeptetError

COMMANDS = {
    "bench": "septet.cli.bench:bench",
    "serve": "septet.cli.serve:serve",
    "optimize": "septet.cli.optimize:optimize",
    "networks": "septet.cli.networks:networks",
    "fetch": "septet.cli.fetch:fetch",
    "rules": "septet.cli.rules:rules",
    "models": "septet.cli.models:models",
    "report": "septet.cli.report:report",
    "doctor": "septet.cli.doctor:doctor",
}
"""Command name -> dotted name of its function."""


class Commands(click.Group):
    """A group that imports a command when it is asked for, and prints what is wrong as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = resolve_name(COMMANDS[cmd_name])
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            click.echo(f"Error: {error.format_message()}", err=True)
            sys.exit(error.exit_code)
        except SeptetError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)


@click.group(cls=Commands)
@click.version_option(septet.__version__, prog_name="septet")
def main() -> None:
    """From a trained network to a fast, accuracy-checked, latency-tested, deployed service."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End on SIGTERM as on Ctrl-C, so that whatever is running is put away."""
    raise KeyboardInterrupt
