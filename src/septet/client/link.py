# SPDX-License-Identifier: Apache-2.0
"""A connection to a server, on which nobody waits beyond the end of a call."""

from __future__ import annotations

import math
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress

from septet.tensor import Buffer

READ, FURTHER = 1 << 16, 1 << 20
"""Bytes asked of a socket at once: at first, for which the allocator has memory at hand, and once so many came."""

JOINED = 1 << 16
"""Up to so many bytes are sent at once, however many pieces they are."""


class Link:
    """A TCP connection. The `end` of a wait is a time of the monotonic clock, infinity for ever; once it is past,
    `send` and `receive` raise TimeoutError, and OSError where the connection is lost."""

    def __init__(self, host: str, port: int, end: float) -> None:
        self._socket = _connected(host, port, end)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)  # the system is asked to wait only where there is something to wait for
        self._read = READ
        self._readable = select.poll()
        self._readable.register(self._socket, select.POLLIN)

    def send(self, chunks: Sequence[Buffer], end: float) -> None:
        """Send all of `chunks`."""
        if sum(map(len, chunks)) <= JOINED:
            chunks = [b"".join(chunks)]
        for chunk in chunks:
            rest = memoryview(chunk)
            while len(rest):
                try:
                    rest = rest[self._socket.send(rest) :]
                except BlockingIOError:
                    writable = select.poll()
                    writable.register(self._socket, select.POLLOUT)
                    _wait(writable, end)

    def receive(self, end: float) -> bytes:
        """What comes next; nothing once the server has hung up."""
        while True:
            _wait(self._readable, end)
            with suppress(BlockingIOError):
                data = self._socket.recv(self._read)
                self._read = FURTHER if len(data) >= READ else READ
                return data

    def waiting(self) -> bool:
        """Whether something has come that was not received, be it the connection's end."""
        return bool(self._readable.poll(0))

    def fileno(self) -> int:
        """The socket's, for who waits on many."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def _connected(host: str, port: int, end: float) -> socket.socket:
    """A connection to whichever of the host's addresses takes it first, all of them tried before `end`."""
    failure = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(left(end))
            made.connect(address)
            return made
        except OSError as error:
            made.close()
            failure = error
    raise failure


def _wait(ready: select.poll, end: float) -> None:
    seconds = left(end)
    if not ready.poll(None if seconds is None else math.ceil(1e3 * seconds)):
        raise TimeoutError


def left(end: float) -> float | None:
    """Seconds until `end`, ``None`` for ever. Raises TimeoutError where there are none."""
    if end == math.inf:
        return None
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds
