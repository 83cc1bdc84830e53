# SPDX-License-Identifier: Apache-2.0
"""An event loop that listens to a channel."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from septet.serving.process.channel import Channel, ChannelClosed


class Ear:
    """Has a loop call `heard` whenever `channel` has something to read, or is closed.

    The loop watches a descriptor of its own: the channel may be closed on any thread, and its number given to
    another socket, while the loop is told of the end by this one.
    """

    def __init__(self, channel: Channel[Any, Any], heard: Callable[[], None]) -> None:
        self._channel = channel
        self._heard = heard
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: socket.socket | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen, on `loop`'s thread, if not so already. Raises ChannelClosed."""
        if self._socket is not None:
            if self._loop is loop:
                return
            self.close()
        try:
            self._socket = self._channel.duplicate()
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        self._loop = loop
        loop.add_reader(self._socket.fileno(), self._heard)
        os.set_blocking(self._socket.fileno(), True)  # libuv has changed that, and of the channel too

    def close(self) -> None:
        """Listen no more; on the loop's thread. Closing twice is harmless."""
        if self._socket is not None and self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
