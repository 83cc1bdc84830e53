# SPDX-License-Identifier: Apache-2.0
"""The real Triton and Septet over the same repository, asked the same: statuses, tensors and metadata agree.

Where Septet answers otherwise on purpose, `DIFFERENCES` says how and why. Triton's virtual environment (see
``bench/peer.py``) is ``$SEPTET_TRITON`` or ``.triton`` beside this checkout's ``tests``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client

from peer import Peer, free_ports, running, septet_command, triton_command, write_model, write_repository
from septet.cli.serve import serve
from septet.stubs import service_pb2, service_pb2_grpc

TRITON = Path(os.environ.get("SEPTET_TRITON", Path(__file__).parents[2] / ".triton"))

pytestmark = pytest.mark.skipif(
    not TRITON.is_dir(),
    reason="Triton is not installed: python bench/vs_triton.py --install, or set SEPTET_TRITON",
)

TYPES = """
backend: "{backend}"
max_batch_size: 0
input [{{name: "INT" data_type: TYPE_INT32 dims: [-1]}}, {{name: "TEXT" data_type: TYPE_STRING dims: [-1]}}]
output [{{name: "INT_OUT" data_type: TYPE_INT32 dims: [-1]}}]
output [{{name: "TEXT_OUT" data_type: TYPE_STRING dims: [-1]}}]
instance_group [{{kind: KIND_CPU count: 1}}]
"""

TYPES_MODEL = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            tensors = [
                pb_utils.Tensor(f"{name}_OUT", pb_utils.get_input_tensor_by_name(request, name).as_numpy())
                for name in ("INT", "TEXT")
            ]
            answers.append(pb_utils.InferenceResponse(tensors))
        return answers
"""

SHAPES = """
backend: "{backend}"
max_batch_size: 0
input [{{name: "FREE" data_type: TYPE_INT32 dims: [-1, -1] optional: true}}]
input [{{name: "PAIRS" data_type: TYPE_INT32 dims: [-1, 2] optional: true}}]
input [{{name: "INNER" data_type: TYPE_INT32 dims: [-1, 2, -1] optional: true}}]
input [{{name: "FIXED" data_type: TYPE_INT32 dims: [2, 2] optional: true}}]
output [{{name: "SHAPE" data_type: TYPE_INT32 dims: [-1]}}]
instance_group [{{kind: KIND_CPU count: 1}}]
"""

SHAPES_MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        shapes = [np.array(request.inputs()[0].as_numpy().shape, np.int32) for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("SHAPE", shape)]) for shape in shapes]
"""

COUNTS = """
backend: "{backend}"
max_batch_size: 0
model_transaction_policy {{ decoupled: true }}
input [{{name: "COUNT" data_type: TYPE_INT32 dims: [1]}}, {{name: "LAST" data_type: TYPE_INT32 dims: [1]}}]
output [{{name: "OUT" data_type: TYPE_INT32 dims: [1]}}]
instance_group [{{kind: KIND_CPU count: 1}}]
"""

COUNTS_MODEL = """
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            count, last = (pb_utils.get_input_tensor_by_name(request, n).as_numpy() for n in ("COUNT", "LAST"))
            sender = request.get_response_sender()
            for number in range(count[0]):
                response = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", count)])
                sender.send(response, FINAL if last[0] and number == count[0] - 1 else 0)
            if not (count[0] and last[0]):
                sender.send(flags=FINAL)
"""
"""As many responses as asked for; the final flag goes with the last of them, or alone."""

CALLER = COUNTS.replace("model_transaction_policy {{ decoupled: true }}", "").replace(
    "[1]}}]\ninst", "[-1]}}]\ninst"
)

CALLER_MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            asked = pb_utils.InferenceRequest(
                inputs=request.inputs(), requested_output_names=["OUT"], model_name="counts"
            )
            seen = np.array([len(each.output_tensors()) for each in asked.exec(decoupled=True)], np.int32)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", seen)]))
        return answers
"""


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Peer, Peer]]:
    """Triton and Septet."""
    folder = tmp_path_factory.mktemp("peers")
    repository = write_repository(folder / "repository", onnx_too=False)
    write_model(repository / "types", "python", "model.py", TYPES).write_text(TYPES_MODEL)
    write_model(repository / "shapes", "python", "model.py", SHAPES).write_text(SHAPES_MODEL)
    write_model(repository / "counts", "python", "model.py", COUNTS).write_text(COUNTS_MODEL)
    write_model(repository / "caller", "python", "model.py", CALLER).write_text(CALLER_MODEL)
    ports = free_ports(6)
    with ExitStack() as stack:
        yield (
            stack.enter_context(
                running("Triton", *triton_command(TRITON, repository, ports[:3]), ports[:3], folder / "triton.log")
            ),
            stack.enter_context(
                running("Septet", *septet_command(repository, ports[3:]), ports[3:], folder / "septet.log")
            ),
        )


def test_septet_knows_every_flag_of_tritons() -> None:
    [binary, *_], environment = triton_command(TRITON, Path(), free_ports(3))
    told = subprocess.run([binary, "--help"], env=environment, capture_output=True, text=True, timeout=60)
    flags = set(re.findall(r"^  (--[a-z0-9-]+)", told.stdout + told.stderr, re.MULTILINE))
    assert len(flags) > 50
    assert flags <= {"--help", *(name for option in serve.params for name in option.opts)}


def ask(peer: Peer, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://{peer.http}{path}", data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def tensor(name: str, datatype: str, shape: list[int], data: object, **more: object) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data} | more


X = tensor("INPUT0", "FP32", [1, 2], [1.5, 2.5])
ONE, TWO = tensor("INT", "INT32", [2], [1, -2]), tensor("TEXT", "BYTES", [1], ["größe"])
PY, TYPED, SHAPED = "/v2/models/identity_py", "/v2/models/types", "/v2/models/shapes"

SAME: dict[str, tuple[str, str, Any]] = {
    "infer": ("POST", f"{PY}/infer", {"inputs": [X]}),
    "infer, id": ("POST", f"{PY}/infer", {"id": "7", "inputs": [X]}),
    "infer, version": ("POST", f"{PY}/versions/1/infer", {"inputs": [X]}),
    "infer, named output": ("POST", f"{PY}/infer", {"inputs": [X], "outputs": [{"name": "OUTPUT0"}]}),
    "infer, nested data": ("POST", f"{PY}/infer", {"inputs": [tensor("INPUT0", "FP32", [1, 2], [[1.5, 2.5]])]}),
    "infer, types": ("POST", f"{TYPED}/infer", {"inputs": [ONE, TWO]}),
    "infer, classes": (
        "POST",
        f"{PY}/infer",
        {"inputs": [X], "outputs": [{"name": "OUTPUT0", "parameters": {"classification": 2}}]},
    ),
    "unknown model": ("POST", "/v2/models/nobody/infer", {"inputs": [X]}),
    "unknown version": ("POST", f"{PY}/versions/9/infer", {"inputs": [X]}),
    "version that is no number": ("POST", f"{PY}/versions/x/infer", {"inputs": [X]}),
    "unknown input": ("POST", f"{PY}/infer", {"inputs": [tensor("Y", "FP32", [1, 1], [1])]}),
    "unknown output": ("POST", f"{PY}/infer", {"inputs": [X], "outputs": [{"name": "Y"}]}),
    "missing input": ("POST", f"{TYPED}/infer", {"inputs": [ONE]}),
    "too many inputs": ("POST", f"{PY}/infer", {"inputs": [X, tensor("Z", "FP32", [1, 1], [1])]}),
    "wrong datatype": ("POST", f"{PY}/infer", {"inputs": [tensor("INPUT0", "INT32", [1, 2], [1, 2])]}),
    "wrong rank": ("POST", f"{PY}/infer", {"inputs": [tensor("INPUT0", "FP32", [2], [1, 2])]}),
    "batch too large": ("POST", f"{PY}/infer", {"inputs": [tensor("INPUT0", "FP32", [65, 1], [1] * 65)]}),
    "input given twice": ("POST", f"{PY}/infer", {"inputs": [X, X]}),
    "reserved parameter": ("POST", f"{PY}/infer", {"inputs": [X], "parameters": {"triton_x": 1}}),
    "unknown region": (
        "POST",
        f"{PY}/infer",
        {
            "inputs": [
                {
                    "name": "INPUT0",
                    "datatype": "FP32",
                    "shape": [1, 2],
                    "parameters": {"shared_memory_region": "nobody", "shared_memory_byte_size": 8},
                }
            ]
        },
    ),
    "GET infer": ("GET", f"{PY}/infer", None),
    "live": ("GET", "/v2/health/live", None),
    "ready": ("GET", "/v2/health/ready", None),
    "model ready": ("GET", f"{PY}/ready", None),
    "unknown model ready": ("GET", "/v2/models/nobody/ready", None),
    "metadata": ("GET", PY, None),
    "metadata, version": ("GET", f"{TYPED}/versions/1", None),
    "unknown metadata": ("GET", "/v2/models/nobody", None),
    "unknown config": ("GET", "/v2/models/nobody/config", None),
    "unknown stats": ("GET", "/v2/models/nobody/stats", None),
    "root": ("GET", "/", None),
    "v2 with a slash": ("GET", "/v2/", None),
    "HEAD": ("HEAD", "/v2/health/live", None),
    "GET index": ("GET", "/v2/repository/index", None),
    "load in mode none": ("POST", "/v2/repository/models/identity_py/load", {}),
    "unload in mode none": ("POST", "/v2/repository/models/identity_py/unload", {}),
    "region status": ("GET", "/v2/systemsharedmemory/status", None),
    "unknown region status": ("GET", "/v2/systemsharedmemory/region/nobody/status", None),
    "unregister unknown": ("POST", "/v2/systemsharedmemory/region/nobody/unregister", {}),
    "generate": ("POST", f"{PY}/generate", {"INPUT0": [1.5, 2.5]}),
    "generate, a scalar": ("POST", f"{PY}/generate", {"INPUT0": 1.5}),
    "generate, free": ("POST", f"{SHAPED}/generate", {"FREE": [1, 2, 3]}),
    "generate, fixed inside": ("POST", f"{SHAPED}/generate", {"PAIRS": [1, 2, 3, 4]}),
    "generate, fixed between": ("POST", f"{SHAPED}/generate", {"INNER": [1, 2, 3, 4, 5, 6]}),
    "generate, all fixed": ("POST", f"{SHAPED}/generate", {"FIXED": [1, 2, 3, 4]}),
    "a model's answers": ("POST", "/v2/models/caller/generate", {"COUNT": 2, "LAST": 0}),
    "a model's answers, the last one final": ("POST", "/v2/models/caller/generate", {"COUNT": 2, "LAST": 1}),
    "a model's answers, none": ("POST", "/v2/models/caller/generate", {"COUNT": 0, "LAST": 0}),
    "generate, too few": ("POST", f"{SHAPED}/generate", {"FIXED": [1, 2]}),
    "generate, no pairs": ("POST", f"{SHAPED}/generate", {"PAIRS": [1, 2, 3]}),
}
"""Name -> method, path, JSON body: both answer with the same status and, where that is 200, the same document."""

DIFFERENCES: dict[str, tuple[str, str, Any, int, int]] = {
    "an integer that does not fit wraps silently": (
        "POST", f"{TYPED}/infer", {"inputs": [tensor("INT", "INT32", [1], [3_000_000_000]), TWO]}, 200, 400,
    ),
    "NaN is no JSON": (
        "POST", f"{PY}/infer",
        b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[1,1],"data":[NaN]}]}', 200, 400,
    ),
    "what is no JSON is the client's fault, not the server's": ("POST", f"{PY}/infer", b"{", 500, 400),
    "an element of a wrong type is the client's fault": (
        "POST", f"{PY}/infer", {"inputs": [tensor("INPUT0", "FP32", [1, 1], ["x"])]}, 500, 400,
    ),
    "a wrong number of elements is the client's fault": (
        "POST", f"{PY}/infer", {"inputs": [tensor("INPUT0", "FP32", [1, 3], [1, 2])]}, 500, 400,
    ),
    "a region that is not there is the client's fault": (
        "POST", "/v2/systemsharedmemory/region/x/register", {"key": "/nowhere", "byte_size": 8}, 500, 400,
    ),
    "one output is asked for once": (
        "POST", f"{PY}/infer", {"inputs": [X], "outputs": [{"name": "OUTPUT0"}, {"name": "OUTPUT0"}]}, 200, 400,
    ),
}  # fmt: skip
"""Why -> method, path, body, Triton's status, Septet's."""


def body_of(document: Any) -> bytes | None:
    return document if document is None or isinstance(document, bytes) else json.dumps(document).encode()


@pytest.mark.parametrize("name", SAME)
def test_the_same(peers: tuple[Peer, Peer], name: str) -> None:
    method, path, document = SAME[name]
    triton, septet = (ask(peer, method, path, body_of(document), {}) for peer in peers)
    assert septet[0] == triton[0], (triton, septet)
    if triton[0] == 200 and triton[1] and method != "HEAD":
        assert json.loads(septet[1]) == json.loads(triton[1])
    elif triton[0] >= 400 and septet[1]:
        assert isinstance(json.loads(septet[1])["error"], str)


@pytest.mark.parametrize("why", DIFFERENCES)
def test_different_on_purpose(peers: tuple[Peer, Peer], why: str) -> None:
    method, path, document, triton_says, septet_says = DIFFERENCES[why]
    triton, septet = (ask(peer, method, path, body_of(document), {}) for peer in peers)
    assert (triton[0], septet[0]) == (triton_says, septet_says), (triton, septet)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_binary_and_compressed(peers: tuple[Peer, Peer], encoding: str) -> None:
    value = np.random.default_rng(0).normal(size=(2, 300)).astype(np.float32)
    given = http_client.InferInput("INPUT0", value.shape, "FP32")
    given.set_data_from_numpy(value)
    for peer in peers:
        with http_client.InferenceServerClient(peer.http) as client:
            for compressed in (None, encoding):
                result = client.infer(
                    "identity_py",
                    [given],
                    request_compression_algorithm=compressed,
                    response_compression_algorithm=compressed,
                )
                np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), value)


def test_raw_requests(peers: tuple[Peer, Peer]) -> None:
    headers = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
    triton, septet = (ask(peer, "POST", f"{TYPED}/infer", b"abcd", headers) for peer in peers)
    assert septet[0] == triton[0] == 400


def test_documents_have_tritons_fields(peers: tuple[Peer, Peer]) -> None:
    """Of what differs in values, the names are the same."""
    for path in ("/v2", f"{PY}/config", f"{PY}/stats", "/v2/logging", "/v2/trace/setting"):
        triton, septet = (json.loads(ask(peer, "GET", path, None, {})[1]) for peer in peers)
        missing = names_in(triton) - names_in(septet)
        assert not missing, (path, missing)


def names_in(document: Any, within: str = "") -> set[str]:
    if isinstance(document, list):
        return set().union(*(names_in(one, within) for one in document[:1]))
    if not isinstance(document, dict):
        return set()
    found = {f"{within}/{name}" for name in document}
    return found.union(*(names_in(value, f"{within}/{name}") for name, value in document.items()))


def test_shared_memory(peers: tuple[Peer, Peer]) -> None:
    region = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    given = {"name": "INPUT0", "datatype": "FP32", "shape": [1, 2], "parameters": region}
    wanted = {"name": "OUTPUT0", "parameters": region | {"shared_memory_offset": 8}}
    seen = []
    for number, peer in enumerate(peers):
        path = Path(f"/dev/shm/septet-beside-{os.getpid()}-{number}")
        path.write_bytes(np.array([1.5, 2.5, 0, 0], np.float32).tobytes())
        try:
            about = json.dumps({"key": f"/{path.name}", "offset": 0, "byte_size": 16}).encode()
            register = "/v2/systemsharedmemory/region/r/register"
            statuses = [ask(peer, "POST", register, about, {})[0] for _ in range(2)]
            body = json.dumps({"inputs": [given], "outputs": [wanted]}).encode()
            answers = [ask(peer, "POST", f"{PY}/infer", body, {})]
            answers.append(ask(peer, "POST", "/v2/systemsharedmemory/region/r/unregister", b"", {}))
            seen.append((statuses, answers, path.read_bytes()))
        finally:
            path.unlink()
    assert seen[0] == seen[1]
    assert seen[1][2][:8] == seen[1][2][8:]


def infer(model: str, **changes: Any) -> service_pb2.ModelInferRequest:
    message = service_pb2.ModelInferRequest(model_name=model, id="7")
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 2])
    message.raw_input_contents.append(np.array([1.5, 2.5], np.float32).tobytes())
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def wrong_size() -> service_pb2.ModelInferRequest:
    message = infer("identity_py")
    message.inputs[0].shape[1] = 3
    return message


def both_contents() -> service_pb2.ModelInferRequest:
    message = infer("identity_py")
    message.inputs[0].contents.fp32_contents.append(1.0)
    return message


def unknown_output() -> service_pb2.ModelInferRequest:
    message = infer("identity_py")
    message.outputs.add(name="Y")
    return message


def typed_contents() -> service_pb2.ModelInferRequest:
    message = infer("identity_py")
    del message.raw_input_contents[:]
    message.inputs[0].contents.fp32_contents.extend([1.5, 2.5])
    return message


CALLS: dict[str, tuple[str, Any]] = {
    "infer": ("ModelInfer", infer("identity_py")),
    "infer, typed contents": ("ModelInfer", typed_contents()),
    "unknown model": ("ModelInfer", infer("nobody")),
    "unknown version": ("ModelInfer", infer("identity_py", model_version="9")),
    "wrong size": ("ModelInfer", wrong_size()),
    "both contents": ("ModelInfer", both_contents()),
    "unknown output": ("ModelInfer", unknown_output()),
    "live": ("ServerLive", service_pb2.ServerLiveRequest()),
    "ready": ("ServerReady", service_pb2.ServerReadyRequest()),
    "metadata": ("ModelMetadata", service_pb2.ModelMetadataRequest(name="types")),
    "unknown metadata": ("ModelMetadata", service_pb2.ModelMetadataRequest(name="nobody")),
    "unknown config": ("ModelConfig", service_pb2.ModelConfigRequest(name="nobody")),
    "load in mode none": ("RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest(model_name="types")),
    "regions": ("SystemSharedMemoryStatus", service_pb2.SystemSharedMemoryStatusRequest()),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_same_over_grpc(peers: tuple[Peer, Peer], name: str) -> None:
    method, message = CALLS[name]
    seen = []
    for peer in peers:
        with grpc.insecure_channel(peer.grpc) as channel:
            stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            try:
                seen.append((grpc.StatusCode.OK, getattr(stub, method)(message, timeout=20)))
            except grpc.RpcError as error:
                seen.append((error.code(), None))
    assert seen[0] == seen[1]


def test_grpc_client_streams(peers: tuple[Peer, Peer]) -> None:
    value = np.array([[1.5, 2.5]], np.float32)
    given = grpc_client.InferInput("INPUT0", value.shape, "FP32")
    given.set_data_from_numpy(value)
    for peer in peers:
        answers: list[Any] = []
        with grpc_client.InferenceServerClient(peer.grpc) as client:
            client.start_stream(lambda result, error, to=answers: to.append((result, error)))
            client.async_stream_infer("identity_py", [given], request_id="1")
            client.async_stream_infer("nobody", [given], request_id="2")
            client.stop_stream()
        results = [result for result, error in answers if error is None]
        assert [len(answers), len(results)] == [2, 1]
        np.testing.assert_array_equal(results[0].as_numpy("OUTPUT0"), value)
