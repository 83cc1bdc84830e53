# SPDX-License-Identifier: Apache-2.0
"""The CPU of this machine: what it computes in, and how much of it this process may use."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from septet.devices.device import Partition

FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "amx_fp16",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""Instruction sets that matter to inference, as Linux spells them."""

_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}


@dataclass(frozen=True)
class Cpu:
    """A CPU: `cores` are the numbers of those that this process may use, `memory` is in GiB."""

    name: str
    cores: tuple[int, ...]
    features: tuple[str, ...]
    memory: float
    system: str

    @classmethod
    def detect(cls, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> Self:
        """Look at this machine; on Linux through `proc` and `cgroup`, whose limits count."""
        info = _read(proc / "cpuinfo")
        flags = set(_field(info, "flags", "Features").split())
        return cls(
            name=_field(info, "model name", "Hardware") or platform.processor() or platform.machine(),
            cores=_cores(cgroup),
            features=tuple(feature for feature in FEATURES if feature in flags),
            memory=_memory(cgroup) / 2**30,
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
        )

    @property
    def bf16(self) -> bool:
        """Whether it multiplies bfloat16 in hardware."""
        return not _BF16.isdisjoint(self.features)

    def partition(self) -> Partition:
        """All of it."""
        return Partition("cpu", self.cores)


def load_average() -> float:
    """How many processes ran or waited, averaged over the last minute."""
    return os.getloadavg()[0]


def _cores(cgroup: Path) -> tuple[int, ...]:
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    quota = min(_quota(cgroup), len(allowed))
    return tuple(allowed)[: max(1, math.floor(quota))]


def _quota(cgroup: Path) -> float:
    """How many cores' worth of time the control group gives; infinite without a limit."""
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")  # version 2
    if not quota:
        quota = _read(cgroup / "cpu" / "cpu.cfs_quota_us")  # version 1, where -1 means none
        period = _read(cgroup / "cpu" / "cpu.cfs_period_us")
    try:
        share = float(quota) / float(period)
    except ValueError:
        return math.inf
    return share if share > 0 else math.inf


def _memory(cgroup: Path) -> int:
    limits = [_read(cgroup / "memory.max"), _read(cgroup / "memory" / "memory.limit_in_bytes")]
    total: int = min([psutil.virtual_memory().total, *(int(limit) for limit in limits if limit.isdigit())])
    return total


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _field(info: str, *names: str) -> str:
    for line in info.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""
