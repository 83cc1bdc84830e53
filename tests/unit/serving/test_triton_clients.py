# SPDX-License-Identifier: Apache-2.0
"""Triton's own clients against the fronts."""

from __future__ import annotations

import asyncio
import queue
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException

from fake_plane import Running, Start
from septet.stubs import SERVICE
from septet.tensor import Array

CLIENTS = {"http": http_client, "grpc": grpc_client}
VALUES: dict[str, Array] = {
    "FP32": np.arange(16, dtype=np.float32).reshape(1, 16),
    "INT64": np.array([[-(2**63), 2**63 - 1]], np.int64),
    "BOOL": np.array([True, False]),
    "UINT8": np.zeros((0, 3), np.uint8),
    "FP16": np.array([1.5, 2.5], np.float16),
    "BYTES": np.array([b"one", b"", "größe".encode()], np.object_),
}


def client(kind: str, running: Running) -> Any:
    return CLIENTS[kind].InferenceServerClient(running.http if kind == "http" else running.grpc)


@pytest.fixture(params=["http", "grpc"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("datatype", VALUES)
def test_tensors_come_back_as_they_went(running: Running, kind: str, datatype: str) -> None:
    module, value = CLIENTS[kind], VALUES[datatype]
    tensor = module.InferInput("INPUT0", value.shape, datatype)
    tensor.set_data_from_numpy(value)
    with client(kind, running) as talk:
        result = talk.infer("identity", [tensor], request_id="7")
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), value)


def test_large_tensors(running: Running, kind: str) -> None:
    module, value = CLIENTS[kind], np.random.default_rng(1).normal(size=2_000_000).astype(np.float32)
    tensor = module.InferInput("INPUT0", value.shape, "FP32")
    tensor.set_data_from_numpy(value)
    with client(kind, running) as talk:
        for _ in range(3):
            np.testing.assert_array_equal(talk.infer("identity", [tensor]).as_numpy("OUTPUT0"), value)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("algorithm", [None, "gzip", "deflate"])
def test_http_json_binary_and_compression(
    running: Running, binary_in: bool, binary_out: bool, algorithm: str | None
) -> None:
    value = np.arange(50_000, dtype=np.int32)
    tensor = http_client.InferInput("INPUT0", value.shape, "INT32")
    tensor.set_data_from_numpy(value, binary_data=binary_in)
    wanted = [http_client.InferRequestedOutput("OUTPUT0", binary_data=binary_out)]
    with client("http", running) as talk:
        result = talk.infer(
            "identity",
            [tensor],
            outputs=wanted,
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), value)


@pytest.mark.parametrize("grpcio", [False, True])
def test_grpc_compression(start: Start, grpcio: bool) -> None:
    value = np.arange(50_000, dtype=np.int32)
    tensor = grpc_client.InferInput("INPUT0", value.shape, "INT32")
    tensor.set_data_from_numpy(value)
    with client("grpc", start(grpcio=grpcio)) as talk:
        for algorithm in ("gzip", "deflate"):
            result = talk.infer("identity", [tensor], compression_algorithm=algorithm)
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), value)


def test_classification(running: Running, kind: str) -> None:
    module = CLIENTS[kind]
    tensor = module.InferInput("INPUT0", [1], "FP32")
    tensor.set_data_from_numpy(np.zeros(1, np.float32))
    with client(kind, running) as talk:
        result = talk.infer("scores", [tensor], outputs=[module.InferRequestedOutput("SCORES", class_count=2)])
        assert result.as_numpy("SCORES").tolist() == [[b"0.700000:1:dog", b"0.200000:2"]]


@pytest.mark.parametrize("grpcio", [False, True])
def test_everything_that_is_no_inference(start: Start, kind: str, grpcio: bool) -> None:
    running = start(grpcio=grpcio)
    with client(kind, running) as talk:
        assert talk.is_server_live()
        assert talk.is_server_ready()
        assert talk.is_model_ready("identity", "1")
        assert not talk.is_model_ready("nobody")
        json = {"as_json": True} if kind == "grpc" else {}
        assert talk.get_server_metadata(**json)["name"] == "septet"
        assert talk.get_model_metadata("identity", **json)["platform"] == "fake"
        config = talk.get_model_config("identity", **json)
        config = config.get("config", config)
        assert config["backend"] == "fake"
        assert [int(dim) for dim in config["input"][0]["dims"]] == [-1]
        assert config["parameters"]["key"]["string_value"] == "value"
        stats = talk.get_inference_statistics("identity", **json)["model_stats"][0]
        assert int(stats["inference_stats"]["success"]["ns"]) == 4
        index = talk.get_model_repository_index(**json)
        models = index if kind == "http" else index["models"]
        assert models[0]["name"] == "identity"
        talk.load_model("other", config="{}", files={"file:1/model.bin": b"\x00\xff"})
        assert running.plane.loaded[-1][0] == "other"
        assert running.plane.loaded[-1][1]["file:1/model.bin"] == b"\x00\xff"
        talk.unload_model("other", unload_dependents=True)
        assert running.plane.loaded[-1] == ("-other", {"dependents": True})
        settings = talk.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}, **json)
        assert "TIMESTAMPS" in str(settings)
        assert talk.get_trace_settings(**json)
        assert talk.update_log_settings({"log_verbose_level": 1}, **json)
        assert talk.get_log_settings(**json)
        talk.get_cuda_shared_memory_status(**json)
        talk.unregister_cuda_shared_memory()


@pytest.mark.parametrize("grpcio", [False, True])
def test_health_as_grpc_itself_has_it(start: Start, grpcio: bool) -> None:
    serving, not_serving, unknown = b"\x08\x01", b"\x08\x02", b"\x08\x03"
    running = start(grpcio=grpcio)
    with grpc.insecure_channel(running.grpc) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        named = b"\x0a" + bytes((len(SERVICE),)) + SERVICE.encode()
        assert check(b"", timeout=10) == check(named, timeout=10) == serving
        watching, in_vain = watch(b"", timeout=20), watch(b"\x0a\x01x", timeout=20)
        assert next(watching) == serving
        assert next(in_vain) == unknown
        for ask, code in ((b"\x0a\x01x", grpc.StatusCode.NOT_FOUND), (b"\x0a", grpc.StatusCode.INVALID_ARGUMENT)):
            with pytest.raises(grpc.RpcError) as caught:
                check(ask, timeout=10)
            assert caught.value.code() == code
        with pytest.raises(grpc.RpcError) as caught:
            next(watch(b"\x0a", timeout=10))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        running.plane.retire()
        assert check(b"", timeout=10) == not_serving
        assert next(watching) == not_serving
        running.server.stop()
        for stream in (watching, in_vain):
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_errors_have_triton_statuses(running: Running, kind: str) -> None:
    module = CLIENTS[kind]
    tensor = module.InferInput("INPUT0", [2], "FP32")
    tensor.set_data_from_numpy(np.zeros(2, np.float32))
    tensor.set_shape([3])
    statuses = {
        "http": {"identity": "400", "full": "503", "broken": "500"},
        "grpc": {
            "identity": "StatusCode.INVALID_ARGUMENT",
            "full": "StatusCode.UNAVAILABLE",
            "broken": "StatusCode.INTERNAL",
        },
    }[kind]
    with client(kind, running) as talk:
        for model, status in statuses.items():
            if model != "identity":
                tensor.set_shape([2])
            with pytest.raises(InferenceServerException) as caught:
                talk.infer(model, [tensor])
            assert caught.value.status() == status
            assert "secret" not in str(caught.value)
        with pytest.raises(InferenceServerException, match="unknown model"):
            talk.get_model_metadata("nobody")
        assert talk.is_server_live()  # the connection is none the worse


@pytest.mark.parametrize("grpcio", [False, True])
def test_grpc_stream(start: Start, grpcio: bool) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    tensor = grpc_client.InferInput("IN", [4], "INT32")
    tensor.set_data_from_numpy(np.arange(4, dtype=np.int32))
    with client("grpc", start(grpcio=grpcio)) as talk:
        talk.start_stream(lambda result, error: answers.put((result, error)))
        talk.async_stream_infer("repeat", [tensor], request_id="a", enable_empty_final_response=True)
        seen = [answers.get(timeout=5) for _ in range(5)]
        assert [result.as_numpy("OUT").tolist() for result, _ in seen[:4]] == [[0], [1], [2], [3]]
        assert [r.get_response().parameters["triton_final_response"].bool_param for r, _ in seen] == [
            False
        ] * 4 + [True]
        talk.async_stream_infer("full", [tensor])
        result, error = answers.get(timeout=5)
        assert result is None
        assert "maximum queue size" in str(error)
        talk.async_stream_infer("identity", [tensor])
        assert answers.get(timeout=5)[1] is None
        talk.stop_stream()


@pytest.mark.parametrize("grpcio", [False, True])
def test_a_model_of_many_answers_is_not_run_for_who_takes_one(start: Start, grpcio: bool) -> None:
    running = start(grpcio=grpcio)
    tensor = grpc_client.InferInput("IN", [4], "INT32")
    tensor.set_data_from_numpy(np.arange(4, dtype=np.int32))
    with client("grpc", running) as talk:
        with pytest.raises(InferenceServerException, match="decoupled transaction policy") as caught:
            talk.infer("repeat", [tensor])
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
        assert running.plane.requests == []


def test_deadline_and_cancellation_reach_the_request(running: Running) -> None:
    tensor = grpc_client.InferInput("INPUT0", [1], "FP32")
    tensor.set_data_from_numpy(np.zeros(1, np.float32))
    with client("grpc", running) as talk:
        with pytest.raises(InferenceServerException) as caught:
            talk.infer("slow", [tensor], client_timeout=0.3)
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        assert running.plane.cancelled.wait(5)
        request = running.plane.requests[-1]
        assert request.deadline is not None
        assert 0.2e9 < request.deadline - request.arrived <= 0.31e9  # grpcio rounds up
        running.plane.cancelled.clear()
        call = talk.async_infer("slow", [tensor], lambda result, error: None)
        while len(running.plane.requests) < 2:
            pass
        call.cancel()
        assert running.plane.cancelled.wait(5)


def test_asyncio_clients(running: Running) -> None:
    async def ask(module: Any, address: str) -> None:
        value = np.arange(16, dtype=np.float32)
        tensor = module.InferInput("INPUT0", [16], "FP32")
        tensor.set_data_from_numpy(value)
        async with module.InferenceServerClient(address) as talk:
            assert await talk.is_server_ready()
            results = await asyncio.gather(*(talk.infer("identity", [tensor]) for _ in range(50)))
            for result in results:
                np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), value)

    asyncio.run(ask(http_aio, running.http))
    asyncio.run(ask(grpc_aio, running.grpc))
