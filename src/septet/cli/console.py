# SPDX-License-Identifier: Apache-2.0
"""Where a command prints its tables."""

from __future__ import annotations

import os
import sys

from rich.console import Console

WIDE = 1_000
"""Columns of what is no terminal."""


def stdout() -> Console:
    """Standard output. A table is cut to a terminal's width, or to COLUMNS; in a pipe or a file it is whole."""
    said = os.environ.get("COLUMNS", "")
    return Console() if sys.stdout.isatty() or (said.isdecimal() and int(said)) else Console(width=WIDE)
