# SPDX-License-Identifier: Apache-2.0
import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from septet.tensor import Array
from septet.workloads.graph import flops, parameters
from septet.workloads.resnet import RESNET50, RESNET_MINI, ResNet, blocks, build, shapes, synthetic

SMALL = ResNet(blocks=(1, 2, 1, 1), width=4, classes=7, image=64)


@pytest.fixture(scope="module")
def full() -> onnx.ModelProto:
    return build(RESNET50, synthetic(RESNET50, 0))


def test_full_size_counts(full: onnx.ModelProto) -> None:
    assert parameters(full) == 25_557_032  # 25.56 M
    assert flops(full) == pytest.approx(8.18e9, rel=1e-3)


def test_there_are_fifty_layers(full: onnx.ModelProto) -> None:
    weighed = [node for node in full.graph.node if node.op_type in ("Conv", "Gemm")]
    assert len([node for node in weighed if "downsample" not in node.name]) == 50


def test_the_stride_is_in_the_three_by_three(full: onnx.ModelProto) -> None:
    strided = {
        node.name
        for node in full.graph.node
        for attribute in node.attribute
        if node.op_type == "Conv" and attribute.name == "strides" and list(attribute.ints) == [2, 2]
    }
    assert strided == {"conv1"} | {
        f"layer{stage}.0.{part}" for stage in (2, 3, 4) for part in ("conv2", "downsample.0")
    }


@pytest.mark.parametrize("net", [SMALL, RESNET_MINI])
def test_a_built_network_is_valid_and_has_the_weights_of_its_shapes(net: ResNet) -> None:
    model = build(net, synthetic(net, 1))
    onnx.checker.check_model(model, full_check=True)
    assert {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer} == shapes(net)


def test_synthetic_weights_are_seeded() -> None:
    first, again, other = synthetic(SMALL, 1), synthetic(SMALL, 1), synthetic(SMALL, 2)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["conv1.weight"], other["conv1.weight"])


def test_synthetic_activations_stay_sane(full: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(full)
    names = [f"{block.name}.relu3.out" for block in blocks(RESNET50)]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    draw = np.random.default_rng(0)
    coarse = draw.uniform(-120, 120, (2, 3, 14, 14)).astype(np.float32)
    image = coarse.repeat(16, axis=2).repeat(16, axis=3)
    logits, *activations = _run(model, image)
    for activation in (logits, *activations):
        assert 0.1 < activation.std() < 100
        assert np.isfinite(activation.astype(ml_dtypes.bfloat16).astype(np.float32)).all()
    assert np.abs(logits[0] - logits[1]).max() > 0.1


def _run(model: onnx.ModelProto, image: Array) -> list[Array]:
    session = ort.InferenceSession(model.SerializeToString())
    outputs: list[Array] = session.run(None, {"image": image})
    return outputs
