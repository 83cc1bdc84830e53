# SPDX-License-Identifier: Apache-2.0
"""How much a connection of HTTP/2 bears of frames that only cost."""

from __future__ import annotations

from collections.abc import Callable

from septet.wire.events import Limits
from septet.wire.fault import require
from septet.wire.frames import Code


class Patience:
    """It runs out by one with each such frame, and grows with time and with each stream that comes to its end."""

    __slots__ = ("_clock", "_limits", "_since", "left")

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._since = clock()
        self.left = float(limits.nuisance_burst)

    def bear(self, what: str) -> None:
        """Take one of the frames that only cost; too many of them end the connection. Raises ConnectionFault."""
        now = self._clock()
        grown = self.left + (now - self._since) * self._limits.nuisance_rate
        self.left, self._since = min(float(self._limits.nuisance_burst), grown) - 1, now
        require(self.left >= 0, Code.ENHANCE_YOUR_CALM, f"{what}, once too often")
