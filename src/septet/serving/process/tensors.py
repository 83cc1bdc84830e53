# SPDX-License-Identifier: Apache-2.0
"""``pb_utils``: tensors, requests, responses and errors, as a Python model of Triton's knows them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from septet.tensor import KSERVE_NAMES, LENGTH, Array, from_raw, to_raw

TRITONSERVER_MEMORY_CPU = 1
TRITONSERVER_MEMORY_GPU = 2


class TritonModelException(Exception):
    """Triton's exception for whatever goes wrong between a model and the server."""


class TritonError:
    """An error as a response carries it."""

    UNKNOWN = "UNKNOWN"
    INTERNAL = "INTERNAL"
    NOT_FOUND = "NOT_FOUND"
    INVALID_ARG = "INVALID_ARG"
    UNAVAILABLE = "UNAVAILABLE"
    UNSUPPORTED = "UNSUPPORTED"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    CANCELLED = "CANCELLED"

    def __init__(self, message: str, code: str = INTERNAL) -> None:
        self._message = str(message)
        self._code = code

    def message(self) -> str:
        """What went wrong."""
        return self._message

    def code(self) -> str:
        """One of the class's codes."""
        return self._code

    def __str__(self) -> str:
        return self._message


class Tensor:
    """A named array in the memory of the CPU."""

    def __init__(self, name: str, array: Array) -> None:
        if not isinstance(array, np.ndarray):
            raise TritonModelException(f"tensor '{name}' must be a numpy array, not {type(array).__name__}")
        if array.dtype.kind not in "OSU" and array.dtype not in KSERVE_NAMES:
            raise TritonModelException(f"tensor '{name}': there is no datatype for {array.dtype}")
        try:
            name.encode()
        except (AttributeError, UnicodeEncodeError):
            raise TritonModelException(f"{name!r} cannot be the name of a tensor") from None
        self._name = name
        self._array = array

    def name(self) -> str:
        """The tensor's name."""
        return self._name

    def as_numpy(self) -> Array:
        """The array itself."""
        return self._array

    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self._array.shape

    def triton_dtype(self) -> str:
        """Its datatype by Triton's name in a configuration, ``TYPE_FP32``."""
        name = "BYTES" if self._array.dtype.kind in "OSU" else KSERVE_NAMES[self._array.dtype]
        return f"TYPE_{'STRING' if name == 'BYTES' else name}"

    def is_cpu(self) -> bool:
        """Always."""
        return True

    def memory_type(self) -> int:
        """That of the CPU."""
        return TRITONSERVER_MEMORY_CPU

    def memory_type_id(self) -> int:
        """The first."""
        return 0

    @classmethod
    def from_numpy(cls, name: str, array: Array) -> Tensor:
        """The same as making one."""
        return cls(name, array)

    @classmethod
    def from_dlpack(cls, name: str, capsule: Any) -> Tensor:
        """A tensor of what another library holds in the memory of the CPU."""
        if not hasattr(capsule, "__dlpack__"):
            raise TritonModelException("from_dlpack needs an object with __dlpack__, not a bare capsule")
        return cls(name, np.from_dlpack(capsule))

    def to_dlpack(self) -> Any:
        """A capsule for another library."""
        return self._array.__dlpack__()

    def __dlpack__(self, *, stream: Any = None, **ignored: Any) -> Any:
        return self._array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


class PreferredMemory:
    """Where a request made by a model would like its outputs; here that is always the CPU's memory."""

    def __init__(self, memory_type: int, memory_type_id: int = 0) -> None:
        if memory_type != TRITONSERVER_MEMORY_CPU:
            raise TritonModelException("there is no GPU memory here")
        self.memory_type, self.memory_type_id = memory_type, memory_type_id


class InferenceResponse:
    """Tensors, or an error."""

    def __init__(
        self,
        output_tensors: Sequence[Tensor] = (),
        error: TritonError | None = None,
        parameters: Mapping[str, Any] | str | None = None,
    ) -> None:
        if any(not isinstance(each, Tensor) for each in output_tensors):
            raise TritonModelException("output_tensors must be Tensor objects")
        self._outputs = list(output_tensors)
        self._error = error
        self.given_parameters = json.loads(parameters) if isinstance(parameters, str) else dict(parameters or {})

    def output_tensors(self) -> list[Tensor]:
        """What was computed."""
        return self._outputs

    def has_error(self) -> bool:
        """Whether it is an error."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """The error, where there is one."""
        return self._error

    def parameters(self) -> str:
        """The response's parameters as JSON."""
        return json.dumps(self.given_parameters)


def get_input_tensor_by_name(request: Any, name: str) -> Tensor | None:
    """The input of that name, or ``None``."""
    return next((each for each in request.inputs() if each.name() == name), None)


def get_output_tensor_by_name(response: InferenceResponse, name: str) -> Tensor | None:
    """The output of that name, or ``None``."""
    return next((each for each in response.output_tensors() if each.name() == name), None)


def get_input_config_by_name(model_config: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """What the configuration says of an input, or ``None``."""
    return _named(model_config.get("input", ()), name)


def get_output_config_by_name(model_config: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """What the configuration says of an output, or ``None``."""
    return _named(model_config.get("output", ()), name)


def _named(tensors: Sequence[dict[str, Any]], name: str) -> dict[str, Any] | None:
    return next((each for each in tensors if each.get("name") == name), None)


_NUMPY: dict[str, type] = {
    "TYPE_BOOL": np.bool_,
    "TYPE_INT8": np.int8,
    "TYPE_INT16": np.int16,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_UINT8": np.uint8,
    "TYPE_UINT16": np.uint16,
    "TYPE_UINT32": np.uint32,
    "TYPE_UINT64": np.uint64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_FP64": np.float64,
    "TYPE_STRING": np.object_,
}


def triton_string_to_numpy(data_type: str) -> type | None:
    """numpy's type for ``TYPE_FP32``; ``None`` where it has none."""
    return _NUMPY.get(data_type)


def numpy_to_triton_type(dtype: type) -> str | None:
    """``TYPE_FP32`` for numpy's type."""
    kind = np.dtype(dtype)
    return (
        "TYPE_STRING" if kind.kind in "OSU" else next((n for n, each in _NUMPY.items() if each == kind.type), None)
    )


def serialize_byte_tensor(array: Array) -> Array:
    """The elements of a BYTES tensor one after the other, each with its length before it."""

    return np.frombuffer(bytes(to_raw(array)), np.uint8)


def deserialize_bytes_tensor(encoded: bytes) -> Array:
    """The BYTES elements in what `serialize_byte_tensor` wrote."""

    count, position = 0, 0
    while position < len(encoded):
        position += LENGTH.size + LENGTH.unpack_from(encoded, position)[0]
        count += 1
    return from_raw(encoded, np.dtype(np.object_), (count,))
