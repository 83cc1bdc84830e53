# SPDX-License-Identifier: Apache-2.0
"""Messages that are sent over a channel without holding up whoever has them."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import Generic, TypeVar

from septet.serving.process.channel import Channel, ChannelClosed

Out = TypeVar("Out")
In = TypeVar("In")


class Outbox(Generic[Out, In]):
    """Sends in order, on one thread, which starts with the first message: the other side may be slow to read."""

    def __init__(self, channel: Channel[Out, In], name: str) -> None:
        self._channel = channel
        self._messages: queue.SimpleQueue[Out | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._starting = threading.Lock()

    def send(self, message: Out) -> None:
        """Have `message` sent; once the other side is gone, it is lost."""
        self._messages.put(message)
        if self._thread.ident is None:
            with self._starting:
                if self._thread.ident is None:
                    self._thread.start()

    def close(self) -> None:
        """Send nothing after what was sent so far. The channel's end is the thread's too."""
        self._messages.put(None)

    def _run(self) -> None:
        with suppress(ChannelClosed):
            while (message := self._messages.get()) is not None:
                self._channel.send(message)
