# SPDX-License-Identifier: Apache-2.0
"""Show how far long work is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from septet.harness.job import Progress

PLAIN_SECONDS = 10.0
"""Without a terminal, a step that goes on says so again this often."""


class Display:
    """Takes steps of a run, by what they are called, and shows the one going on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[left]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._bars.add_task("starting", total=1.0, left="")
        self._words = ""
        self._said = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def step(self, words: str, progress: Progress) -> None:
        """Show that `words` is as far as `progress` says."""
        if self._console.is_terminal:
            left = _left(progress) or progress.step
            self._bars.update(self._task, description=words, completed=progress.fraction, left=left)
        else:
            self._say(words, progress)

    def note(self, words: str) -> None:
        """Print a line that stays."""
        self._console.print(words, highlight=False, soft_wrap=True)

    def _say(self, words: str, progress: Progress) -> None:
        now = time.monotonic()
        if words == self._words and now - self._said < PLAIN_SECONDS:
            return
        tail = "" if words != self._words else f": {100 * progress.fraction:.0f} % {_left(progress)}".rstrip()
        self._words, self._said = words, now
        self.note(words + tail)


def _left(progress: Progress) -> str:
    if progress.step != "running" or progress.fraction <= 0:
        return ""
    seconds = progress.seconds_left
    return f"about {seconds:.0f} s left" if seconds < 120 else f"about {seconds / 60:.0f} min left"
