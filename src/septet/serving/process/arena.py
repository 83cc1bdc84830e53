# SPDX-License-Identifier: Apache-2.0
"""Anonymous shared memory between two processes: one writes, the other reads.

It has no name, so nobody else can open it, and nothing of it remains when both have ended.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Self

_FIRST = 1 << 20
_ALIGNED = 64


class Arena:
    """Grows as needed and never shrinks: the kernel seals it, so that a reader cannot be cut off."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        self._end = 0

    @classmethod
    def create(cls) -> Self:
        """New memory; its descriptor is for the other process to inherit."""
        descriptor = os.memfd_create("septet", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, _FIRST)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        return cls(descriptor)

    def clear(self) -> None:
        """Forget what was placed: the reader is done with it."""
        self._end = 0

    def place(self, raw: bytes | memoryview) -> int:
        """Write `raw` and return its offset."""
        start, self._end = self._end, -(-(self._end + len(raw)) // _ALIGNED) * _ALIGNED
        if self._end > len(self._map):
            os.ftruncate(self.descriptor, max(self._end, 2 * len(self._map)))
            self._remap()
        self._map[start : start + len(raw)] = raw
        return start

    def copy(self, offset: int, size: int) -> bytearray:
        """A copy of what the writer placed. Raises ValueError where that goes beyond the end."""
        if offset < 0 or size < 0:
            raise ValueError("negative place in shared memory")
        if offset + size > len(self._map):
            self._remap()
            if offset + size > len(self._map):
                raise ValueError("a place beyond the end of shared memory")
        copied = bytearray(size)
        with memoryview(self._map) as whole:
            copied[:] = whole[offset : offset + size]
        return copied

    def close(self) -> None:
        """Give the memory back. Closing twice is harmless."""
        self._map.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _remap(self) -> None:
        before, self._map = self._map, mmap.mmap(self.descriptor, os.fstat(self.descriptor).st_size)
        before.close()
