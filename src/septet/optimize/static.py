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

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""What costs time, and gains by INT8."""

CONVOLUTIONS = ("Conv", "ConvTranspose")

BETWEEN = ("Relu", "Clip", "MaxPool", "GlobalAveragePool", "AveragePool")
"""What stands between layers and need not leave INT8. Sums stay out: a residual stream loses by eight bits, and
engines gain nothing by them."""


def quantise(model: onnx.ModelProto, found: TensorsData, kept: Collection[str]) -> onnx.ModelProto:
    """`model`, whose shapes are known, with its layers in INT8, but those that are `kept`; it is used up."""
    quantiser = QDQQuantizer(
        model,
        True,  # per channel
        False,  # the whole range of eight bits: sums are taken in 32
        QuantType.QInt8,
        QuantType.QUInt8,
        found,
        [],
        list(kept),
        [*LAYERS, *BETWEEN],
        {},
    )
    quantiser.quantize_model()
    done: onnx.ModelProto = quantiser.model.model
    return done
