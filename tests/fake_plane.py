# SPDX-License-Identifier: Apache-2.0
"""A plane without models' machinery: named functions behind the fronts, so that these are tested alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from septet.errors import ModelUnknown, QueueFull, RequestInvalid, SeptetError, Unsupported
from septet.request import Answer, Parameter, Request, Response
from septet.serving.plane import Document
from septet.serving.served import DECOUPLED
from septet.serving.server import Address, Server
from septet.stubs import model_config_pb2
from septet.tensor import Array, TensorSpec
from septet.wire.shm import Regions

FP32 = np.dtype(np.float32)


def identity(request: Request) -> dict[str, Array]:
    """OUTPUT<N> is INPUT<N>."""
    return {name.replace("INPUT", "OUTPUT"): array for name, array in request.inputs.items()}


def broken(request: Request) -> dict[str, Array]:
    """Fails as only a bug does."""
    raise ZeroDivisionError("/secret/path in a traceback")


def full(request: Request) -> dict[str, Array]:
    """Takes nothing."""
    raise QueueFull("Exceeds maximum queue size")


def scores(request: Request) -> dict[str, Array]:
    """Three classes."""
    return {"SCORES": np.array([[0.1, 0.7, 0.2]], np.float32)}


def unspeakable(request: Request) -> dict[str, Array]:
    """What JSON cannot express."""
    return {"OUTPUT0": np.array([np.nan], np.float32)}


MODELS: dict[str, Callable[[Request], dict[str, Array]]] = {
    "identity": identity,
    "broken": broken,
    "full": full,
    "scores": scores,
    "nan": unspeakable,
}


class FakePlane:
    """Answers from a thread of its own. ``slow`` waits for its parameter's seconds or until it is cancelled;
    ``repeat`` answers each element of IN by itself, as a decoupled model does, and ``endless`` the first of them
    until it is cancelled. ``held`` waits for `go_on`."""

    def __init__(self) -> None:
        self.regions = Regions()
        self.requests: list[Request] = []
        self.cancelled = threading.Event()
        self.go_on = threading.Event()
        self.loaded: list[tuple[str, Mapping[str, Parameter | bytes]]] = []
        self.closed = False
        self._ready = True

    def submit(self, request: Request, answer: Answer) -> None:
        if request.once and request.model in ("repeat", "endless"):
            answer(Response(request.model, error=Unsupported(f"'{request.model}' {DECOUPLED}")))
            return
        request.fetch()
        self.requests.append(request)
        threading.Thread(target=self._run, args=(request, answer), daemon=True).start()

    def admit(self, request: Request) -> None:
        self._known(request.model)

    def submit_all(self, asked: Sequence[tuple[Request, Answer]]) -> None:
        for request, answer in asked:
            self.submit(request, answer)

    def _run(self, request: Request, answer: Answer) -> None:
        if request.model == "slow":
            end = time.monotonic() + float(request.parameters.get("seconds", 60.0))
            while time.monotonic() < end and not request.cancelled:
                time.sleep(0.005)
            if request.cancelled:
                self.cancelled.set()
        if request.model == "held":
            self.go_on.wait(20)
        while request.model == "endless":
            element = next(iter(request.inputs.values())).reshape(-1)[:1]
            answer(Response("endless", "1", request.id, {"OUT": element}, final=False))
            time.sleep(0.01)
            if request.cancelled:
                self.cancelled.set()
                return
        if request.model == "repeat":
            for element in next(iter(request.inputs.values())).reshape(-1):
                answer(Response("repeat", "1", request.id, {"OUT": np.array([element])}, final=False))
            answer(Response("repeat", "1", request.id))
            return
        try:
            outputs = MODELS.get(request.model, identity)(request)
            if request.wanted:
                outputs = {one.name: outputs[one.name] for one in request.wanted}
            answer(Response(request.model, request.version or "1", request.id, outputs))
        except SeptetError as error:
            answer(Response(request.model, error=error))
        except Exception as error:
            answer(Response(request.model, error=error))  # type: ignore[arg-type]

    def _known(self, model: str) -> None:
        if model and model not in (*MODELS, "slow", "held", "repeat", "endless", "words"):
            raise ModelUnknown(f"Request for unknown model: '{model}' is not found")

    def live(self) -> bool:
        return True

    def ready(self) -> bool:
        return self._ready

    def retire(self) -> None:
        self._ready = False

    def model_ready(self, model: str, version: str = "") -> bool:
        self._known(model)
        return True

    def server_metadata(self) -> Document:
        return {"name": "septet", "version": "0", "extensions": ["binary_tensor_data"]}

    def model_metadata(self, model: str, version: str = "") -> Document:
        self._known(model)
        datatype = {"words": "BYTES", "repeat": "INT32", "endless": "INT32"}.get(model, "FP32")
        tensor = {
            "name": "IN" if model in ("repeat", "endless") else "INPUT0",
            "datatype": datatype,
            "shape": [-1],
        }
        return {"name": model, "versions": ["1"], "platform": "fake", "inputs": [tensor], "outputs": [tensor]}

    def model_config(self, model: str, version: str = "") -> Any:
        self._known(model)
        config = model_config_pb2.ModelConfig(name=model, backend="fake", max_batch_size=0)
        config.input.add(name="INPUT0", data_type=model_config_pb2.TYPE_FP32, dims=[-1])
        config.parameters["key"].string_value = "value"
        config.version_policy.latest.num_versions = 1
        return config

    def statistics(self, model: str = "", version: str = "") -> list[Document]:
        self._known(model)
        took = {"count": 3, "ns": 4}
        stats = {"success": took, "fail": took, "queue": took}
        return [{"name": model or "identity", "version": "1", "inference_count": 3, "inference_stats": stats}]

    def index(self, ready_only: bool) -> list[Document]:
        return [{"name": name, "version": "1", "state": "READY", "reason": ""} for name in MODELS]

    def load(self, model: str, parameters: Mapping[str, Parameter | bytes]) -> None:
        if model == "slowly":
            time.sleep(1.0)
        self.loaded.append((model, parameters))

    def unload(self, model: str, dependents: bool) -> None:
        self.loaded.append((f"-{model}", {"dependents": dependents}))

    def trace_settings(self, model: str = "", updates: Mapping[str, list[str] | None] | None = None) -> Document:
        return {"trace_level": ["OFF"], "trace_rate": "1000"} | dict(updates or {})

    def log_settings(self, updates: Mapping[str, Parameter] | None = None) -> Document:
        return {"log_info": True, "log_verbose_level": 0} | dict(updates or {})

    def labels(self, model: str, version: str, output: str) -> tuple[str, ...]:
        return ("cat", "dog")

    def raw_input(self, model: str, version: str) -> TensorSpec:
        self._known(model)
        if model == "scores":
            raise RequestInvalid("a raw request needs a model of one input")
        return TensorSpec("INPUT0", FP32, (None,))

    def metrics_text(self) -> str:
        return "# TYPE nv_inference_count counter\nnv_inference_count 3\n"

    def close(self, seconds: float) -> None:
        self.closed = True


FREE = Address("127.0.0.1", 0)


@dataclass
class Running:
    """A server that answers."""

    plane: FakePlane
    server: Server

    @property
    def http(self) -> str:
        return str(self.server.http)

    @property
    def grpc(self) -> str:
        return str(self.server.grpc)


Start = Callable[..., Running]
