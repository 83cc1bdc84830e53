# SPDX-License-Identifier: Apache-2.0
"""Septet beside the real Triton: both in one run, in turn, from the same client; statuses checked, CPU shown.

``--triton FOLDER`` names Triton's virtual environment (see `peer`), ``--install`` makes it there, ``--only TEXT``
takes the comparisons whose name has that text. Triton's model is the Python identity that its users would write;
Septet runs the identity on ONNX Runtime, and the same model.py. ResNet-50 (synthetic weights, FP32) runs on ONNX
Runtime in both, in Triton in a Python model's hands: its build for CPUs that can be had has no other backend.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ledger import Row, report
from load import tensor_of
from peer import (
    Peer,
    free_ports,
    install,
    running,
    septet_command,
    triton_command,
    write_network,
    write_repository,
)
from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import load
from septet.workloads.workload import Asked, open_workload

LOAD = Path(__file__).with_name("load.py")
ROUNDS, SECONDS, NETWORK_SECONDS = 3, 3.0, 10.0
NETWORK = "resnet50"
SMALL, LARGE = 16, 150_528
"""Elements of FP32: 64 bytes, and the 602,112 bytes of one ImageNet image."""


def drive(peer: Peer, claim: Claim, model: str, expected: str) -> dict[str, Any]:
    """One run of the client: its figures, and the server's CPU per request in µs."""
    address = peer.http if claim.kind == "http" else peer.grpc
    numbers = [str(number) for number in (claim.connections, claim.seconds, claim.elements)]
    command = [sys.executable, str(LOAD), claim.kind, address, model, *numbers, *([expected] if expected else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        client.stdout.readline()  # the warm-up is over
        before = peer.cpu()
        line = client.stdout.readline()
        used = peer.cpu() - before
    if not line:
        sys.exit(f"the client against {peer.name} ended without figures")
    seen: dict[str, Any] = json.loads(line)
    if seen["failures"] or not seen["checked"] or not seen["requests"]:
        sys.exit(
            f"{peer.name}, {claim.kind}, {model}: {seen['failures']} requests failed: {seen['first_failure']}"
        )
    seen["rate"] = seen["requests"] / seen["seconds"]
    seen["cpu_us"] = used / seen["requests"] * 1e6
    return seen


@dataclass(frozen=True)
class Claim:
    """One comparison: what Septet serves against Triton's Python backend, and the least ratio."""

    name: str
    kind: str
    model: str
    connections: int
    elements: int
    floor: float
    seconds: float = SECONDS


CLAIMS = [
    *(Claim("HTTP, ONNX Runtime", "http", "identity_onnx", c, SMALL, 2.2) for c in (16, 64)),
    *(Claim("HTTP, Python model", "http", "identity_py", c, SMALL, 1.0) for c in (16, 64)),
    *(Claim("gRPC, ONNX Runtime", "grpc", "identity_onnx", c, SMALL, 1.0) for c in (16, 64)),
    Claim("HTTP, 600 KB, ONNX Runtime", "http", "identity_onnx", 8, LARGE, 3.0),
    Claim("gRPC, 600 KB, ONNX Runtime", "grpc", "identity_onnx", 8, LARGE, 1.5),
    Claim("HTTP, ResNet-50, ONNX Runtime", "http", NETWORK, 16, LARGE, 0.98, NETWORK_SECONDS),
]


def compare(claim: Claim, ours: Peer, theirs: Peer, scores: Path) -> list[Row]:
    """Both in turn, `ROUNDS` times; medians."""
    seen: dict[str, list[dict[str, Any]]] = {ours.name: [], theirs.name: []}
    for turn in range(ROUNDS):
        for peer in (ours, theirs) if turn % 2 else (theirs, ours):
            model = claim.model if peer is ours or claim.model == NETWORK else "identity_py"
            seen[peer.name].append(drive(peer, claim, model, str(scores) if claim.model == NETWORK else ""))
    name = f"{claim.name}, {claim.connections} connections"
    rows = []
    for peer in (ours, theirs):
        for figure, unit in (("rate", "requests/s"), ("p99_ms", "ms p99"), ("cpu_us", "µs CPU a request")):
            value = statistics.median(one[figure] for one in seen[peer.name])
            rows.append(Row(f"{name}: {peer.name}", value, unit))
    ratios = [a["rate"] / b["rate"] for a, b in zip(seen[ours.name], seen[theirs.name], strict=True)]
    return [*rows, Row(f"{name}: ratio", statistics.median(ratios), "×", floor=claim.floor)]


def measure(triton: Path, only: str) -> list[Row]:
    """Start both, compare claim after claim."""
    wanted = [claim for claim in CLAIMS if only.lower() in f"{claim.name}, {claim.connections}".lower()]
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        folder = Path(place)
        scores = folder / "scores.npy"
        ports = free_ports(6)
        theirs_at = write_repository(folder / "triton", onnx_too=False)
        ours_at = write_repository(folder / "septet", onnx_too=True)
        if any(claim.model == NETWORK for claim in wanted):
            write_networks(theirs_at, ours_at, scores)
        commands = {
            "Triton": (*triton_command(triton, theirs_at, ports[:3]), ports[:3]),
            "Septet": (*septet_command(ours_at, ports[3:]), ports[3:]),
        }
        peers = {
            name: stack.enter_context(running(name, *command, folder / f"{name}.log"))
            for name, command in commands.items()
        }
        return [row for claim in wanted for row in compare(claim, peers["Septet"], peers["Triton"], scores)]


def write_networks(theirs: Path, ours: Path, scores: Path) -> None:
    """ResNet-50 for both, and what it says of the tensor that is sent."""
    model = open_workload(NETWORK, "full", Asked("synthetic")).model
    assert model is not None
    write_network(theirs, model, python=True)
    write_network(ours, model, python=False)
    with load("onnx", model, EngineConfig(), Cpu.detect().partition()) as engine:
        (image,) = engine.inputs
        (row,) = engine.infer({image.name: tensor_of(LARGE).reshape(1, 3, 224, 224)}).values()
    np.save(scores, row)


def main() -> None:
    """Read where Triton is, measure, print, and where asked write and judge."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--triton", type=Path, default=Path(".triton"), metavar="FOLDER")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--only", default="", metavar="TEXT")
    asked, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    if asked.install:
        install(asked.triton)
    if not asked.triton.is_dir() and "--help" not in rest:
        sys.exit(f"no Triton in {asked.triton}: name its virtual environment by --triton, or make it by --install")
    report(lambda: measure(asked.triton.resolve(), asked.only), title="Septet beside Triton")


if __name__ == "__main__":
    main()
