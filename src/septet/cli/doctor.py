# SPDX-License-Identifier: Apache-2.0
"""``septet doctor``: what is on this machine, and how to get what is missing."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

import septet
from septet.devices.cpu import Cpu, load_average
from septet.engines.engine import ENGINES, engine_class
from septet.errors import EngineUnavailable
from septet.workloads.fetch import cache_dir

EXTRAS = {"torch": "train"}
"""Packages that the default installation leaves out, and the extra that brings each."""


@click.command()
def doctor() -> None:
    """Say what is on this machine: CPU, memory, GPUs, engines, and what is missing and how to get it."""
    for title, lines in (
        ("machine", _machine()),
        ("GPUs", _gpus()),
        ("engines", _engines()),
        ("extras", _extras()),
        ("advice", _advice()),
    ):
        for place, line in enumerate(lines):
            click.echo(f"{title if place == 0 else '':10}{line}")


def _machine() -> Iterator[str]:
    cpu = Cpu.detect()
    yield f"{cpu.name}, {len(cpu.cores)} cores ({', '.join(map(str, cpu.cores))})"
    yield f"features: {', '.join(cpu.features) or 'none that matter to inference'}"
    yield f"memory: {cpu.memory:.1f} GiB; load average: {load_average():.2f}"
    yield f"system: {cpu.system}; Python {platform.python_version()}; Septet {septet.__version__}"
    yield f"cache: {cache_dir()}, {_free_gib(cache_dir()):.0f} GiB free"


def _free_gib(folder: Path) -> float:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(there).free / 2**30


def _gpus() -> Iterator[str]:
    try:
        found = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        yield from found.stdout.strip().splitlines() or ["none"]
    except (OSError, subprocess.SubprocessError):
        yield "none (nvidia-smi does not answer); everything here runs on the CPU"


def _engines() -> Iterator[str]:
    for name in ENGINES:
        try:
            engine = engine_class(name)
            titled = f"{name} {engine.version()}".rstrip()  # the null engine has no version
            yield f"{titled}: {', '.join(engine.precisions)}"
        except EngineUnavailable as error:
            yield f"{name}: missing: {error}"


def _extras() -> Iterator[str]:
    for package, extra in EXTRAS.items():
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"{package}: missing (needed only to train the miniatures): pip install 'septet[{extra}]'"


def _advice() -> Iterator[str]:
    cpu = Cpu.detect()
    busy = load_average() > 0.5 * len(cpu.cores)
    if not cpu.bf16:
        yield "this CPU does not compute in bf16: --precision bf16 is refused"
    if busy:
        yield "the machine is busy: latencies measured now will be too long"
    if cpu.bf16:
        yield "nothing is missing for the networks that this Septet has"
