# SPDX-License-Identifier: Apache-2.0
"""Static INT8: scales from calibration, written as QuantizeLinear and DequantizeLinear around layers.

Activations are U8 with a zero point, weights S8 with a scale for each output channel: what both engines' kernels
for CPUs take. One that is written in TensorRT's way, S8 throughout, ran slower than FP32.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from septet.optimize import graph

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""What costs time, and gains by INT8."""

CONVOLUTIONS = ("Conv", "ConvTranspose")

POOLS = ("MaxPool", "GlobalAveragePool", "AveragePool")
"""What stands between layers and need not leave INT8. Sums stay out: a residual stream loses by eight bits, and
engines gain nothing by them."""

CLAMPS = ("Relu", "Clip")
"""What disappears into a layer before it whose output is quantised: the lowest and highest level do the same."""

KINDS = (*LAYERS, *POOLS, *CLAMPS)
"""All kinds of nodes whose tensors may be quantised."""


def quantise(
    model: onnx.ModelProto, found: TensorsData, kept: Collection[str], *, outputs: bool
) -> onnx.ModelProto:
    """`model`, whose shapes are known, with its layers in INT8, but those that are `kept`; it is used up.

    ONNX Runtime runs a convolution in INT8 only where its output is quantised too (`outputs`). OpenVINO's kernels
    give floats as fast as levels, so that there fewer tensors need be rounded.
    """
    kinds = KINDS if outputs else (*LAYERS, *POOLS)
    inside = graph.taken_inside(model)  # the quantiser does not look there for what it leads past a clamp
    clamps = [
        node.name
        for node in model.graph.node
        if node.op_type in CLAMPS and not inside.isdisjoint((*node.input, *node.output))
    ]
    quantiser = QDQQuantizer(
        model,
        True,  # per channel
        False,  # the whole range of eight bits: sums are taken in 32
        QuantType.QInt8,
        QuantType.QUInt8,
        found,
        [],
        [*kept, *clamps],
        list(kinds),
        {} if outputs else {"OpTypesToExcludeOutputQuantization": list(kinds)},
    )
    quantiser.quantize_model()
    done: onnx.ModelProto = quantiser.model.model
    return done
