# SPDX-License-Identifier: Apache-2.0
"""An event loop that listens to a channel."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from septet.serving.process.channel import Channel


class Ear:
    """Has a loop call `heard` whenever `channel` has something to read, or is closed.

    The loop watches a descriptor of its own: a channel may be closed on any thread, and its number given to
    another socket, while the loop is told of the end by this one. Raises OSError where there is none left.
    """

    def __init__(self, channel: Channel[Any, Any], heard: Callable[[], None]) -> None:
        self._heard = heard
        self._socket = channel.duplicate()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = False

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin, on `loop`'s thread, if not so already."""
        if self._loop is loop:
            return
        self.rest()
        self._loop = loop
        loop.add_reader(self._socket.fileno(), self._heard)
        os.set_blocking(self._socket.fileno(), True)  # libuv has changed that, and of the channel too

    def rest(self) -> None:
        """Listen no more, until told to again; on the loop's thread."""
        loop, self._loop = self._loop, None
        if loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                loop.remove_reader(self._socket.fileno())
        if self._ended:
            self._socket.close()

    def end(self) -> None:
        """Let the descriptor go, on any thread: where the loop listens, once it rests. Twice is harmless."""
        self._ended = True
        if self._loop is None:
            self._socket.close()
