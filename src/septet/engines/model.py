# SPDX-License-Identifier: Apache-2.0
"""Look at a model file before an engine gets it: is it whole, what goes in and out, is it quantised."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from septet.errors import ModelInvalid, ModelNotFound, PrecisionUnsupported
from septet.tensor import TensorSpec

_QUANTISED = re.compile(r"QuantizeLinear|DequantizeLinear|QLinear|.*Integer$|DynamicQuantize")
_BYTES = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


@dataclass(frozen=True)
class OnnxFile:
    """What an ONNX file says of itself."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    quantised: bool


def read_onnx(path: Path) -> OnnxFile:
    """Read the graph of an ONNX file, without data that lies outside of it.

    Raises ModelNotFound, ModelInvalid (empty, truncated, not ONNX, without inputs or outputs).
    """
    require(path)
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (DecodeError, ValueError, OSError) as error:
        raise ModelInvalid(f"{path}: not a readable ONNX file (corrupt or truncated)") from error
    constants = {tensor.name for tensor in graph.initializer}
    inputs = tuple(_spec(value) for value in graph.input if value.name not in constants)
    outputs = tuple(_spec(value) for value in graph.output)
    if not inputs or not outputs:
        raise ModelInvalid(f"{path}: an ONNX file without inputs or outputs")
    return OnnxFile(inputs, outputs, _quantised(graph))


def _quantised(graph: onnx.GraphProto) -> bool:
    """Whether nodes quantise, or weights are stored in 8 bits."""
    weights = any(tensor.data_type in _BYTES and len(tensor.dims) > 1 for tensor in graph.initializer)
    return weights or any(_QUANTISED.match(node.op_type) for node in graph.node)


def require(path: Path) -> None:
    """Raise ModelNotFound unless `path` is a file, ModelInvalid if it is empty."""
    if not path.is_file():
        raise ModelNotFound(f"{path}: no such model file")
    if path.stat().st_size == 0:
        raise ModelInvalid(f"{path}: the model file is empty")


def require_precision(path: Path, quantised: bool, precision: str) -> None:
    """Raise PrecisionUnsupported where `precision` would be a wrong name for what the file computes in."""
    wanted = precision.startswith("int8")
    if wanted and not quantised:
        raise PrecisionUnsupported(f"{path}: not a quantised file; quantise it first, or ask f32 or bf16")
    if not wanted and quantised:
        raise PrecisionUnsupported(f"{path}: a quantised file; ask precision int8, not {precision}")


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return TensorSpec(value.name, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape)
