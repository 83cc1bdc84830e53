# SPDX-License-Identifier: Apache-2.0
"""Which operators of a model the engines know."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state

from septet.errors import ModelInvalid


def require_operators(path: Path) -> None:
    """Raise ModelInvalid, naming them, where the model at `path` has operators that ONNX Runtime does not know."""
    missing = unknown(onnx.load(path, load_external_data=False))
    if missing:
        raise ModelInvalid(
            f"{path}: has operators that ONNX Runtime {ort.__version__} does not know: {', '.join(missing)}"
        )


def unknown(model: onnx.ModelProto) -> list[str]:
    """The operators that ONNX Runtime does not know, as ``domain.Operator`` or ``Operator``, each once."""
    known = {(schema.domain, schema.name) for schema in onnxruntime_pybind11_state.get_all_operator_schema()}
    own = {(function.domain, function.name) for function in model.functions}
    found = dict.fromkeys(
        f"{domain}.{node.op_type}" if domain else node.op_type
        for node in _nodes(model.graph)
        if (domain := "" if node.domain == "ai.onnx" else node.domain) is not None
        and (domain, node.op_type) not in known | own
    )
    return list(found)


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """All nodes, those of inner graphs included."""
    found = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                found += _nodes(inner)
    return found
