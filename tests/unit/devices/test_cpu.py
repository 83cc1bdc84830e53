# SPDX-License-Identifier: Apache-2.0
import os
from dataclasses import replace
from pathlib import Path

import pytest

from septet.devices.cpu import Cpu

X86 = "processor : 0\nmodel name\t: Fast One\nflags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 sse\n"
ARM = "processor : 0\nFeatures\t: fp asimd asimddp i8mm bf16 sve\n"


def detect(tmp_path: Path, info: str = X86, **limits: str) -> Cpu:
    (tmp_path / "cpuinfo").write_text(info)
    for name, text in limits.items():
        path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return Cpu.detect(proc=tmp_path, cgroup=tmp_path)


def test_what_matters_to_inference_is_found(tmp_path: Path) -> None:
    cpu = detect(tmp_path)
    assert cpu.name == "Fast One"
    assert cpu.features == ("avx2", "avx512f", "avx512_vnni", "avx512_bf16")
    assert cpu.bf16
    assert set(cpu.cores) == os.sched_getaffinity(0)
    assert cpu.partition().cores == cpu.cores
    assert cpu.memory > 0.5


def test_arm_is_read_too(tmp_path: Path) -> None:
    cpu = detect(tmp_path, ARM)
    assert cpu.features == ("asimddp", "i8mm", "bf16", "sve")
    assert cpu.bf16


def test_a_cpu_without_bf16(tmp_path: Path) -> None:
    assert not replace(detect(tmp_path), features=("avx2", "avx512_vnni")).bf16


@pytest.mark.parametrize(
    "limits",
    [
        {"cpu_dot_max": "100000 100000"},
        {"cpu_dot_max": "150000 100000"},
        {"cpu__cpu_dot_cfs_quota_us": "100000", "cpu__cpu_dot_cfs_period_us": "100000"},
        {"cpu_dot_max": "20000 100000"},
    ],
    ids=["one", "one and a half", "version 1", "a fifth"],
)
def test_a_quota_limits_the_cores(tmp_path: Path, limits: dict[str, str]) -> None:
    assert len(detect(tmp_path, **limits).cores) == 1


@pytest.mark.parametrize(
    "limits",
    [
        {"cpu_dot_max": "max 100000"},
        {"cpu__cpu_dot_cfs_quota_us": "-1", "cpu__cpu_dot_cfs_period_us": "100000"},
    ],
)
def test_no_quota_is_no_limit(tmp_path: Path, limits: dict[str, str]) -> None:
    assert len(detect(tmp_path, **limits).cores) == len(os.sched_getaffinity(0))


def test_a_memory_limit_counts(tmp_path: Path) -> None:
    assert detect(tmp_path, memory_dot_max=str(2**30)).memory == 1.0
    assert detect(tmp_path, memory_dot_max="max").memory > 0.5
