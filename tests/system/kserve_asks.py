# SPDX-License-Identifier: Apache-2.0
"""Asks a server with KServe's own clients; run by an interpreter that has ``kserve``, which Septet's does not.

``kserve_asks.py HTTP_URL GRPC_HOST_PORT MODEL`` expects a model that gives FP32 ``INPUT0`` of any shape back as
``OUTPUT0``, in batches of at most 64, and prints ``agreed`` when all is as it should be.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import Any

import grpc
import httpx  # type: ignore[import-not-found]
import numpy as np
from kserve import (  # type: ignore[import-not-found]
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)
from kserve.protocol.grpc import (  # type: ignore[import-not-found]
    grpc_predict_v2_pb2,
    grpc_predict_v2_pb2_grpc,
)
from kserve.protocol.infer_type import RequestedOutput  # type: ignore[import-not-found]

SHAPE = [3, 5]
VALUES = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)


def request(model: str, values: Any = VALUES, *, binary: bool, wanted: bool = False) -> Any:
    """A request of `values`, in binary or in JSON (over gRPC: typed contents)."""
    tensor = InferInput("INPUT0", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values, binary_data=binary)
    outputs = [RequestedOutput("OUTPUT0", {"binary_data": binary})] if wanted else None
    return InferRequest(model, [tensor], request_id="seven", request_outputs=outputs)


def check(answer: Any, model: str) -> None:
    """Hold an answer against what was asked."""
    assert (answer.model_name, answer.id) == (model, "seven"), answer
    assert answer.model_version in ("1", None), answer  # its REST client does not read the version
    [output] = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("OUTPUT0", "FP32", SHAPE), output
    np.testing.assert_array_equal(output.as_numpy(), VALUES)


async def failure(call: Awaitable[Any]) -> Exception | None:
    """What `call` raises."""
    try:
        await call
    except Exception as error:
        return error
    return None


async def over_rest(url: str, model: str) -> None:
    """Health, readiness, metadata, tensors and errors over HTTP."""
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        assert await client.is_server_live(url) is True
        assert await client.is_server_ready(url) is True
        assert await client.is_model_ready(url, model) is True
        assert await client.is_model_ready(url, "nobody") is False
        for binary in (True, False):
            for wanted in (True, False):
                asked = request(model, binary=binary, wanted=wanted)
                check(await client.infer(url, asked, model_name=model), model)
        for name, values, status in (
            ("nobody", VALUES, 404),
            (model, np.zeros((65, 1), np.float32), 400),
        ):
            asked = request(name, values, binary=False)
            error = await failure(client.infer(url, asked, model_name=name))
            assert isinstance(error, httpx.HTTPStatusError), error
            assert error.response.status_code == status, error
            assert name in str(error), error
    async with httpx.AsyncClient() as plain:
        server = (await plain.get(f"{url}/v2")).json()
        assert {"name", "version", "extensions"} <= server.keys(), server
        about = (await plain.get(f"{url}/v2/models/{model}")).json()
        assert (about["name"], about["versions"]) == (model, ["1"]), about
        assert about["inputs"] == [{"name": "INPUT0", "datatype": "FP32", "shape": [-1, -1]}], about


async def over_grpc(address: str, model: str) -> None:
    """The same over gRPC, metadata by KServe's own stubs."""
    async with InferenceGRPCClient(address) as client:
        assert await client.is_server_live() is True
        assert await client.is_server_ready() is True
        assert await client.is_model_ready(model) is True
        for binary in (True, False):
            check(await client.infer(request(model, binary=binary)), model)
        for name, values, code in (
            ("nobody", VALUES, grpc.StatusCode.NOT_FOUND),
            (model, np.zeros((65, 1), np.float32), grpc.StatusCode.INVALID_ARGUMENT),
        ):
            error = await failure(client.infer(request(name, values, binary=True)))
            assert isinstance(error, grpc.RpcError), error
            assert error.code() == code, error
    async with grpc.aio.insecure_channel(address) as channel:
        stub = grpc_predict_v2_pb2_grpc.GRPCInferenceServiceStub(channel)
        about = await stub.ModelMetadata(grpc_predict_v2_pb2.ModelMetadataRequest(name=model))
        assert (about.name, list(about.versions)) == (model, ["1"]), about
        assert [(one.name, one.datatype, list(one.shape)) for one in about.inputs] == [
            ("INPUT0", "FP32", [-1, -1])
        ]
        server = await stub.ServerMetadata(grpc_predict_v2_pb2.ServerMetadataRequest())
        assert server.name, server


async def main() -> None:
    """Ask over both."""
    url, address, model = sys.argv[1:]
    await over_rest(url, model)
    await over_grpc(address, model)
    print("agreed")


if __name__ == "__main__":
    asyncio.run(main())
