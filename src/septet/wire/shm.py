# SPDX-License-Identifier: Apache-2.0
"""System shared memory: the regions that clients have registered, read and written without ever being mapped.

A mapped region whose owner truncates it kills whoever touches it (SIGBUS). Reading through a descriptor costs one
copy and fails like any read, so what a client does to its region harms its own requests alone.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import stat
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from septet.errors import Overloaded, RegionExists, RegionInvalid, RegionUnknown
from septet.request import Region
from septet.tensor import Buffer

FOLDER = Path("/dev/shm")
OWN = "septet."
"""What Septet's own shared memory begins with; no client may register it."""

_KEY = re.compile(r"/?([A-Za-z0-9_][A-Za-z0-9_.\-]{0,250})")
LARGEST = (1 << 63) - 1

MOST, LONGEST = 4096, 1024
"""Regions that are registered at a time, and characters of a name."""

SHARE = 4
"""One of so many of the process's file descriptors may be a region's."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A region as it was registered: `size` bytes from `offset` on in the shared memory `key`."""

    name: str
    key: str
    offset: int
    size: int


class _Memory:
    """Shared memory that is open, once for all regions in it; closed when the last that uses it has let it go."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class _Open:
    """A registered region and its memory."""

    about: Registered
    memory: _Memory


@dataclass(frozen=True, slots=True)
class HeldRegion(Region):
    """A region that a request under way holds on to, whatever becomes of its name meanwhile."""

    entry: _Open


class Regions:
    """The regions of one server (or client) by name; safe to use from any thread.

    Only keys that begin with `prefix` may be registered, and at most `most` regions.
    """

    def __init__(self, prefix: str = "", folder: Path = FOLDER, *, most: int = MOST) -> None:
        self._prefix = prefix.lstrip("/")
        self._folder = folder
        self._most = most
        self._open: dict[str, _Open] = {}
        self._memories: weakref.WeakValueDictionary[tuple[int, int], _Memory] = weakref.WeakValueDictionary()
        """By device and inode."""
        self._lock = threading.Lock()

    def register(self, name: str, key: str, offset: int, size: int) -> None:
        """Take up a region.

        Raises `RegionExists`, `Overloaded` where there are as many as may be, or `RegionInvalid` where name, key
        or range are not to be had.
        """
        about = Registered(name, key, offset, size)
        if len(name) > LONGEST:
            raise RegionInvalid(f"a shared memory region's name has at most {LONGEST} characters")
        with self._lock:
            if name in self._open:
                raise RegionExists(f"shared memory region '{name}' already in manager")
            if len(self._open) >= self._most:
                raise _full(name, f"at most {self._most} regions are registered at a time")
            self._open[name] = _Open(about, self._memory(about))

    def _memory(self, about: Registered) -> _Memory:
        """The memory that a region lies in, opened unless another region has it open."""
        descriptor = self._descriptor(about)
        seen = os.fstat(descriptor)
        place = seen.st_dev, seen.st_ino
        memory = self._memories.get(place)
        if memory is None and len(self._memories) < _most_memories():
            memory = self._memories[place] = _Memory(descriptor)
            return memory
        os.close(descriptor)
        if memory is None:
            raise _full(about.name, f"at most {_most_memories()} pieces of shared memory are open at a time")
        return memory

    def _descriptor(self, about: Registered) -> int:
        match = _KEY.fullmatch(about.key)
        if not match or match[1].startswith(OWN) or not match[1].startswith(self._prefix):
            raise RegionInvalid(f"shared memory region '{about.name}': that key may not be registered")
        if not (0 <= about.offset <= LARGEST and 0 < about.size <= LARGEST):
            raise RegionInvalid(f"shared memory region '{about.name}': offset or byte_size is out of range")
        try:
            descriptor = os.open(self._folder / match[1], os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise _full(about.name, "no file descriptor is left") from None
            raise RegionInvalid(f"unable to open shared memory region '{about.name}'") from None
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode) or about.offset + about.size > seen.st_size:
            os.close(descriptor)
            raise RegionInvalid(f"shared memory region '{about.name}': offset and byte_size go beyond its end")
        return descriptor

    def unregister(self, name: str = "") -> None:
        """Forget a region, or all of them; one that is not registered is no error, as with Triton."""
        with self._lock:
            if name:
                self._open.pop(name, None)
            else:
                self._open.clear()

    def status(self, name: str = "") -> list[Registered]:
        """What is registered; raises `RegionUnknown` for a `name` that is not."""
        if name:
            return [self._find(name).about]
        return [entry.about for entry in list(self._open.values())]

    def hold(self, region: Region) -> HeldRegion:
        """`region`, to be written later: unregistered in between, it is not lost, and another of its name is not
        mistaken for it. Raises `RegionUnknown` or `RegionInvalid` unless it lies in what is registered."""
        entry, _ = self._locate(region)
        return HeldRegion(region.name, region.offset, region.size, entry)

    def read(self, region: Region) -> memoryview:
        """A copy of the bytes of `region`; raises `RegionUnknown`, `RegionInvalid` or `Overloaded` (no memory)."""
        entry, start = self._locate(region)
        try:
            buffer = np.empty(region.size, np.uint8).data
        except MemoryError:
            raise Overloaded(f"shared memory region '{region.name}': no memory for {region.size} bytes") from None
        done = 0
        while done < region.size:
            count = os.preadv(entry.memory.descriptor, [buffer[done:]], start + done)
            if count == 0:
                raise RegionInvalid(f"shared memory region '{region.name}' was truncated")
            done += count
        return buffer

    def write(self, region: Region, raw: Buffer) -> None:
        """Put `raw` at the start of `region`; raises `RegionInvalid` where it does not fit, or was truncated."""
        entry, start = self._locate(region)
        if len(raw) > region.size:
            raise RegionInvalid(
                f"shared memory region '{region.name}': the output has {len(raw)} bytes, its place {region.size}"
            )
        if os.fstat(entry.memory.descriptor).st_size < start + len(raw):
            raise RegionInvalid(f"shared memory region '{region.name}' was truncated")
        view, done = memoryview(raw), 0
        while done < len(raw):
            done += os.pwrite(entry.memory.descriptor, view[done:], start + done)

    def _find(self, name: str) -> _Open:
        entry = self._open.get(name)
        if entry is None:
            raise RegionUnknown(f"Unable to find shared memory region: '{name}'")
        return entry

    def _locate(self, region: Region) -> tuple[_Open, int]:
        entry = region.entry if isinstance(region, HeldRegion) else self._find(region.name)
        if region.offset < 0 or region.size < 0 or region.offset + region.size > entry.about.size:
            raise RegionInvalid(f"Invalid offset + byte size for shared memory region: '{region.name}'")
        return entry, entry.about.offset + region.offset


def _most_memories() -> int:
    """How many descriptors may be regions', so that enough are left for connections and files."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if limit == resource.RLIM_INFINITY else limit // SHARE


def _full(name: str, why: str) -> Overloaded:
    return Overloaded(f"shared memory region '{name}' cannot be registered: {why}")
