# SPDX-License-Identifier: Apache-2.0
"""KServe's own clients against ``septet serve``: REST and gRPC, unchanged.

``kserve`` is no dependency; it is taken from a virtual environment of its own, which ``$SEPTET_KSERVE`` names (or
``.kserve`` beside this checkout's ``tests``): ``python -m venv .kserve && .kserve/bin/pip install kserve``.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from peer import free_ports, running, septet_command, write_repository

KSERVE = Path(os.environ.get("SEPTET_KSERVE", Path(__file__).parents[2] / ".kserve"))

pytestmark = pytest.mark.skipif(
    not (KSERVE / "bin" / "python").exists(),
    reason="kserve is not installed: pip install it into .kserve, a virtual environment, or set SEPTET_KSERVE",
)


def test_kserves_clients_work_unchanged(tmp_path: Path) -> None:
    ports = free_ports(3)
    command, environment = septet_command(write_repository(tmp_path / "models", python=False), ports)
    script = Path(__file__).with_name("kserve_asks.py")
    with running("Septet", command, environment, ports, tmp_path / "log") as server:
        done = subprocess.run(
            [KSERVE / "bin" / "python", script, f"http://{server.http}", server.grpc, "identity_onnx"],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.stdout.endswith("agreed\n"), done.stderr[-4000:]
