# SPDX-License-Identifier: Apache-2.0
"""Settings of tracing and logging, as Triton's extensions show and change them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from septet.errors import Forbidden, RequestInvalid, Unsupported
from septet.request import Parameter

_TRACE: dict[str, list[str]] = {
    "trace_level": ["OFF"],
    "trace_rate": ["1000"],
    "trace_count": ["-1"],
    "log_frequency": ["0"],
    "trace_file": [""],
    "trace_mode": ["triton"],
}
_LOG: dict[str, Parameter] = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}


class TraceSettings:
    """Shown, and turned off; nothing here traces yet, so turning it on is refused."""

    def change(self, updates: Mapping[str, list[str] | None] | None) -> dict[str, list[str] | str]:
        """The settings. Raises RequestInvalid, Unsupported (turning tracing on), Forbidden (naming a file)."""
        for name, values in (updates or {}).items():
            if name not in _TRACE:
                raise RequestInvalid(f"there is no trace setting '{name[:40]}'")
            if values is None or values == _TRACE[name]:
                continue
            if name == "trace_file":
                raise Forbidden("the file of a trace is not set from outside")
            raise Unsupported("this server does not trace requests")
        return {name: list(values) if name == "trace_level" else values[0] for name, values in _TRACE.items()}


class LogSettings:
    """What the logger ``septet`` lets through; the file it goes to is not settable from outside."""

    def __init__(self) -> None:
        self._now = dict(_LOG)
        self._lock = threading.Lock()

    def change(self, updates: Mapping[str, Parameter] | None = None) -> dict[str, Parameter]:
        """The settings, after `updates`, of which those of an unknown name say nothing, as with Triton.

        Raises RequestInvalid (wrong type), Forbidden (a file).
        """
        with self._lock:
            known = {name: value for name, value in (updates or {}).items() if name in _LOG}
            for name, value in known.items():
                self._check(name, value)
            if known:
                self._now.update(known)
                logging.getLogger("septet").setLevel(self._level())
            return dict(self._now)

    def _check(self, name: str, value: Parameter) -> None:
        if type(value) is not type(_LOG[name]):
            raise RequestInvalid(f"log setting '{name}' is a {type(_LOG[name]).__name__}")
        if name == "log_file" and value != self._now[name]:
            raise Forbidden("the log file is not set from outside")
        if name == "log_format" and value != "default":
            raise Unsupported("the log has one format, 'default'")
        if isinstance(value, int) and value < 0:
            raise RequestInvalid(f"log setting '{name}' is 0 or more")

    def _level(self) -> int:
        now = self._now
        if now["log_verbose_level"]:
            return logging.DEBUG
        for name, level in (
            ("log_info", logging.INFO),
            ("log_warning", logging.WARNING),
            ("log_error", logging.ERROR),
        ):
            if now[name]:
                return level
        return logging.CRITICAL + 1
