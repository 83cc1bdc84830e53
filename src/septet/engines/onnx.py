# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime as ort

from septet.config import EngineConfig
from septet.devices.device import Partition
from septet.engines.engine import Engine, thread_count
from septet.engines.model import read_onnx, require_precision
from septet.engines.pool import Pool
from septet.errors import InferenceFailed, ModelInvalid, ModelNotFound, TensorMismatch
from septet.tensor import ONNX_DTYPES, Array, Tensors, TensorSpec, objects

_FATAL = 4


class OnnxEngine(Engine):
    """One session a stream, each with its share of the threads.

    A stream of one thread runs on the thread that calls `infer`; the others' helping threads are pinned to
    the partition's cores.
    """

    precisions = ("f32", "int8")

    def __init__(self, sessions: list[ort.InferenceSession]) -> None:
        self._pool = Pool(sessions)
        self.inputs = tuple(_spec(value) for value in sessions[0].get_inputs())
        self.outputs = tuple(_spec(value) for value in sessions[0].get_outputs())
        self._names = [spec.name for spec in self.outputs]
        self._texts = [spec.name for spec in self.inputs if spec.dtype.hasobject]
        self._preset = (
            _same_batch(sessions[0])
            and not self._texts
            and all(spec.batched and not spec.dtype.hasobject for spec in self.outputs)
        )

    @classmethod
    def version(cls) -> str:
        return str(ort.__version__)

    @classmethod
    def load(cls, path: Path | None, config: EngineConfig, partition: Partition) -> Self:
        if path is None:
            raise ModelNotFound("engine 'onnx' needs a model file")
        require_precision(path, read_onnx(path).quantised, config.precision)
        share = max(1, thread_count(config, partition) // config.streams)
        try:
            return cls(
                [
                    ort.InferenceSession(
                        str(path), _options(share, _cores(partition, stream, share)), ["CPUExecutionProvider"]
                    )
                    for stream in range(config.streams)
                ]
            )
        except ModelInvalid:
            raise
        except Exception as error:
            raise ModelInvalid(f"{path}: ONNX Runtime cannot load it: {_first_line(error)}") from error

    def infer(self, batch: Tensors) -> Tensors:
        self.check(batch)
        if self._texts:
            batch = {**batch, **{name: _decoded(name, batch[name]) for name in self._texts}}
        with self._pool.slot() as session:
            try:
                return self._run(session, batch)
            except Exception as error:
                raise InferenceFailed(f"ONNX Runtime failed: {_first_line(error)}") from error

    def _run(self, session: ort.InferenceSession, batch: Tensors) -> Tensors:
        held = {name: np.ascontiguousarray(array) for name, array in batch.items()}
        if not (self._preset and self.batched):
            arrays: list[Array] = session.run(self._names, held)
            return {name: _encoded(array) for name, array in zip(self._names, arrays, strict=True)}
        binding = session.io_binding()
        for name, array in held.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        size = len(next(iter(held.values())))
        answers = {spec.name: spec.empty(size) for spec in self.outputs}
        for name, array in answers.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        session.run_with_iobinding(binding)
        return answers

    def close(self) -> None:
        self._pool.close()


def _decoded(name: str, array: Array) -> Array:
    """A ``BYTES`` tensor as ONNX Runtime takes texts: of anything but ``str`` it would take what Python prints.

    Raises TensorMismatch for what is no UTF-8.
    """
    try:
        return objects([one.decode() if isinstance(one, bytes) else str(one) for one in array.flat], array.shape)
    except UnicodeDecodeError as error:
        raise TensorMismatch(f"input '{name}': texts are UTF-8, not {error.object[:40]!r}") from None


def _encoded(array: Array) -> Array:
    """An output; its texts as ``bytes``."""
    return objects([one.encode() for one in array.flat], array.shape) if array.dtype.hasobject else array


def _options(threads: int, cores: tuple[int, ...]) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    options.use_deterministic_compute = True
    if threads > 1 and len(cores) >= threads:
        # ONNX Runtime places all but the calling thread, and counts processors from 1
        options.add_session_config_entry(
            "session.intra_op_thread_affinities", ";".join(str(core + 1) for core in cores[1:threads])
        )
    return options


def _cores(partition: Partition, stream: int, share: int) -> tuple[int, ...]:
    return partition.cores[stream * share : (stream + 1) * share]


def _spec(value: Any) -> TensorSpec:
    if value.type == "tensor(bfloat16)":
        raise ModelInvalid(f"tensor '{value.name}': from Python, ONNX Runtime takes and gives no bfloat16")
    shape = tuple(dim if isinstance(dim, int) else None for dim in value.shape)
    return TensorSpec(value.name, ONNX_DTYPES[value.type], shape)


def _same_batch(session: ort.InferenceSession) -> bool:
    """Whether all inputs and outputs call their first dimension the same, so that it is surely the batch's."""
    tensors = (*session.get_inputs(), *session.get_outputs())
    return len({tuple(value.shape[:1]) for value in tensors}) == 1


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:600]
