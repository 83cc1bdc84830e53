# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from networks_made import normalised_convolutions, perceptron, save, vectors
from septet.optimize import folding, graph, trimming
from septet.optimize.passes import Pass, apply, outputs, passes
from septet.tensor import Tensors


@pytest.fixture
def images() -> list[Tensors]:
    draw = np.random.default_rng(0)
    return [{"image": draw.standard_normal((2, 3, 16, 16)).astype(np.float32)} for _ in range(3)]


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_folding_leaves_layers_only_and_changes_nothing(tmp_path: Path, images: list[Tensors]) -> None:
    source, to = normalised_convolutions(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    done = apply(source, to, images, passes(None, largest_only=False))
    assert {one.name: one.count for one in done} == {"constants": 1, "identities": 1, "batch normalisation": 2}
    assert all(one.stays and one.change < 1e-5 for one in done)
    assert kinds(to) == [
        "Conv",
        "Relu",
        "Conv",
        "Relu",
        "Mul",
        "GlobalAveragePool",
        "Flatten",
        "MatMul",
        "Softmax",
    ]
    for before, after in zip(outputs(source, images), outputs(to, images), strict=True):
        np.testing.assert_allclose(before["class"], after["class"], rtol=1e-4, atol=1e-6)


def test_normalisation_stays_where_the_layers_output_is_wanted_elsewhere(tmp_path: Path) -> None:
    model = onnx.load(normalised_convolutions(tmp_path / "a.onnx"))
    model.graph.output.append(helper.make_tensor_value_info("c0", onnx.TensorProto.FLOAT, ["N", 16, 16, 16]))
    assert folding.fold_normalisation(model) == 1
    assert {"c0", "b0"} <= set(graph.producers(model))


def test_a_transposed_convolution_takes_normalisation_too(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    constants = {"w": draw.standard_normal((4, 6, 2, 2)).astype(np.float32), "b": np.ones(6, np.float32)}
    for word in ("gamma", "beta", "mean", "variance"):
        constants[word] = draw.uniform(0.5, 2, 6).astype(np.float32)
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w", "b"], ["c"], name="up", strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "variance"], ["y"], name="norm"),
    ]
    shape: list[int | str] = ["N", 4, 5, 5]
    source = save(tmp_path / "a.onnx", nodes, {"x": shape}, {"y": ["N", 6, 10, 10]}, constants)
    feeds = [{"x": draw.standard_normal((1, 4, 5, 5)).astype(np.float32)}]
    (done,) = apply(source, tmp_path / "b.onnx", feeds, passes(None, largest_only=False))
    assert done.stays
    assert kinds(tmp_path / "b.onnx") == ["ConvTranspose"]


def test_softmax_goes_only_where_the_largest_counts(tmp_path: Path, images: list[Tensors]) -> None:
    source = normalised_convolutions(tmp_path / "a.onnx")
    apply(source, tmp_path / "all.onnx", images, passes(None, largest_only=False))
    apply(source, tmp_path / "largest.onnx", images, passes(None, largest_only=True))
    assert "Softmax" in kinds(tmp_path / "all.onnx")
    assert "Softmax" not in kinds(tmp_path / "largest.onnx")
    before, after = outputs(source, images), outputs(tmp_path / "largest.onnx", images)
    for one, other in zip(before, after, strict=True):
        assert (one["class"].argmax(axis=1) == other["class"].argmax(axis=1)).all()


def test_a_softmax_over_another_axis_stays(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="r"),
        helper.make_node("Softmax", ["r"], ["y"], name="s", axis=2),
    ]
    shape: list[int | str] = ["N", 3, 4]
    model = onnx.load(save(tmp_path / "a.onnx", nodes, {"x": shape}, {"y": shape}, {}))
    assert trimming.drop_softmax(model) == 0


def test_outputs_that_nobody_reads_go_with_what_leads_to_them(tmp_path: Path, images: list[Tensors]) -> None:
    model = onnx.load(normalised_convolutions(tmp_path / "a.onnx"))
    model.graph.output.append(helper.make_tensor_value_info("r0", onnx.TensorProto.FLOAT, ["N", 16, 16, 16]))
    onnx.save(model, tmp_path / "two.onnx")
    done = apply(tmp_path / "two.onnx", tmp_path / "one.onnx", images, passes(frozenset({"r0"}), False))
    assert done[0].stays
    assert kinds(tmp_path / "one.onnx") == ["Conv", "Relu"]


def test_a_pass_that_changes_outputs_is_undone(tmp_path: Path) -> None:
    def spoil(model: onnx.ModelProto) -> int:
        weight = graph.constants(model)["w0"]
        weight.CopyFrom(onnx.numpy_helper.from_array(graph.array(weight) * 1.01, "w0"))
        return 1

    def ruin(model: onnx.ModelProto) -> int:
        model.graph.node[0].input[0] = "nothing"
        return 1

    source = perceptron(tmp_path / "a.onnx")
    feeds = [{"x": sample["x"][None]} for sample in vectors(3)]
    done = apply(source, tmp_path / "b.onnx", feeds, [Pass("spoil", spoil), Pass("ruin", ruin)])
    assert [one.stays for one in done] == [False, False]
    assert done[0].change > 1e-3
    assert done[1].change == float("inf")
    for before, after in zip(outputs(source, feeds), outputs(tmp_path / "b.onnx", feeds), strict=True):
        np.testing.assert_array_equal(before["scores"], after["scores"])


def test_weights_that_no_node_takes_stay(tmp_path: Path, images: list[Tensors]) -> None:
    model = onnx.load(normalised_convolutions(tmp_path / "a.onnx"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "decoder"))
    onnx.save(model, tmp_path / "with.onnx")
    apply(tmp_path / "with.onnx", tmp_path / "b.onnx", images, passes(None, largest_only=False))
    assert "decoder" in graph.constants(onnx.load(tmp_path / "b.onnx"))


def test_weights_that_lie_outside_are_read_and_nodes_are_named_apart(tmp_path: Path) -> None:
    source = perceptron(tmp_path / "a.onnx")
    model = onnx.load(source)
    for node in model.graph.node:
        node.name = "same"
    onnx.save(model, tmp_path / "out.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    read = graph.read(tmp_path / "out.onnx")
    assert len({node.name for node in read.graph.node}) == len(read.graph.node)
    np.testing.assert_array_equal(
        graph.array(graph.constants(read)["w1"]), graph.array(graph.constants(onnx.load(source))["w1"])
    )
    assert [path.name for path in graph.files(tmp_path / "out.onnx")] == ["out.onnx", "w.bin"]


def test_tables_that_stay_outside_are_linked_and_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "OUTSIDE", 0)
    for name in ("from", "to"):
        (tmp_path / name).mkdir()
    model = onnx.load(perceptron(tmp_path / "a.onnx"))
    source, to = tmp_path / "from" / "net.onnx", tmp_path / "to" / "net.onnx"
    onnx.save(model, source, save_as_external_data=True, location="tables.bin", size_threshold=0)
    feeds = [{"x": sample["x"][None]} for sample in vectors(2)]
    apply(source, to, feeds, [*passes(None, largest_only=False), Pass("nothing", lambda model: 1)])
    assert (tmp_path / "to" / "tables.bin").samefile(tmp_path / "from" / "tables.bin")
    assert [path.name for path in graph.files(to)] == ["net.onnx", "tables.bin"]
    for before, after in zip(outputs(source, feeds), outputs(to, feeds), strict=True):
        np.testing.assert_array_equal(before["scores"], after["scores"])
