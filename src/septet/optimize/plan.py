# SPDX-License-Identifier: Apache-2.0
"""Plan: which candidates are worth trying for a network, on this CPU, with what is installed."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from septet.devices.cpu import Cpu
from septet.optimize import dynamic, graph, nncf, static
from septet.optimize.calibrator import CALIBRATORS
from septet.optimize.candidate import REFERENCE, Candidate, Recipe

Family = tuple[Candidate, ...]
"""Candidates that run equally fast and differ in accuracy only: the first that keeps it spares the others."""


def plan(model: onnx.ModelProto, cpu: Cpu) -> list[Family]:
    """The families to try for the prepared `model`, in order."""
    return list(_families({node.op_type for node in _weighted(model)}, cpu))


def _families(kinds: set[str], cpu: Cpu) -> Iterator[Family]:
    yield (REFERENCE,)
    yield (Candidate("openvino", "f32"),)
    if cpu.bf16:
        yield (Candidate("openvino", "bf16"),)
    if not kinds.isdisjoint(dynamic.LAYERS) and kinds.isdisjoint(static.CONVOLUTIONS):
        yield (Candidate("onnx", "int8", Recipe("dynamic")),)
    if not kinds.isdisjoint(static.LAYERS):
        for engine, outputs in (("openvino", False), ("onnx", True)):
            yield tuple(Candidate(engine, "int8", Recipe("static", name, outputs)) for name in CALIBRATORS)
        if nncf.available():
            yield (Candidate("openvino", "int8", Recipe("nncf")),)


def _weighted(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Nodes that take weights."""
    known = graph.constants(model)
    return (node for node in model.graph.node if any(name in known for name in node.input[1:]))
