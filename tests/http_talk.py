# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 by hand, for tests that send what no client would, or look at what no client shows."""

from __future__ import annotations

import socket

from fake_plane import Running


def dial(running: Running) -> socket.socket:
    """A connection."""
    assert running.server.http is not None
    made = socket.create_connection((running.server.http.host, running.server.http.port), timeout=10)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def answers(talk: socket.socket, count: int = 1) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, headers and body of the next `count` answers."""
    found, stream = [], talk.makefile("rb")
    for _ in range(count):
        status = int(stream.readline().split()[1])
        headers: dict[str, str] = {}
        while line := stream.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        found.append((status, headers, stream.read(int(headers.get("content-length", 0)))))
    return found
