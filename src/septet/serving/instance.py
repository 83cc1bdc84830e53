# SPDX-License-Identifier: Apache-2.0
"""An instance of a model: a thread that takes batches and has them executed, and starts again after a crash."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic

from septet.errors import InferenceFailed, InstanceCrashed, ModelNotReady, SeptetError
from septet.serving.executor import Executor, drop_cancelled, fail
from septet.serving.pending import Pending
from septet.serving.scheduler import Scheduler
from septet.serving.statistics import Statistics

_LOG = logging.getLogger("septet.serving")
_PAUSE, _LONGEST_PAUSE = 0.1, 10.0

Open = Callable[[], Executor]
OnFailed = Callable[[SeptetError], None]


class Instance:
    """Runs what `scheduler` hands out. `open_` makes the executor, now and again after every crash; `on_failed` is
    told when that does not succeed.

    `alive` is whether it can run a batch at this moment; `reason` says why not.
    """

    def __init__(
        self, name: str, open_: Open, scheduler: Scheduler, statistics: Statistics, on_failed: OnFailed
    ) -> None:
        self.name = name
        self.restarts = 0
        self.reason = ""
        self._open = open_
        self._executor = open_()
        self._scheduler = scheduler
        self._statistics = statistics
        self._on_failed = on_failed
        self._closing = threading.Event()
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"septet-{name}", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether it can run a batch."""
        return not self.reason and self._executor.alive

    @property
    def executor(self) -> Executor:
        """What runs batches, for a warm-up before `start`."""
        return self._executor

    @property
    def brief(self) -> bool:
        """Whether it has nothing to do, and would run some batches sooner than its thread is woken."""
        return self._idle() and self.alive and self._executor.brief

    @property
    def away(self) -> bool:
        """Whether it has a batch, and whoever runs that will see to the next."""
        return not self._idle()

    @property
    def side_by_side(self) -> bool:
        """Whether it and others get more done than it alone."""
        return self._executor.side_by_side

    def run_in_stead(self, sharers: int = 1) -> None:
        """On another thread, run or begin the batch that this instance waits for, where that is brief: the part of
        one of so many `sharers`."""
        if not self._turn.acquire(blocking=False):
            return
        over = True
        try:
            batch = self._scheduler.take_idle(self._executor.is_brief, sharers)
            wanted = drop_cancelled(batch, self._statistics)
            over = not wanted or self._begin(wanted)
        finally:
            if over:
                self._back()

    def _begin(self, batch: list[Pending]) -> bool:
        try:
            return self._executor.begin(batch, self._statistics, self._over)
        except Exception as error:
            self._failed(batch, error)
            return True

    def _over(self, crash: InstanceCrashed | None) -> None:
        """A batch that was begun in its stead is over: what waits is begun by the same thread."""
        if crash is not None:
            self.reason = str(crash)
        self._turn.release()
        if crash is not None:
            self._scheduler.wake()  # its thread, which starts it again
        elif len(self._scheduler) and self.brief:
            self.run_in_stead()
        else:
            self._scheduler.back()

    def _back(self) -> None:
        self._turn.release()
        self._scheduler.back()

    def start(self) -> None:
        """Begin to take batches."""
        self._thread.start()

    def close(self, timeout: float | None = None) -> None:
        """End, once the scheduler has been stopped and its queue has run dry, or after `timeout` seconds."""
        end = None if timeout is None else monotonic() + timeout
        if self._thread.ident is not None:
            self._thread.join(timeout)
        self._closing.set()
        ours = self._turn.acquire(timeout=-1 if end is None else max(0.0, end - monotonic()))
        self._executor.close()
        if ours:
            self._turn.release()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        self._executor.watch(self._scheduler.wake)
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Run the next batch, of which nothing stays while there is no other; whether there may be more."""
        batch = self._scheduler.take(self._able, self._shares, self._idle)
        if batch is None:
            return False
        with self._turn:
            self._run_batch(batch)
            return self.alive or self._restart()

    def _run_batch(self, batch: list[Pending]) -> None:
        wanted = drop_cancelled(batch, self._statistics)
        if wanted:
            self._execute(wanted)

    def _able(self) -> bool:
        return self.alive

    def _shares(self) -> bool:
        """Brief batches are run sooner in one than another instance is woken."""
        return self._executor.side_by_side or not self._executor.brief

    def _idle(self) -> bool:
        return not self._turn.locked()

    def _execute(self, batch: list[Pending]) -> None:
        try:
            self._executor.execute(batch, self._statistics)
        except Exception as error:
            self._failed(batch, error)

    def _failed(self, batch: list[Pending], error: Exception) -> None:
        """Answer whoever has no answer."""
        if isinstance(error, InstanceCrashed):
            self.reason = str(error)
            fail(batch, error, self._statistics)
        else:
            _LOG.error("%s: a batch failed", self.name, exc_info=error)
            fail(batch, InferenceFailed(f"the model failed: {type(error).__name__}"), self._statistics)

    def _restart(self) -> bool:
        """Open again, however often it takes; false when the instance is closed meanwhile."""
        pause = _PAUSE
        self.reason = self.reason or "its process died"
        _LOG.error("%s: %s: it is started again", self.name, self.reason)
        self._executor.close()
        while not self._closing.is_set():
            try:
                self._executor = self._open()
                self._executor.watch(self._scheduler.wake)
            except Exception as error:  # no memory, no descriptors, or the model's own
                self.reason = str(error) if isinstance(error, SeptetError) else type(error).__name__
                _LOG.error("%s: not restarted: %s", self.name, error)
                self._on_failed(ModelNotReady(f"{self.name} does not start: {self.reason}"))
                if self._scheduler.stopping:
                    return False
                self._closing.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self.restarts += 1
                self.reason = ""
                _LOG.warning("%s: restarted", self.name)
                return True
        return False
