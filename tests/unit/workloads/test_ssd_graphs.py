# SPDX-License-Identifier: Apache-2.0
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from septet.tensor import Array
from septet.workloads import mobilenet, resnet34, ssd_mobilenet, ssd_resnet34
from septet.workloads.graph import flops, parameters
from septet.workloads.mobilenet import SSD_MOBILENET, SSD_MOBILENET_MINI, MobileNet
from septet.workloads.resnet34 import SSD_RESNET34, SSD_RESNET34_MINI

SMALL = MobileNet(image=75, classes=4, width=1 / 16)
MINIS = [(mobilenet, SMALL), (mobilenet, SSD_MOBILENET_MINI), (resnet34, SSD_RESNET34_MINI)]


@pytest.fixture(scope="module")
def full_mobilenet() -> onnx.ModelProto:
    return mobilenet.build(SSD_MOBILENET, mobilenet.synthetic(SSD_MOBILENET, ssd_mobilenet.SEED))


@pytest.fixture(scope="module")
def full_resnet34() -> onnx.ModelProto:
    return resnet34.build(SSD_RESNET34, resnet34.synthetic(SSD_RESNET34, 0))


def test_mobilenet_counts(full_mobilenet: onnx.ModelProto) -> None:
    assert parameters(full_mobilenet) == 6_819_839
    assert flops(full_mobilenet) == pytest.approx(2.474e9, rel=1e-3)


def test_mobilenet_has_the_parameters_of_the_reference(full_mobilenet: onnx.ModelProto) -> None:
    """6.80 M is the count of the reference's PyTorch port, in which normalisation is folded away: its scales and
    shifts are no parameters there, but for the biases of the extra layers."""
    norms = sum(
        tensor.dims[0]
        for tensor in full_mobilenet.graph.initializer
        if tensor.name.endswith(("norm.weight", "norm.bias"))
    )
    biases = sum(middle + outgoing for middle, outgoing in mobilenet.EXTRAS)
    assert parameters(full_mobilenet) - norms + biases == 6_796_223


def test_resnet34_counts(full_resnet34: onnx.ModelProto) -> None:
    assert parameters(full_resnet34) == 19_972_534
    assert flops(full_resnet34) == pytest.approx(432.8e9, rel=1e-3)


def test_mobilenet_is_depthwise_separable(full_mobilenet: onnx.ModelProto) -> None:
    nodes = {node.name: node for node in full_mobilenet.graph.node if node.op_type == "Conv"}
    deep = [name for name in nodes if name.endswith("depthwise")]
    assert len(deep) == 13
    assert attribute(nodes["conv13.depthwise"], "group") == 1_024


def test_strides_pad_as_tensorflow_does(full_mobilenet: onnx.ModelProto) -> None:
    nodes = {node.name: node for node in full_mobilenet.graph.node if node.op_type == "Conv"}
    assert attribute(nodes["conv0"], "pads") == [0, 0, 1, 1]  # 300 is even: all of it after
    assert attribute(nodes["conv4.depthwise"], "pads") == [1, 1, 1, 1]  # 75 -> 38
    assert attribute(nodes["conv6.depthwise"], "pads") == [0, 0, 1, 1]  # 38 -> 19
    assert attribute(nodes["conv7.depthwise"], "pads") == [1, 1, 1, 1]  # stride 1
    assert attribute(nodes["extra0.3x3"], "pads") == [0, 0, 1, 1]  # 10 -> 5
    assert attribute(nodes["extra1.3x3"], "pads") == [1, 1, 1, 1]  # 5 -> 3


def test_resnet34_strides(full_resnet34: onnx.ModelProto) -> None:
    strides = {
        node.name: attribute(node, "strides")[0] for node in full_resnet34.graph.node if node.op_type == "Conv"
    }
    assert {name for name, stride in strides.items() if stride == 3} == {
        f"head{place}.{part}" for place in range(6) for part in ("codes", "logits")
    }
    assert {name for name, stride in strides.items() if stride == 2} == {
        "conv1", "layer2.0.conv1", "layer2.0.downsample.0", *(f"extra{place}.conv2" for place in range(4))
    }  # fmt: skip


def attribute(node: onnx.NodeProto, name: str) -> Any:
    return next(onnx.helper.get_attribute_value(each) for each in node.attribute if each.name == name)


@pytest.mark.parametrize(("graph", "net"), MINIS)
def test_a_built_network_is_valid_and_has_the_weights_of_its_shapes(graph: ModuleType, net: Any) -> None:
    model = graph.build(net, graph.synthetic(net, 1))
    onnx.checker.check_model(model, full_check=True)
    found = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    assert {name: dims for name, dims in found.items() if not name.endswith(".constant")} == graph.shapes(net)
    image = np.zeros((2, 3, net.image, net.image), np.float32)
    session = ort.InferenceSession(model.SerializeToString())
    for output, array in zip(session.get_outputs(), session.run(None, {"image": image}), strict=True):
        assert array.shape[1:] == tuple(output.shape[1:])


@pytest.mark.parametrize(("graph", "net"), MINIS)
def test_synthetic_weights_are_seeded(graph: ModuleType, net: Any) -> None:
    first, again, other = (graph.synthetic(net, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["head0.codes.weight"], other["head0.codes.weight"])


def picture(side: int, seed: int) -> Array:
    coarse = np.random.default_rng(seed).uniform(-1.5, 1.5, (1, 3, side // 20, side // 20)).astype(np.float32)
    return coarse.repeat(20, axis=2).repeat(20, axis=3)


def test_synthetic_mobilenet_finds_about_as_much_as_in_photographs(full_mobilenet: onnx.ModelProto) -> None:
    session = ort.InferenceSession(full_mobilenet.SerializeToString())
    net = ssd_mobilenet.net_of(SSD_MOBILENET)
    answers = []
    for seed in (0, 1):
        codes, scores = session.run(None, {"image": picture(300, seed) / 1.5})
        assert 0.2 < codes.std() < 3
        assert np.isfinite(codes.astype(ml_dtypes.bfloat16).astype(np.float32)).all()
        assert 10 < (scores[..., 1:] > 0.1).sum() < 1_000
        boxes, _, classes = net.choose(scores[0], codes[0], net.priors)
        assert len(boxes) == 100
        assert len(set(classes.tolist())) > 3
        answers.append(boxes)
    assert not np.array_equal(answers[0], answers[1])


def test_synthetic_resnet34_finds_about_as_much_as_in_photographs() -> None:
    """The full network at a third of its size: 7 s less than at 1200 × 1200."""
    from dataclasses import replace

    small = replace(SSD_RESNET34, image=400)
    session = ort.InferenceSession(
        resnet34.build(small, resnet34.synthetic(small, ssd_resnet34.SEED)).SerializeToString()
    )
    net = ssd_resnet34.net_of(small)
    codes, scores = session.run(None, {"image": picture(400, 0)})
    assert 0.2 < codes.std() < 5
    assert scores.sum(axis=2) == pytest.approx(1, abs=1e-4)
    assert 1e-5 < (scores[..., 1:] > 0.05).mean() < 1e-2
    boxes, _, _ = net.choose(scores[0], codes[0], net.priors)
    assert 10 <= len(boxes) <= 200
