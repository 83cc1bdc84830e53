# SPDX-License-Identifier: Apache-2.0
"""Triton's own perf_analyzer against ``septet serve``, unchanged: it reads statistics, and may use shared memory.

The binary is in the wheel of tritonclient 2.50.0, in a virtual environment that ``$SEPTET_PERF_ANALYZER``
names (or ``.perf_analyzer`` beside this checkout's ``tests``): ``python -m venv .perf_analyzer &&
.perf_analyzer/bin/pip install tritonclient[all]==2.50.0 nvidia-cuda-runtime-cu12``. It wants libb64 of the system.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from peer import Peer, free_ports, running, septet_command, write_repository

HOME = Path(os.environ.get("SEPTET_PERF_ANALYZER", Path(__file__).parents[2] / ".perf_analyzer"))
BINARY = HOME / "bin" / "perf_analyzer"

pytestmark = pytest.mark.skipif(
    not BINARY.exists(),
    reason="perf_analyzer is not installed: see this file for how, or set SEPTET_PERF_ANALYZER",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    folder, ports = tmp_path_factory.mktemp("server"), free_ports(3)
    command = septet_command(write_repository(folder / "models"), ports)
    with running("Septet", *command, ports, folder / "log") as peer:
        yield peer


@pytest.mark.parametrize("model", ["identity_onnx", "identity_py"])
@pytest.mark.parametrize("words", [["-i", "http"], ["-i", "grpc"], ["-i", "grpc", "--streaming"],
                                   ["-i", "http", "--shared-memory", "system"],
                                   ["-i", "grpc", "--shared-memory", "system"]], ids=" ".join)  # fmt: skip
def test_it_measures_us(server: Peer, model: str, words: list[str]) -> None:
    if "--streaming" in words and model == "identity_py":
        pytest.skip("a stream of one model is enough")
    libraries = [str(each) for each in HOME.glob("lib/python3*/site-packages/nvidia/cuda_runtime/lib")]
    address = server.http if "http" in words else server.grpc
    window = ["--measurement-mode", "count_windows", "--measurement-request-count", "200", "-s", "90", "-r", "3"]
    shape = ["-b", "2", "--shape", "INPUT0:16", "--output-shared-memory-size", "4096"]
    load = ["--async", "--concurrency-range", "4"]
    done = subprocess.run(
        [BINARY, "-m", model, "-u", address, *words, *shape, *window, *load, "-v"],
        env=os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(libraries)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    told = done.stdout + done.stderr
    passes = [float(rate) for rate in re.findall(r"throughput: ([\d.]+) infer/sec", told)]
    assert passes, told[-4000:]
    assert min(passes) > 0
    if "Failed to obtain stable measurement" in told:  # the machine's unrest, and no fault of the server's
        return
    assert done.returncode == 0, told[-4000:]
    assert max(int(count) for count in re.findall(r"Request count: (\d+)", told)) >= 200
    assert re.search(r"Inference count: [1-9]", told), "the server's statistics count what it asked"
