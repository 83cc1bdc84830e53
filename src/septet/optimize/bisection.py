# SPDX-License-Identifier: Apache-2.0
"""Bisection: how many of ranked layers must be given back until a network holds."""

from __future__ import annotations

from collections.abc import Callable


def fewest(count: int, holds: Callable[[int], bool]) -> int | None:
    """The smallest number in 1 … `count` that `holds`, where each that is larger holds too; None where none does.

    Numbers are doubled until one holds, because a few layers mostly suffice; the gap is then halved.
    """
    failed, tried = 0, 1
    while not holds(tried):
        if tried == count:
            return None
        failed, tried = tried, min(2 * tried, count)
    while tried - failed > 1:
        middle = (failed + tried) // 2
        failed, tried = (failed, middle) if holds(middle) else (middle, tried)
    return tried
