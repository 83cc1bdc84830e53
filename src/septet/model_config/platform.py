# SPDX-License-Identifier: Apache-2.0
"""Triton's names: backends, platforms, and the files that a model of each lies in."""

from __future__ import annotations

from septet.model_config.config import ModelConfig

PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "tensorflow_savedmodel": "openvino",
    "tensorflow_graphdef": "openvino",
    "ensemble": "ensemble",
}
"""Platform -> the backend that runs it here."""

BACKENDS = {
    "onnxruntime": ("model.onnx",),
    "openvino": ("model.xml", "model.onnx", "model.savedmodel", "model.graphdef", "model.tflite"),
    "tensorflow": ("model.savedmodel", "model.graphdef"),
    "pytorch": ("model.pt", "model.pt2"),
    "python": ("model.py",),
    "null": (),
    "ensemble": (),
}
"""Backend -> the names of its model file, looked for in this order."""

_BY_FILE = {
    "model.onnx": "onnxruntime",
    "model.xml": "openvino",
    "model.tflite": "openvino",
    "model.savedmodel": "tensorflow",
    "model.graphdef": "tensorflow",
    "model.pt": "pytorch",
    "model.pt2": "pytorch",
    "model.py": "python",
}


def backend_of(config: ModelConfig) -> str:
    """The backend of a model by its configuration, or ``""`` where none is said or known."""
    backend = config.backend or PLATFORMS.get(config.platform, config.platform)
    return backend if backend in BACKENDS else ""


def backend_of_file(name: str) -> str:
    """The backend that a file of Triton's default name belongs to, or ``""``."""
    return _BY_FILE.get(name, "")


def platform_of(backend: str, file: str) -> str:
    """Triton's platform for a backend and a model file's name, or ``""`` where it has none."""
    if backend == "onnxruntime":
        return "onnxruntime_onnx"
    if backend == "ensemble":
        return "ensemble"
    if backend == "pytorch":
        return "pytorch_libtorch"
    if backend == "tensorflow":
        return "tensorflow_savedmodel" if file.endswith(".savedmodel") else "tensorflow_graphdef"
    return ""


def files_of(config: ModelConfig) -> tuple[str, ...]:
    """The names under which a model's file may lie in the folder of a version."""
    if config.default_model_filename:
        return (config.default_model_filename,)
    if config.platform == "tensorflow_savedmodel":
        return ("model.savedmodel",)
    if config.platform == "tensorflow_graphdef":
        return ("model.graphdef",)
    return BACKENDS.get(backend_of(config), ())
