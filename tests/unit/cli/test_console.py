# SPDX-License-Identifier: Apache-2.0
"""Tables are cut to a terminal's width, and to nothing else's."""

from __future__ import annotations

import pytest
from rich.table import Table

from septet.cli.console import stdout


def test_a_table_in_a_pipe_is_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    words = "x" * 150
    stdout().print(_table(words))
    assert words in capsys.readouterr().out
    for odd in ("", "0", "wide"):
        monkeypatch.setenv("COLUMNS", odd)
        monkeypatch.setenv("FORCE_COLOR", "1")
        stdout().print(_table(words))
        assert words in capsys.readouterr().out
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setenv("COLUMNS", "100")
    stdout().print(_table(words))
    shown = capsys.readouterr().out
    assert words not in shown
    assert max(map(len, shown.splitlines())) == 100


def _table(words: str) -> Table:
    table = Table()
    table.add_column(no_wrap=True)
    table.add_row(words)
    return table
