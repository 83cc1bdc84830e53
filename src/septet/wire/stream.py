# SPDX-License-Identifier: Apache-2.0
"""One stream of a connection of HTTP/2."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stream:
    """One stream as this end sees it."""

    id: int
    send_window: int
    receive_window: int
    owed: int = 0
    """Bytes acknowledged here and not yet told to the peer."""
    declared: int | None = None
    """The body's length by its content-length, less what came."""
    heard: bool = False
    """Whether headers have come."""
    peer_done: bool = False
    done: bool = False
    waiting: deque[memoryview] = field(default_factory=deque)
    """Data that the windows do not let out yet."""
    tail: bytes | None = None
    """Trailers, to follow the data that waits."""
    ending: bool = False
    """Whether the stream is to end with the data that waits."""
