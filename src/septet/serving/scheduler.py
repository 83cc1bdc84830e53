# SPDX-License-Identifier: Apache-2.0
"""Queue requests, and let a free instance take as many of them as make one batch.

A batch is formed only when an instance is there to take it, so it grows as long as all are busy. Of several free
instances one, the leader, waits for the batch to fill; the others wait to lead. Where nothing is to be waited for,
each takes its share of what is there: side by side they are done sooner than one after the other in a batch.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable
from time import monotonic_ns

from septet.errors import SeptetError, Stopping
from septet.model_config.config import ModelConfig
from septet.serving.expiry import Expiry
from septet.serving.ordering import Ordering
from septet.serving.pending import Pending
from septet.serving.queue import REST, Dropped, Queue

Batch = list[Pending]

OnDropped = Callable[[Pending, SeptetError], None]

Able = Callable[[], bool]

Suits = Callable[[Batch], bool]


def _always() -> bool:
    return True


_NEVER = 1 << 62
"""More samples than ever wait."""

_GRAIN = 1_000_000
"""The queue is not searched for expired requests more often than once in so many ns; a long one, which takes more
than a glance, less often still."""


class Scheduler:
    """The queue of one version of a model. `on_dropped` is told of every request that will never run."""

    def __init__(self, config: ModelConfig, expiry: Expiry, on_dropped: OnDropped) -> None:
        batching = config.dynamic_batching
        self.name = config.name
        self._max = max(1, config.max_batch_size) if batching is not None else 1
        self._single = batching is None
        self._preferred = sorted(set(batching.preferred_batch_size)) if batching is not None else []
        self._delay = 1_000 * batching.max_queue_delay_microseconds if batching is not None else 0
        self._ordering = Ordering() if batching is not None and batching.preserve_ordering else None
        self._queue = Queue(batching)
        self._expiry, self._next_expiry, self._rests_until = expiry, 0, 0
        self._on_dropped = on_dropped
        self._lock = threading.Lock()
        self._filled, self._free = threading.Condition(self._lock), threading.Condition(self._lock)
        self._back = threading.Condition(self._lock)
        self._leading = False
        self._wake_at = 1
        self._followers = 0
        self._stopping = False

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def stopping(self) -> bool:
        """Whether nothing new is taken."""
        return self._stopping

    def enqueue(self, pending: Pending, *, rouse: bool = True) -> None:
        """Let `pending` wait for its turn; without `rouse` nobody is told. Raises QueueFull, Stopping."""
        dropped: Dropped = []
        try:
            with self._lock:
                if self._stopping:
                    raise Stopping(f"model '{self.name}' takes no more requests")
                now = monotonic_ns()
                self._queue.push(pending, now, dropped)
                if self._ordering is not None:
                    pending.answer = self._ordering.admit(pending.answer)
                if pending.expires:
                    self._watch(pending.expires)
                if rouse:
                    self._rouse()
        finally:
            if dropped:
                self._tell(dropped)

    def rouse(self) -> None:
        """Wake an instance, if one waits and what has been enqueued is enough for it."""
        with self._lock:
            self._rouse()

    def _rouse(self) -> None:
        if not self._leading:
            if self._followers:
                self._free.notify()
        elif self._queue.samples >= self._wake_at:
            self._wake_at = _NEVER  # until the leader has looked
            self._filled.notify()

    def take_idle(self, suits: Suits, sharers: int = 1) -> Batch:
        """Without waiting, what an instance that has nothing to do would run now: the caller runs it instead.

        It is the part of one of so many `sharers`, and empty where no instance waits, or the batch does not suit
        the caller, which is told to the instance. Of what stays behind a batch, nobody is told.
        """
        dropped: Dropped = []
        try:
            with self._lock:
                if not self._leading:
                    return []
                enough = self._share(sharers) if sharers > 1 else self._max
                batch, _ = self._form(monotonic_ns(), dropped, enough)
                if batch and not suits(batch):
                    self._queue.give_back(batch)
                    batch = []
                if not batch and len(self._queue):
                    self._filled.notify()
                return batch
        finally:
            if dropped:
                self._tell(dropped)

    def take(self, able: Able = _always, shares: Able = _always, idle: Able = _always) -> Batch | None:
        """Wait for a batch and take it; ``None`` once nothing will ever come again.

        Whoever is not `able` to run a batch any more is sent away with an empty one, at the next `wake`. Whoever
        `shares` leaves their part to other instances that are free. Who is not `idle`, because another thread runs
        a batch in their stead, takes none before they are `back`.
        """
        dropped: Dropped = []
        try:
            with self._lock:
                while self._become_leader(able, idle):
                    try:
                        batch = self._fill(able, shares, idle, dropped)
                    finally:
                        self._leading = False
                        if self._followers and (self._stopping or len(self._queue)):
                            self._free.notify()
                    if batch or batch is None:
                        return batch
                return []
        finally:
            if dropped:
                self._tell(dropped)

    def back(self) -> None:
        """Tell an instance that it is idle again, and of what waits."""
        with self._lock:
            self._back.notify_all()
            if len(self._queue):
                self._rouse()

    def clean(self) -> None:
        """Answer whoever waited too long or does not wait any more."""
        dropped: Dropped = []
        with self._lock:
            begin = monotonic_ns()
            expires, self._next_expiry = self._queue.clean(begin, dropped), 0
            end = monotonic_ns()
            self._rests_until = end + max(_GRAIN, REST * (end - begin))
            if expires:
                self._watch(expires)
        self._tell(dropped)

    def _watch(self, expires: int) -> None:
        """Have the queue searched when somebody expires, and not too often."""
        when = max(expires, self._rests_until)
        if not 0 < self._next_expiry <= when:
            self._next_expiry = when
            self._expiry.watch(when, self.clean)

    def wake(self) -> None:
        """Let everybody who waits in `take` look whether they are still able."""
        with self._lock:
            self._wake_all()

    def stop(self) -> None:
        """Take nothing new; what waits is still run."""
        with self._lock:
            self._stopping = True
            self._wake_all()

    def abandon(self, error: SeptetError) -> None:
        """Answer everything that waits with `error`."""
        dropped: Dropped = []
        with self._lock:
            while (pending := self._queue.pop(monotonic_ns(), dropped)) is not None:
                dropped.append((pending, error))
        self._tell(dropped)

    def _wake_all(self) -> None:
        for waiting in (self._filled, self._free, self._back):
            waiting.notify_all()

    def _become_leader(self, able: Able, idle: Able) -> bool:
        """Whether the caller leads now; otherwise they are not able any more."""
        while able():
            if not idle():
                self._free.notify()  # what they may have been woken for is for another one
                self._back.wait()
            elif self._leading:
                self._followers += 1
                self._free.wait()
                self._followers -= 1
            else:
                self._leading = True
                return True
        return False

    def _fill(self, able: Able, shares: Able, idle: Able, dropped: Dropped) -> Batch | None:
        """The leader's batch; empty where they are no leader any more, because they are not able or not idle."""
        while able() and idle():
            enough = self._share(self._followers + 1) if self._followers and shares() else self._max
            batch, wait = self._form(monotonic_ns(), dropped, enough)
            if batch:
                return batch
            if self._stopping and not len(self._queue):
                return None
            if dropped:
                self._lock.release()
                try:
                    self._tell(dropped)
                finally:
                    self._lock.acquire()
                continue
            self._filled.wait(wait / 1e9 if wait else None)
        return []

    def _share(self, sharers: int) -> int:
        """How many samples are one free instance's part of those that wait: a preferred size, if there are any."""
        if self._delay:
            return self._max
        share = -(-self._queue.samples // sharers)
        return next((size for size in self._preferred if size >= share), self._max) if self._preferred else share

    def _form(self, now: int, dropped: Dropped, enough: int) -> tuple[Batch, int]:
        """The batch to be run now; or none, and for how long to wait for more (ns; 0 is for the next request)."""
        batch, size, best, closed = self._collect(now, dropped, enough)
        if not batch:
            self._wake_at = 1
            return batch, 0
        oldest = min(pending.queued for pending in batch) if self._delay else 0
        left = self._delay - (now - oldest) if self._delay and not self._stopping else 0
        if best and (left > 0 or not self._delay):
            self._queue.give_back(batch[best:])
            return batch[:best], 0
        if left <= 0 or closed or size >= (self._preferred[-1] if self._preferred else self._max):
            return batch, 0
        self._queue.give_back(batch)
        at = bisect_right(self._preferred, size)
        self._wake_at = self._preferred[at] if at < len(self._preferred) else self._max
        if batch[0].key is not None:
            self._wake_at = size + 1  # whoever comes may not fit, and then there is nothing to wait for
        soonest = min((pending.expires for pending in batch if pending.expires), default=0)
        return [], min(left, soonest - now) if soonest else left

    def _collect(self, now: int, dropped: Dropped, enough: int) -> tuple[Batch, int, int, bool]:
        """What waits and fits together, up to `enough` samples, its size, how many of it make the largest
        preferred size (0: none does), and whether it cannot grow any more."""
        batch: Batch = []
        size, best = 0, 0
        queue, largest = self._queue, self._max
        while True:
            pending = queue.pop(now, dropped)
            if pending is None:
                return batch, size, best, False
            if batch and (self._single or size + pending.size > largest or pending.key != batch[0].key):
                queue.give_back([pending])
                return batch, size, best, True
            batch.append(pending)
            size += pending.size
            if size in self._preferred:
                best = len(batch)
            if self._single or size >= enough:
                return batch, size, best, True

    def _tell(self, dropped: Dropped) -> None:
        while dropped:
            self._on_dropped(*dropped.pop(0))
