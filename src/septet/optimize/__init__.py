# SPDX-License-Identifier: Apache-2.0
"""Optimise: the fastest form of a network that keeps its accuracy.

``septet.optimize(...)`` is all of it in one call: see `septet.workloads.optimizing.optimize`.
"""

from __future__ import annotations

import sys
from pkgutil import resolve_name
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """This room, which can be called: the call belongs to the floor above, which knows the networks."""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return resolve_name("septet.workloads.optimizing:optimize")(*args, **settings)


sys.modules[__name__].__class__ = _Room
