# SPDX-License-Identifier: Apache-2.0
"""Meter: stands between a target and whoever completes its queries, and counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from septet.harness.target import Complete
from septet.workloads.predictor import Rows


class Meter:
    """Counts finished samples and, where `limit_seconds` is given, those that took longer.

    `hopeless` is called once, from the thread that completed it, with the sample that is one more than
    the `allowed` number of late ones.
    """

    def __init__(
        self,
        complete: Complete,
        *,
        limit_seconds: float | None = None,
        allowed: int = 0,
        hopeless: Callable[[], None] = lambda: None,
    ) -> None:
        self._complete = complete
        self._limit = limit_seconds
        self._allowed = allowed
        self._hopeless = hopeless
        self._issued: dict[int, float] = {}
        self._counting = threading.Lock()
        self.done = 0
        self.late = 0

    def issued(self, ids: Sequence[int]) -> None:
        """Note the time at which `ids` were asked for; costs nothing where there is no limit."""
        if self._limit is not None:
            now = time.perf_counter()
            self._issued.update((id_, now) for id_ in ids)

    def complete(self, ids: Sequence[int], rows: Rows) -> None:
        """Pass the answers on, then count them."""
        self._complete(ids, rows)
        with self._counting:
            self.done += len(ids)
            if self._limit is not None:
                self._count_late(ids, self._limit)

    def _count_late(self, ids: Sequence[int], limit: float) -> None:
        before = time.perf_counter() - limit
        within = self.late <= self._allowed
        self.late += sum(self._issued.pop(id_) < before for id_ in ids)
        if within and self.late > self._allowed:
            self._hopeless()
