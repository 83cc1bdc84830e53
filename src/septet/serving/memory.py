# SPDX-License-Identifier: Apache-2.0
"""Memory that goes back to the system when a model has ended."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Have the C library return what is free: glibc keeps it for the process otherwise. Elsewhere, do nothing."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
