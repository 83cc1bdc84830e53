# SPDX-License-Identifier: Apache-2.0
"""Work whose results are used in the order in which it was asked for, the long of it on threads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

Work = Callable[[], Any]
Then = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Step:
    """Something to be worked out, and who takes the result, on the loop."""

    work: Work
    then: Then
    long: bool


class Lane:
    """Steps one after another. A short one is done at once, unless a long one is before it.

    What goes wrong with a step that had to wait, `failed` is told, and the steps behind it are let fall; `after`
    is called on the loop whenever a wait is over.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        executor: Executor,
        failed: Callable[[Exception], None],
        after: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._executor = executor
        self._failed = failed
        self._after = after
        self._waiting: deque[Step] = deque()
        self._long: Step | None = None

    @property
    def busy(self) -> bool:
        """Whether results are still to come."""
        return self._long is not None

    def run(self, step: Step) -> None:
        """Do `step` in its turn. Raises what it raises where it is done at once."""
        if self._long is not None:
            self._waiting.append(step)
        elif step.long:
            self._long = step
            task = self._loop.run_in_executor(self._executor, step.work)
            task.add_done_callback(partial(self._done, step))
        else:
            step.then(step.work())

    def _done(self, step: Step, task: asyncio.Future[Any]) -> None:
        self._long = None
        waiting, self._waiting = self._waiting, deque()
        try:
            step.then(task.result())
            for each in waiting:
                self.run(each)
        except Exception as error:
            self._waiting.clear()
            self._failed(error)
        self._after()
