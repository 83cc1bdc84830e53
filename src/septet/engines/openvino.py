# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on the CPU. Its precision is always said: left alone it computes in bf16 wherever the CPU can."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import openvino as ov

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.devices.device import Partition
from septet.engines.engine import Engine, thread_count
from septet.engines.model import read_onnx, require, require_precision
from septet.engines.pool import Pool
from septet.errors import InferenceFailed, ModelInvalid, ModelNotFound, PrecisionUnsupported
from septet.tensor import Tensors, TensorSpec

# OpenVINO reports each model that it reads to its maker, from a forked process that waits for a network. An
# engine does not phone home: without this module it does not report.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

_HINTS = {"f32": "f32", "bf16": "bf16", "int8": "f32", "int8-bf16": "bf16"}
_TYPES = {"f32": "float32", "bf16": "bfloat16"}


class OpenVinoEngine(Engine):
    """One infer request a stream, inputs shared, outputs preset where their shape is known beforehand.

    The partition decides how many threads there are; which cores they run on is OpenVINO's choice among those
    that the process may use.
    """

    precisions = ("f32", "bf16", "int8", "int8-bf16")

    def __init__(self, compiled: ov.CompiledModel, streams: int, names: set[str]) -> None:
        self._pool = Pool([compiled.create_infer_request() for _ in range(streams)])
        self._ports = {_name(port, names): port.get_any_name() for port in (*compiled.inputs, *compiled.outputs)}
        self.inputs = tuple(_spec(port, names) for port in compiled.inputs)
        self.outputs = tuple(_spec(port, names) for port in compiled.outputs)
        self._preset = all(spec.batched for spec in self.outputs)

    @classmethod
    def version(cls) -> str:
        return str(ov.get_version()).split("-")[0]

    @classmethod
    def load(cls, path: Path | None, config: EngineConfig, partition: Partition) -> Self:
        if path is None:
            raise ModelNotFound("engine 'openvino' needs a model file")
        if not path.is_dir():  # as a SavedModel is
            require(path)
        names = {*config.inputs, *config.outputs}
        if path.suffix == ".onnx":
            file = read_onnx(path)
            require_precision(path, file.quantised, config.precision)
            names |= {spec.name for spec in (*file.inputs, *file.outputs)}
        if _HINTS[config.precision] == "bf16" and not Cpu.detect().bf16:
            raise PrecisionUnsupported("this CPU does not compute in bf16: ask f32 or int8")
        core = ov.Core()
        try:
            with _readable(path) as readable:
                model = core.read_model(readable)
            compiled = core.compile_model(model, "CPU", _settings(config, partition))
        except RuntimeError as error:
            raise ModelInvalid(f"{path}: OpenVINO cannot load it: {_last_line(error)}") from error
        _require_hint(compiled, config.precision)
        return cls(compiled, config.streams, names)

    def infer(self, batch: Tensors) -> Tensors:
        self.check(batch)
        with self._pool.slot() as request:
            try:
                return self._run(request, batch)
            except RuntimeError as error:
                raise InferenceFailed(f"OpenVINO failed: {_last_line(error)}") from error

    def _run(self, request: ov.InferRequest, batch: Tensors) -> Tensors:
        # `held` keeps the memory alive that the request only points to; OpenVINO takes none that is read-only
        held = {name: np.require(array, requirements=("C", "W")) for name, array in batch.items()}
        for name, array in held.items():
            request.set_tensor(self._ports[name], ov.Tensor(array, shared_memory=True))
        if not (self._preset and self.batched):
            request.infer()
            return {spec.name: request.get_tensor(self._ports[spec.name]).data.copy() for spec in self.outputs}
        size = len(next(iter(held.values())))
        answers = {spec.name: spec.empty(size) for spec in self.outputs}
        for name, array in answers.items():
            request.set_tensor(self._ports[name], ov.Tensor(array, shared_memory=True))
        request.infer()
        return answers

    def close(self) -> None:
        self._pool.close()


@contextmanager
def _readable(path: Path) -> Iterator[Path]:
    """`path`, under a name by which OpenVINO knows a TensorFlow graph that is called as Triton calls it."""
    if path.suffix != ".graphdef":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="septet-") as folder:
        link = Path(folder, "model.pb")
        link.symlink_to(path.resolve())
        yield link


def _settings(config: EngineConfig, partition: Partition) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[config.precision],
        "NUM_STREAMS": str(config.streams),
        "INFERENCE_NUM_THREADS": thread_count(config, partition),
        "ENABLE_CPU_PINNING": config.pinned,
        "PERFORMANCE_HINT": "LATENCY" if config.streams == 1 else "THROUGHPUT",
    }


def _require_hint(compiled: ov.CompiledModel, precision: str) -> None:
    took = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if took not in (_HINTS[precision], _TYPES[_HINTS[precision]]):
        raise PrecisionUnsupported(f"OpenVINO would compute in {took} on this CPU, not in {_HINTS[precision]}")


def _name(port: Any, names: set[str]) -> str:
    """A port may have several names: one of `names` is meant, if possible. TensorFlow's end with a number."""
    have = port.get_names()
    plain = {name.removesuffix(":0") for name in have}
    return next(iter(names & have), None) or next(iter(names & plain), None) or str(port.get_any_name())


def _spec(port: Any, names: set[str]) -> TensorSpec:
    name = _name(port, names)
    if port.element_type == ov.Type.string:
        raise ModelInvalid(f"tensor '{name}' holds texts, which this engine does not take: engine 'onnx' does")
    shape = tuple(None if dim.is_dynamic else dim.get_length() for dim in port.partial_shape)
    return TensorSpec(name, np.dtype(port.element_type.to_dtype()), shape)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
