# SPDX-License-Identifier: Apache-2.0
"""What every result says of where and with what it was made."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import septet
from septet.devices.cpu import Cpu
from septet.harness.result import Machine

PACKAGES = ("numpy", "onnx", "onnxruntime", "openvino", "mlcommons-loadgen", "opencv-python-headless")


def machine(cpu: Cpu, load_before: float, load_after: float) -> Machine:
    """This machine, with the one-minute load averages around a run."""
    return Machine(cpu.name, len(cpu.cores), cpu.memory, (load_before, load_after), cpu.system)


def versions() -> dict[str, str]:
    """The versions of Septet, Python and the packages that a figure depends on."""
    found = {"septet": septet.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of the checkout that this Septet runs from, ``-dirty`` if changed; «unknown» outside one."""
    source = Path(septet.__file__).resolve().parent
    top = _git(source, "rev-parse", "--show-toplevel")
    if top is None or Path(top) != source.parents[1]:
        return "unknown"  # installed into an environment that happens to lie in somebody else's repository
    return _git(source, "describe", "--always", "--dirty", "--abbrev=12", "--match=") or "unknown"


def _git(folder: Path, *words: str) -> str | None:
    try:
        said = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip()
