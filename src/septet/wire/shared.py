# SPDX-License-Identifier: Apache-2.0
"""Memory that a client shares with a server: where it puts inputs, and where it finds outputs."""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from septet.errors import UsageError
from septet.request import Region, Wanted
from septet.tensor import Array, to_raw
from septet.wire.head import Placed
from septet.wire.sendable import sendable
from septet.wire.shm import FOLDER, Regions


class Shared:
    """Memory that a client shares with a server on the same machine.

    `put` places an array in it, `leave` keeps room for an output. It is the client's own to `close`. Once the
    server has it open, `hide` takes its name away, so that nothing is left of it even where the client is killed.
    """

    def __init__(self, size: int) -> None:
        """Raises UsageError where so many bytes are not to be had."""
        if size < 1:
            raise UsageError(f"shared memory has at least one byte, not {size}")
        self.name = f"client-{secrets.token_hex(8)}"
        self.key = f"/{self.name}"
        self.size = size
        self.regions = Regions()
        self._used = 0
        descriptor = os.open(FOLDER / self.name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)  # or writing what is not there would kill the process (SIGBUS)
            self._memory = mmap.mmap(descriptor, size)
            self.regions.register(self.name, self.key, 0, size)
        except (OSError, OverflowError) as error:
            self.hide()
            raise UsageError(f"{size} bytes of shared memory cannot be had: {error}") from None
        finally:
            os.close(descriptor)

    def put(self, array: Array) -> Placed:
        """Copy `array` there; what `infer` takes as `placed`. Raises UsageError for a dtype that KServe lacks."""
        array = sendable(array)
        raw = to_raw(array)
        region = self._room(len(raw))
        self._memory[region.offset : region.offset + region.size] = raw
        return Placed(region, array.dtype, array.shape)

    def leave(self, output: str, size: int) -> Wanted:
        """Room of `size` bytes for an output; what `infer` takes as one of its `outputs`."""
        return Wanted(output, region=self._room(size))

    def _room(self, size: int) -> Region:
        if self._memory.closed:
            raise UsageError("this shared memory was given back")
        start = -(-self._used // 64) * 64
        if start + size > self.size:
            raise UsageError(f"{self.size} bytes of shared memory have no room for {size} more")
        self._used = start + size
        return Region(self.name, start, size)

    def clear(self) -> None:
        """Start anew; arrays and room handed out before are void."""
        self._used = 0

    def hide(self) -> None:
        """Let nobody else open it by its name."""
        (FOLDER / self.name).unlink(missing_ok=True)

    @contextmanager
    def offered(self) -> Iterator[Shared]:
        """While this holds, a server is to open it; then nobody else can. If that fails, it is closed."""
        try:
            yield self
        except BaseException:
            self.close()
            raise
        self.hide()

    def close(self) -> None:
        """Give the memory back."""
        self.regions.unregister()
        self._memory.close()
        self.hide()
