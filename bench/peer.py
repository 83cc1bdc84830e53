# SPDX-License-Identifier: Apache-2.0
"""Servers as processes: the real Triton out of a PyPI package, and Septet, over repositories of the same models.

Triton is tritonserver 2.51.0 out of ``nvidia-pytriton``, in a virtual environment of its own. That build has the
Python backend only.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnx
import psutil
from onnx import TensorProto, helper

PACKAGES = ("nvidia-pytriton==0.7.0", f"onnxruntime=={version('onnxruntime')}")
"""Triton, and what its Python models may use: the engine of the same version as ours."""

CONFIG = """
backend: "{backend}"
max_batch_size: 64
input [{{name: "INPUT0" data_type: TYPE_FP32 dims: [-1]}}]
output [{{name: "OUTPUT0" data_type: TYPE_FP32 dims: [-1]}}]
dynamic_batching {{}}
instance_group [{{kind: KIND_CPU count: 1}}]
"""

MODEL = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("OUTPUT0", pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy())]
            )
            for request in requests
        ]
"""

NETWORK_CONFIG = """
backend: "{backend}"
max_batch_size: 8
input [{{name: "INPUT0" data_type: TYPE_FP32 dims: [150528] reshape: {{shape: [3, 224, 224]}}}}]
output [{{name: "OUTPUT0" data_type: TYPE_FP32 dims: [1000]}}]
dynamic_batching {{}}
instance_group [{{kind: KIND_CPU count: 1}}]
"""

NETWORK_MODEL = """
import os

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        place = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = ort.InferenceSession(place, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        images = [pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy() for request in requests]
        (rows,) = self.session.run(["OUTPUT0"], {"INPUT0": np.concatenate(images)})
        parts = np.split(rows, np.cumsum([len(each) for each in images])[:-1])
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", part)]) for part in parts]
"""


@dataclass(frozen=True)
class Peer:
    """A server that runs."""

    name: str
    process: psutil.Process
    http: str
    grpc: str
    metrics: str

    def cpu(self) -> float:
        """Seconds of CPU that it and its children have used."""
        total = 0.0
        for one in (self.process, *self.process.children(recursive=True)):
            times = one.cpu_times()
            total += times.user + times.system
        return total


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        made = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in made:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in made]


def write_repository(folder: Path, *, python: bool = True, onnx_too: bool = True) -> Path:
    """``identity_py`` (model.py) and ``identity_onnx``: FP32 of any length, in batches of up to 64."""
    if python:
        write_model(folder / "identity_py", "python", "model.py").write_text(MODEL)
    if onnx_too:
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", "m"]) for n in ("INPUT0", "OUTPUT0")]
        node = helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])
        graph = helper.make_graph([node], "identity", ends[:1], ends[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, str(write_model(folder / "identity_onnx", "onnxruntime", "model.onnx")))
    return folder


def write_network(folder: Path, model: Path, *, python: bool) -> None:
    """``resnet50``: images, FP32 [150528], to scores, FP32 [1000]; on ONNX Runtime, in a `python` model's hands
    or as such."""
    backend, file = ("python", "model.py") if python else ("onnxruntime", "model.onnx")
    place = write_model(folder / "resnet50", backend, file, NETWORK_CONFIG)
    if python:
        place.write_text(NETWORK_MODEL)
    network = onnx.load(model)
    names = {network.graph.input[0].name: "INPUT0", network.graph.output[0].name: "OUTPUT0"}
    for value in (*network.graph.input, *network.graph.output):
        value.name = names[value.name]
    for node in network.graph.node:
        for ports in (node.input, node.output):
            ports[:] = [names.get(port, port) for port in ports]
    onnx.save(network, place.with_name("model.onnx"))


def write_model(folder: Path, backend: str, file: str, config: str = CONFIG) -> Path:
    """A model's folder with its configuration; where its `file` of version 1 is to be written."""
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config.format(backend=backend))
    return folder / "1" / file


def install(folder: Path) -> None:
    """Make the virtual environment of Triton."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", *PACKAGES], check=True)


def triton_command(folder: Path, repository: Path, ports: list[int]) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment that run Triton on a CPU out of the wheel."""
    packages = next((folder / "lib").glob("python3*/site-packages"))
    home = packages / "pytriton" / "tritonserver"
    python = packages.parent.name.removeprefix("python")
    stub = home / "backends" / "python" / "triton_python_backend_stub"
    if not stub.exists():
        shutil.copy2(home / "python_backend_stubs" / python / "triton_python_backend_stub", stub)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    # Its Python stub takes whatever python3 is first on PATH, and with another numpy answers wrong tensors.
    environment["PATH"] = f"{folder / 'bin'}{os.pathsep}{environment['PATH']}"
    libraries = [str(packages / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    command = [
        str(home / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={home / 'backends'}",
        f"--cache-directory={home / 'caches'}",
        *addresses(ports),
    ]
    return command, environment


def septet_command(repository: Path, ports: list[int]) -> tuple[list[str], dict[str, str]]:
    """The same for Septet: the flags are the same."""
    command = [sys.executable, "-m", "septet", "serve", f"--model-repository={repository}", *addresses(ports)]
    return command, dict(os.environ)


def addresses(ports: list[int]) -> list[str]:
    """Where to listen."""
    hosts = [f"--{door}-address=127.0.0.1" for door in ("http", "grpc", "metrics")]
    return hosts + [f"--{door}-port={port}" for door, port in zip(("http", "grpc", "metrics"), ports, strict=True)]


@contextmanager
def running(
    name: str, command: list[str], environment: dict[str, str], ports: list[int], log: Path
) -> Iterator[Peer]:
    """A server, once it is ready."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 120
        while not _ready(ports[0]):
            if process.poll() is not None or time.monotonic() > end:
                sys.exit(f"{name} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield Peer(name, psutil.Process(process.pid), *(f"127.0.0.1:{port}" for port in ports))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
