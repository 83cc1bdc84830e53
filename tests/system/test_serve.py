# SPDX-License-Identifier: Apache-2.0
"""``septet serve`` as a process, over a repository with a real model, asked by Triton's own clients."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

from peer import Peer, addresses, free_ports, running, septet_command, write_repository
from septet.client import Client
from septet.errors import Refused
from septet.tensor import Array
from serving_made import IDENTITY, model, until

MODEL = "identity_onnx"
CLIENTS = {"http": http_client, "grpc": grpc_client}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("repository"), python=False)


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    ports = free_ports(3)
    log = tmp_path_factory.mktemp("log") / "log"
    with running("Septet", *septet_command(repository, ports), ports, log) as peer:
        yield peer


def address(server: Peer, kind: str) -> str:
    return server.http if kind == "http" else server.grpc


def tensor(module: Any, value: Array) -> Any:
    made = module.InferInput("INPUT0", value.shape, "FP32")
    made.set_data_from_numpy(value)
    return made


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_tritons_clients(server: Peer, kind: str) -> None:
    module = CLIENTS[kind]
    value = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32)
    with module.InferenceServerClient(address(server, kind)) as client:
        assert client.is_server_ready()
        assert client.is_model_ready(MODEL)
        result = client.infer(MODEL, [tensor(module, value)], request_id="42")
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), value)
        with pytest.raises(InferenceServerException, match="nobody"):
            client.infer("nobody", [tensor(module, value)])
        wrong = np.zeros((100, 4), np.float32)
        with pytest.raises(InferenceServerException):
            client.infer(MODEL, [tensor(module, wrong)])  # above max_batch_size
        assert client.is_server_live()


def test_tritons_asynchronous_clients(server: Peer) -> None:
    async def ask(module: Any, where: str) -> None:
        async with module.InferenceServerClient(where) as client:
            values = [np.full((1, 10 + number), number, np.float32) for number in range(100)]
            results = await asyncio.gather(*(client.infer(MODEL, [tensor(module, value)]) for value in values))
            for value, result in zip(values, results, strict=True):
                np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), value)

    asyncio.run(ask(http_aio, server.http))
    asyncio.run(ask(grpc_aio, server.grpc))


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_tritons_shared_memory(server: Peer, kind: str) -> None:
    module = CLIENTS[kind]
    value = np.arange(64, dtype=np.float32).reshape(1, 64)
    key = f"/septet-test-{os.getpid()}-{kind}"
    handle = shm.create_shared_memory_region("region", key, 2 * value.nbytes)
    try:
        shm.set_shared_memory_region(handle, [value])
        with module.InferenceServerClient(address(server, kind)) as client:
            client.register_system_shared_memory("region", key, 2 * value.nbytes)
            assert "region" in str(client.get_system_shared_memory_status())
            with pytest.raises(InferenceServerException, match="already"):
                client.register_system_shared_memory("region", key, 2 * value.nbytes)
            given = module.InferInput("INPUT0", value.shape, "FP32")
            given.set_shared_memory("region", value.nbytes)
            wanted = module.InferRequestedOutput("OUTPUT0")
            wanted.set_shared_memory("region", value.nbytes, offset=value.nbytes)
            result = client.infer(MODEL, [given], outputs=[wanted])
            assert result.get_output("OUTPUT0") is not None
            got = shm.get_contents_as_numpy(handle, np.float32, [1, 64], offset=value.nbytes)
            np.testing.assert_array_equal(got, value)
            wanted.set_shared_memory("region", 4, offset=value.nbytes)
            with pytest.raises(InferenceServerException):
                client.infer(MODEL, [given], outputs=[wanted])
            client.unregister_system_shared_memory("region")
            with pytest.raises(InferenceServerException, match="find shared memory"):
                client.infer(MODEL, [given])
    finally:
        shm.destroy_shared_memory_region(handle)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_septets_client(server: Peer, kind: str) -> None:
    with Client(f"{kind}://{address(server, kind)}") as client:
        value = np.ones((2, 5), np.float32)
        np.testing.assert_array_equal(client.infer(MODEL, {"INPUT0": value})["OUTPUT0"], value)
        shared = client.share(1 << 16)
        placed = {"INPUT0": shared.put(value)}
        wanted = [shared.leave("OUTPUT0", value.nbytes)]
        outputs = client.infer(MODEL, {}, placed=placed, outputs=wanted, shared=shared)
        np.testing.assert_array_equal(outputs["OUTPUT0"], value)
        client.unshare(shared)
        assert int(client.statistics(MODEL)[0]["inference_count"]) >= 4


def test_statistics_and_metrics_count(server: Peer) -> None:
    value = np.ones((4, 2), np.float32)

    def count(client: Any) -> int:
        return int(client.get_inference_statistics(MODEL)["model_stats"][0]["inference_count"])

    with http_client.InferenceServerClient(server.http) as client:
        before = count(client)
        client.infer(MODEL, [tensor(http_client, value)])
        assert count(client) == before + 4
        assert client.get_model_config(MODEL)["max_batch_size"] == 64
        assert client.get_model_repository_index() == [
            {"name": MODEL, "version": "1", "state": "READY", "reason": ""}
        ]


def test_many_clients_at_once_get_their_own_answers(server: Peer) -> None:
    def ask(number: int) -> None:
        value = np.full((1, 50), number, np.float32)
        with Client(
            f"{'http' if number % 2 else 'grpc'}://{address(server, 'http' if number % 2 else 'grpc')}"
        ) as client:
            for _ in range(50):
                np.testing.assert_array_equal(client.infer(MODEL, {"INPUT0": value})["OUTPUT0"], value)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(16)))


# What hostile clients try, beyond tests/unit/serving


def post(server: Peer, path: str, document: object) -> tuple[int, bytes]:
    body = json.dumps(document).encode()
    request = urllib.request.Request(f"http://{server.http}{path}", data=body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_no_log_file_is_set_over_the_network(server: Peer, tmp_path: Path) -> None:
    path = tmp_path / "log"
    status, _ = post(server, "/v2/logging", {"log_file": str(path)})
    assert status >= 400
    with grpc_client.InferenceServerClient(server.grpc) as client, pytest.raises(InferenceServerException):
        client.update_log_settings({"log_file": str(path)})
    assert not path.exists()


def test_no_trace_file_is_set_over_the_network(server: Peer, tmp_path: Path) -> None:
    status, _ = post(server, "/v2/trace/setting", {"trace_file": str(tmp_path / "trace")})
    assert status >= 400


def test_names_that_are_no_models_make_no_series(server: Peer) -> None:
    def series() -> set[str]:
        with urllib.request.urlopen(f"http://{server.metrics}/metrics") as answer:
            return {line.rsplit(" ", 1)[0] for line in answer.read().decode().splitlines()}

    before = series()
    for number in range(50):
        assert post(server, f"/v2/models/random{number}/infer", {"inputs": []})[0] == 404
    assert series() == before


def test_a_region_that_is_cut_short_fails_its_requests_alone(server: Peer) -> None:
    value = np.ones((1, 100_000), np.float32)
    for kind in ("http", "grpc"):
        with Client(f"{kind}://{address(server, kind)}") as client:
            shared = client.share(1 << 20)
            placed = {"INPUT0": shared.put(value)}
            shared._memory.resize(1000)  # cuts the file too
            with pytest.raises(Refused, match="truncated"):
                client.infer(MODEL, {}, placed=placed, shared=shared)
            assert client.live()
            client.unshare(shared)


def test_a_load_that_climbs_is_refused(repository: Path, tmp_path: Path) -> None:
    ports = free_ports(3)
    command, environment = septet_command(repository, ports)
    command.append("--model-control-mode=explicit")
    with running("Septet", command, environment, ports, tmp_path / "log") as peer:
        for name in ("file:1/../../../x", "file:/tmp/septet-x", "file:../x", "file:1/..\\x"):
            parameters = {"config": "{}", name: "AAAA"}
            status, _ = post(peer, f"/v2/repository/models/{MODEL}/load", {"parameters": parameters})
            assert status in (400, 500), name
        assert not (repository.parent / "x").exists()
        assert not Path("/tmp/septet-x").exists()
        with http_client.InferenceServerClient(peer.http) as client:
            client.load_model(MODEL)
            assert client.is_model_ready(MODEL)


# The process


def serve(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "septet", "serve", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_port_in_use(repository: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for door in ("http", "grpc", "metrics"):
            ports = dict(zip(("http", "grpc", "metrics"), free_ports(3), strict=True)) | {door: port}
            done = serve(f"--model-repository={repository}", *addresses(list(ports.values())))
            assert done.returncode == 1
            assert f"127.0.0.1:{port}: Address already in use" in done.stderr
            assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "--model-repository"),
        (["--model-repository=/nowhere"], "/nowhere"),
        (["--model-repository=.", "--load-model=x"], "explicit"),
        (["--model-repository=.", "--model-control-mode=sometimes"], "sometimes"),
        (["--model-repository=.", "--http-port=99999"], "99999"),
        (["--model-repository=.", "--exit-timeout-secs=nan"], "nan is no time"),
        (["--model-repository=.", "--no-such-flag"], "no-such-flag"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(words: list[str], text: str) -> None:
    done = serve(*words, *([] if any("port" in word for word in words) else addresses(free_ports(3))))
    assert done.returncode not in (0, -signal.SIGSEGV)
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_with_0(repository: Path, tmp_path: Path, number: signal.Signals) -> None:
    ports = free_ports(3)
    command, environment = septet_command(repository, ports)
    with running("Septet", command, environment, ports, tmp_path / "log") as peer:
        stop, answered, failed = threading.Event(), [0], list[str]()

        def keep_asking(kind: str) -> None:
            value = np.ones((1, 100_000), np.float32)
            with Client(f"{kind}://{address(peer, kind)}") as client:
                while not stop.is_set():
                    try:
                        client.infer(MODEL, {"INPUT0": value})
                    except Exception as error:
                        if peer.process.is_running() and not stopping.is_set():
                            failed.append(str(error))
                        return
                    answered[0] += 1

        stopping = threading.Event()
        threads = [threading.Thread(target=keep_asking, args=(kind,)) for kind in ("http", "grpc")]
        for thread in threads:
            thread.start()
        while answered[0] < 20:
            time.sleep(0.01)
        stopping.set()
        peer.process.send_signal(number)
        assert _not_ready_or_gone(ports[0])
        stop.set()
        for thread in threads:
            thread.join(20)
        assert peer.process.wait(20) == 0
        assert failed == []


def _not_ready_or_gone(port: int) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=2):
                time.sleep(0.01)
        except OSError:
            return True
    return False


LOADING = """
import pathlib, time


class TritonPythonModel:
    def initialize(self, args):
        pathlib.Path({begun!r}).touch()
        time.sleep(100)
"""


def loading(root: Path) -> tuple[Path, Path]:
    """A model that takes long to load, and the file that is there once it has begun to."""
    begun = root / "begun"
    source = LOADING.format(begun=str(begun))
    return model(root, "slow", IDENTITY.replace("null", "python"), {"1/model.py": source}), begun


def test_a_signal_does_not_wait_for_a_model_that_loads(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    ports, (slow, begun) = free_ports(3), loading(tmp_path)
    command, environment = septet_command(tmp_path / "models", ports)
    polling = ["--model-control-mode=poll", "--repository-poll-secs=0.05"]
    with running("Septet", [*command, *polling], environment, ports, tmp_path / "log") as peer:
        slow.rename(tmp_path / "models" / "slow")
        until(begun.exists)
        peer.process.send_signal(signal.SIGTERM)
        assert peer.process.wait(20) == 0


def test_a_signal_does_not_wait_for_a_model_that_loads_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    slow, begun = loading(tmp_path)
    slow.rename(tmp_path / "models" / "slow")
    command, environment = septet_command(tmp_path / "models", free_ports(3))
    with subprocess.Popen(command, env=environment) as process:
        until(begun.exists)
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_explicit_control(repository: Path, tmp_path: Path) -> None:
    ports = free_ports(3)
    command, environment = septet_command(repository, ports)
    with (
        running(
            "Septet", [*command, "--model-control-mode=explicit"], environment, ports, tmp_path / "log"
        ) as peer,
        http_client.InferenceServerClient(peer.http) as client,
    ):
        assert not client.is_model_ready(MODEL)
        client.load_model(MODEL)
        assert client.is_model_ready(MODEL)
        client.unload_model(MODEL)
        assert not client.is_model_ready(MODEL)
        client.load_model(MODEL)
        value = np.ones((1, 3), np.float32)
        np.testing.assert_array_equal(client.infer(MODEL, [tensor(http_client, value)]).as_numpy("OUTPUT0"), value)


def test_health_as_kserve_reads_it(server: Peer) -> None:
    for path, expected in (("live", {"live": True}), ("ready", {"live": True, "ready": True})):
        with urllib.request.urlopen(f"http://{server.http}/v2/health/{path}") as answer:
            assert json.load(answer) == expected
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://{server.http}/v2/models/nobody/ready")
