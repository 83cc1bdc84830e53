# SPDX-License-Identifier: Apache-2.0
"""What is said once, at a server's start: where and how it logs, its name, which metrics it shows."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from septet.errors import Unsupported, UsageError
from septet.serving.core import Core
from septet.serving.settings import LogSettings
from septet.wire.shm import Regions


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the root logger was configured with."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(logging, "basicConfig", found.update)
    return found


def test_the_log_goes_to_a_file_in_the_format_asked_for(tmp_path: Path, begun: dict[str, Any]) -> None:
    for style, stamp in (("ISO8601", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ WARNING"), ("default", r".*,\d+ WARNING")):
        file = tmp_path / style
        logs = LogSettings(log_file=str(file), log_format=style)
        logs.begin()
        [handler] = begun["handlers"]
        handler.handle(logging.LogRecord("septet", logging.WARNING, "", 0, "hello", None, None))
        handler.close()
        assert re.fullmatch(stamp + " septet: hello\n", file.read_text())
        assert logs.change({"log_format": style})["log_file"] == str(file)
        with pytest.raises(Unsupported):
            logs.change({"log_format": "xml"})


@pytest.mark.parametrize(
    ("settings", "level"),
    [({}, logging.INFO), ({"log_info": False}, logging.WARNING), ({"log_verbose_level": 2}, logging.DEBUG),
     ({"log_info": False, "log_warning": False}, logging.ERROR)],
)  # fmt: skip
def test_the_log_begins_at_its_level(settings: dict[str, Any], level: int, begun: dict[str, Any]) -> None:
    LogSettings(**settings).begin()
    assert begun["level"] == level


def test_a_file_that_cannot_be_written_is_told() -> None:
    with pytest.raises(UsageError, match="/nowhere/log"):
        LogSettings(log_file="/nowhere/log").begin()


def test_a_server_has_the_name_and_the_metrics_asked_for(tmp_path: Path) -> None:
    core = Core([tmp_path], regions=Regions(), name="mine", cpu_metrics=False)
    other = Core([tmp_path], regions=Regions())
    try:
        assert core.server_metadata()["name"] == "mine"
        assert other.server_metadata()["name"] == "septet"
        assert "nv_cpu" not in core.metrics_text()
        assert "nv_cpu" in other.metrics_text()
    finally:
        core.close(0)
        other.close(0)
