# SPDX-License-Identifier: Apache-2.0
"""The requests that wait for a model, by priority, under Triton's queue policies."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from time import monotonic_ns

from septet.errors import DeadlineExceeded, QueueFull, RequestCancelled, RequestTimedOut, SeptetError
from septet.model_config.config import DynamicBatching, QueuePolicy
from septet.serving.pending import Pending

GLANCE = 100_000
"""Nanoseconds for which a full queue may be looked through at each refusal."""

REST = 20
"""Whoever looked through a queue for longer than that leaves it alone for so many times as long: what waits is to
cost little, however much it is."""

UNSAID = 16_384
"""So many requests may wait where the configuration says no bound: memory stays bounded."""

Dropped = list[tuple[Pending, SeptetError]]
"""Requests that leave the queue without running, and the error that each is to be answered with."""


class Level:
    """The queue of one priority: `late` are those whose timeout passed and who wait for an idle moment."""

    def __init__(self, policy: QueuePolicy) -> None:
        self.waiting: deque[Pending] = deque()
        self.late: deque[Pending] = deque()
        self.limit = policy.max_queue_size or UNSAID
        self.timeout = 1_000 * policy.default_timeout_microseconds
        self.override = policy.allow_timeout_override
        self.delays = policy.timeout_action == "DELAY"
        self.rests_until = 0
        """When it may be looked through again to make room, in ns."""

    def __len__(self) -> int:
        return len(self.waiting) + len(self.late)

    def expiry(self, pending: Pending, now: int) -> int:
        """When `pending` may not wait any longer, in ns; 0 is never."""
        timeout = self.timeout
        if self.override:
            asked = pending.request.parameters.get("timeout", 0)
            if isinstance(asked, int) and asked > 0 and (not timeout or 1_000 * asked < timeout):
                timeout = 1_000 * asked
        expires = now + timeout if timeout else 0
        deadline = pending.request.deadline
        return deadline if deadline is not None and (not expires or deadline < expires) else expires


class Queue:
    """All levels, the highest priority first. Nothing in here is safe without the scheduler's lock."""

    def __init__(self, batching: DynamicBatching | None) -> None:
        batching = batching or DynamicBatching()
        plain = batching.default_queue_policy or QueuePolicy()
        self.samples = 0
        self._count = max(1, batching.priority_levels)
        self._usual = max(1, batching.default_priority_level)
        self._levels = [
            Level(batching.priority_queue_policy.get(number, plain)) for number in range(1, self._count + 1)
        ]

    def __len__(self) -> int:
        return sum(map(len, self._levels)) if self._count > 1 else len(self._levels[0])

    def push(self, pending: Pending, now: int, dropped: Dropped) -> None:
        """Let `pending` wait. Whoever nobody waits for makes room first. Raises QueueFull."""
        pending.level = self._level_of(pending) if self._count > 1 else 0
        level = self._levels[pending.level]
        if len(level.waiting) + len(level.late) >= level.limit:
            self._make_room(level, now, dropped)
            if len(level) >= level.limit:
                raise QueueFull(f"[{pending.request.model}] Exceeds maximum queue size: {level.limit} are waiting")
        pending.queued = now
        if level.timeout or level.override or pending.request.deadline is not None:
            pending.expires = level.expiry(pending, now)
        level.waiting.append(pending)
        self.samples += pending.size

    def pop(self, now: int, dropped: Dropped) -> Pending | None:
        """The next request that may still run, or ``None``."""
        for level in self._levels:
            for queue in (level.waiting, level.late):
                while queue:
                    pending = queue.popleft()
                    if not pending.request.cancelled and not 0 < pending.expires <= now:
                        self.samples -= pending.size
                        return pending
                    self._leave(level, pending, now, dropped)
        return None

    def give_back(self, pendings: list[Pending]) -> None:
        """Put requests back to where `pop` took them from."""
        for pending in reversed(pendings):
            level = self._levels[pending.level]
            (level.late if pending.late else level.waiting).appendleft(pending)
            self.samples += pending.size

    def clean(self, now: int, dropped: Dropped) -> int:
        """Take out whoever nobody waits for; returns when that must be done next, in ns, or 0 for never."""
        for level in self._levels:
            self._clean(level, now, dropped)
        return min((pending.expires for pending in self if pending.expires), default=0)

    def __iter__(self) -> Iterator[Pending]:
        for level in self._levels:
            yield from level.waiting
            yield from level.late

    def _level_of(self, pending: Pending) -> int:
        asked = pending.request.parameters.get("priority", 0)
        return (asked if isinstance(asked, int) and 0 < asked <= self._count else self._usual) - 1

    def _make_room(self, level: Level, now: int, dropped: Dropped) -> None:
        """Take out whoever nobody waits for, unless that took long the last time, and not long ago."""
        begin = monotonic_ns()
        if begin < level.rests_until:
            return
        self._clean(level, now, dropped)
        end = monotonic_ns()
        if end - begin > GLANCE:
            level.rests_until = end + REST * (end - begin)

    def _clean(self, level: Level, now: int, dropped: Dropped) -> None:
        kept: list[Pending] = []
        late = list(level.late)
        level.late.clear()
        for pending in (*late, *level.waiting):  # who is late already stays before who becomes it
            if pending.request.cancelled or 0 < pending.expires <= now:
                self._leave(level, pending, now, dropped)
            elif pending.late:
                level.late.append(pending)
            else:
                kept.append(pending)
        level.waiting = deque(kept)

    def _leave(self, level: Level, pending: Pending, now: int, dropped: Dropped) -> None:
        request = pending.request
        self.samples -= pending.size
        if request.cancelled:
            dropped.append((pending, RequestCancelled(f"the request to '{request.model}' was cancelled")))
        elif request.deadline is not None and request.deadline <= now:
            dropped.append((pending, DeadlineExceeded(f"the deadline passed before '{request.model}' was free")))
        elif level.delays:
            pending.late, pending.expires = True, request.deadline or 0
            level.late.append(pending)
            self.samples += pending.size
        else:
            dropped.append((pending, RequestTimedOut(f"[{request.model}] Request timeout expired")))
