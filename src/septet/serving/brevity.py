# SPDX-License-Identifier: Apache-2.0
"""Whether a model's batches are so short that waking another thread takes as long as running one."""

from __future__ import annotations

SHORT = 200_000
"""ns. Two wake-ups across threads, and the waits for the interpreter's lock, take about as much."""

FIRST, PER_SHORT = 32, 2
"""Short batches in a row at first, and for every `SHORT` that a longer one took."""


class Brevity:
    """Judges by the batches that were run so far: one that took long is paid for by many short ones.

    What it has seen says nothing of larger inputs: they are to be run once where they hold up nobody. So whoever
    runs brief batches on a thread that has other work to do is held up by `SHORT` / `PER_SHORT` a batch at most on
    average, whatever the model does, and by inputs that suddenly are large not at all.
    """

    def __init__(self) -> None:
        self._owed = FIRST
        self._proven = -1

    def saw(self, ns: int, size: int) -> None:
        """A batch of `size` bytes took so long."""
        if ns <= SHORT:
            self._proven = max(self._proven, size)
            self._owed = max(0, self._owed - 1)
        elif size <= self._proven:
            self._proven = size - 1
            self._owed += PER_SHORT * ns // SHORT

    def __bool__(self) -> bool:
        """Whether any batch is brief."""
        return not self._owed

    def admits(self, size: int) -> bool:
        """Whether a batch of `size` bytes is."""
        return not self._owed and size <= self._proven
