# SPDX-License-Identifier: Apache-2.0
"""Optimise: the fastest form of a network that keeps its accuracy.

``septet.optimize(...)`` is all of it in one call: `septet.workloads.optimizing.optimize`, whose arguments it
takes, then `septet.report.ledger.write_page`.
"""

from __future__ import annotations

import sys
from pkgutil import resolve_name
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """This room, which can be called: the call belongs to the floors above, which know the networks and how a
    ledger is shown."""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        found = resolve_name("septet.workloads.optimizing:optimize")(*args, **settings)
        resolve_name("septet.report.ledger:write_page")(found.ledger, found.folder)
        return found


sys.modules[__name__].__class__ = _Room
