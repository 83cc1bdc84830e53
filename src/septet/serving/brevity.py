# SPDX-License-Identifier: Apache-2.0
"""Whether a model's batches are so short that waking another thread takes as long as running one."""

from __future__ import annotations

SHORT = 200_000
"""ns. Two wake-ups across threads, and the waits for the interpreter's lock, take about as much."""

FIRST, PER_SHORT = 32, 2
"""Short batches in a row at first, and for every `SHORT` that a longer one took."""


class Brevity:
    """Judges by the batches that were run so far: one that took long is paid for by many short ones.

    So whoever runs brief batches on a thread that has other work to do is held up by `SHORT` / `PER_SHORT` a batch
    at most on average, whatever the model does.
    """

    def __init__(self) -> None:
        self._owed = FIRST

    def saw(self, ns: int) -> None:
        """A batch took so long."""
        if ns > SHORT:
            self._owed += PER_SHORT * ns // SHORT
        elif self._owed:
            self._owed -= 1

    def __bool__(self) -> bool:
        return not self._owed
