# SPDX-License-Identifier: Apache-2.0
"""Which engine stands behind Triton's backends, and how a configuration's parameters set it."""

from __future__ import annotations

from pathlib import Path

from septet.config import EngineConfig
from septet.devices.device import Partition
from septet.engines.engine import Engine, engine_class, load
from septet.engines.model import read_onnx
from septet.errors import ConfigInvalid, ModelNotFound
from septet.model_config.config import ModelConfig
from septet.model_config.platform import backend_of, backend_of_file, files_of
from septet.serving.echo import echo_engine
from septet.serving.storage import inside

ENGINES = {
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "tensorflow": "openvino",
    "pytorch": "torch",
    "null": "null",
}
"""Backend -> engine; ``python`` has a process instead."""

_THREADS = ("intra_op_thread_count", "INFERENCE_NUM_THREADS", "INTRA_OP_THREAD_COUNT")
_PRECISIONS = {"f32": "f32", "bf16": "bf16", "FP32": "f32", "BF16": "bf16"}


def find_file(config: ModelConfig, folder: Path, root: Path) -> Path | None:
    """The model's file in the folder of a version, inside of the model's folder `root`; ``None`` for a backend
    without one. Raises ModelNotFound, RequestInvalid (a name or a link that leads out, whatever is there).
    """
    names = files_of(config)
    for name in names:
        path = folder / name
        inside(path, root)
        if path.exists():
            return path
    if names:
        raise ModelNotFound(f"version {folder.name} of '{config.name}' has no file {' or '.join(names)}")
    return None


def guess_backend(folder: Path) -> str:
    """The backend of a model that says none, by the files of a version; ``""`` where none has a known name."""
    for path in sorted(folder.iterdir()):
        if backend := backend_of_file(path.name):
            return backend
    return ""


def open_engine(config: ModelConfig, path: Path | None, partition: Partition) -> Engine:
    """The engine of one instance, one call at a time.

    Raises ConfigInvalid, EngineUnavailable (which names the command that installs what is missing) and whatever
    `Engine.load` raises.
    """
    name = ENGINES[backend_of(config)]
    settings = EngineConfig(
        _precision(config, path),
        _threads(config, partition),
        pinned=False,  # instances and models share the cores, with each other and with the doors
        inputs=tuple(each.name for each in config.input),
        outputs=tuple(each.name for each in config.output),
    )
    if name == "null" and config.input:
        return echo_engine(config)
    return load(name, path, settings, partition)


def require_engine(config: ModelConfig) -> None:
    """Raise EngineUnavailable, which names the command that installs it, where a backend's engine is not here."""
    if name := ENGINES.get(backend_of(config)):
        engine_class(name)


def has_batches(config: ModelConfig) -> bool:
    """Whether the first dimension of every tensor in the model's file is the batch's."""
    ragged = config.batch_input or config.batch_output or any(each.allow_ragged_batch for each in config.input)
    return config.max_batch_size > 0 and not ragged


def _threads(config: ModelConfig, partition: Partition) -> int:
    for name in _THREADS:
        if (text := config.parameter(name)) is not None:
            if not text.isdigit() or not int(text):
                raise ConfigInvalid(f"config.pbtxt: parameters: {name} must be 1 or more, not {text!r}")
            return int(text)
    return len(partition.cores)


def _precision(config: ModelConfig, path: Path | None) -> str:
    """The precision that is asked for; in a quantised ONNX file it is that of the rest."""
    asked = config.parameter("INFERENCE_PRECISION_HINT")
    if asked is not None and asked not in _PRECISIONS:
        raise ConfigInvalid(
            f"config.pbtxt: parameters: INFERENCE_PRECISION_HINT must be f32 or bf16, not {asked!r}"
        )
    floats = _PRECISIONS[asked] if asked else "f32"
    if path is not None and path.suffix == ".onnx" and path.is_file() and read_onnx(path).quantised:
        return "int8-bf16" if floats == "bf16" else "int8"
    return floats
