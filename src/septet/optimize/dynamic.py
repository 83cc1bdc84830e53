# SPDX-License-Identifier: Apache-2.0
"""Dynamic INT8: weights are quantised beforehand, activations while the network runs. No samples are needed.

Only for matrix products and LSTMs: dynamic convolutions run several times slower than FP32
(microsoft/onnxruntime#12854).
"""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode

LAYERS = ("MatMul", "Gemm", "LSTM")


def quantise(model: onnx.ModelProto, kept: Collection[str]) -> onnx.ModelProto:
    """`model` with its matrix products and LSTMs in INT8, but those whose names are `kept`; it is used up."""
    quantiser = ONNXQuantizer(
        model,
        True,  # per channel
        False,  # the whole range of eight bits
        QuantizationMode.IntegerOps,
        False,  # dynamic
        QuantType.QInt8,
        QuantType.QUInt8,
        None,
        [],
        list(kept),
        list(LAYERS),
        {"MatMulConstBOnly": True},
    )
    quantiser.quantize_model()
    done: onnx.ModelProto = quantiser.model.model
    return done
