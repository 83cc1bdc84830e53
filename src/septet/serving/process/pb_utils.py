# SPDX-License-Identifier: Apache-2.0
"""The module that a Python model of Triton's imports as ``triton_python_backend_utils``.

It is there in a model's process only, where `septet.serving.process.child` puts it under that name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from septet.serving.process.completion import ModelConfig
from septet.serving.process.control import load_model, unload_model
from septet.serving.process.metrics import Metric, MetricFamily
from septet.serving.process.requests import (
    HOST,
    TRITONSERVER_REQUEST_FLAG_SEQUENCE_END,
    TRITONSERVER_REQUEST_FLAG_SEQUENCE_START,
    TRITONSERVER_RESPONSE_COMPLETE_FINAL,
    InferenceRequest,
    InferenceResponseSender,
)
from septet.serving.process.tensors import (
    TRITONSERVER_MEMORY_CPU,
    TRITONSERVER_MEMORY_GPU,
    InferenceResponse,
    PreferredMemory,
    Tensor,
    TritonError,
    TritonModelException,
    deserialize_bytes_tensor,
    get_input_config_by_name,
    get_input_tensor_by_name,
    get_output_config_by_name,
    get_output_tensor_by_name,
    numpy_to_triton_type,
    serialize_byte_tensor,
    triton_string_to_numpy,
)

__all__ = [
    "TRITONSERVER_MEMORY_CPU",
    "TRITONSERVER_MEMORY_GPU",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_END",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_START",
    "TRITONSERVER_RESPONSE_COMPLETE_FINAL",
    "InferenceRequest",
    "InferenceResponse",
    "InferenceResponseSender",
    "Logger",
    "Metric",
    "MetricFamily",
    "ModelConfig",
    "PreferredMemory",
    "Tensor",
    "TritonError",
    "TritonModelException",
    "deserialize_bytes_tensor",
    "get_input_config_by_name",
    "get_input_tensor_by_name",
    "get_model_dir",
    "get_output_config_by_name",
    "get_output_tensor_by_name",
    "is_model_ready",
    "load_model",
    "numpy_to_triton_type",
    "serialize_byte_tensor",
    "triton_string_to_numpy",
    "unload_model",
    "using_decoupled_model_transaction_policy",
]

MODEL_DIR: list[str] = []
"""The folder of the version that runs here, once the process is set up."""


def get_model_dir() -> str:
    """The folder of the version that runs in this process."""
    return MODEL_DIR[0]


def using_decoupled_model_transaction_policy(model_config: Mapping[str, Any]) -> bool:
    """Whether the configuration says that the model is decoupled."""
    return bool(model_config.get("model_transaction_policy", {}).get("decoupled", False))


def is_model_ready(model_name: str, model_version: str = "") -> bool:
    """Whether another model of the server is ready."""
    return HOST[0].caller.ready(str(model_name), str(model_version))


class Logger:
    """The server's log."""

    INFO, WARNING, ERROR, VERBOSE = logging.INFO, logging.WARNING, logging.ERROR, logging.DEBUG
    _LOG = logging.getLogger("septet.model")

    @classmethod
    def log(cls, message: str, level: int = logging.INFO) -> None:
        """Log a message."""
        cls._LOG.log(level, "%s", message)

    @classmethod
    def log_info(cls, message: str) -> None:
        """Log what is worth knowing."""
        cls.log(message, cls.INFO)

    @classmethod
    def log_warn(cls, message: str) -> None:
        """Log what may be wrong."""
        cls.log(message, cls.WARNING)

    @classmethod
    def log_error(cls, message: str) -> None:
        """Log what is wrong."""
        cls.log(message, cls.ERROR)

    @classmethod
    def log_verbose(cls, message: str) -> None:
        """Log what helps to find a fault."""
        cls.log(message, cls.VERBOSE)
