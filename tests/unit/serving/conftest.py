# SPDX-License-Identifier: Apache-2.0
"""Servers on free ports of the loopback, in a thread of this process, over a fake plane."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from fake_plane import FREE, FakePlane, Running, Start
from septet.serving.server import Server, Settings


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server with changed settings; all are stopped at the end."""
    begun: list[tuple[Server, threading.Thread]] = []

    def begin(**changes: object) -> Running:
        plane = FakePlane()
        settings = replace(Settings(FREE, FREE, FREE, exit_seconds=5.0), **changes)  # type: ignore[arg-type]
        server, ready = Server(plane, settings), threading.Event()
        thread = threading.Thread(target=server.run, args=(ready.set,))
        thread.start()
        begun.append((server, thread))
        assert ready.wait(10)
        return Running(plane, server)

    yield begin
    for server, thread in begun:
        server.stop()
        thread.join(15)
        assert not thread.is_alive(), "the server did not end"


@pytest.fixture
def running(start: Start) -> Running:
    """A server with the default settings."""
    return start()
