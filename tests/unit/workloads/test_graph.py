# SPDX-License-Identifier: Apache-2.0
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from septet.tensor import Array
from septet.workloads.graph import BATCH, Graph, flops, parameters, value

DRAW = np.random.default_rng(0)


def drawn(*shape: int) -> Array:
    return DRAW.standard_normal(shape).astype(np.float32)


def run(model: onnx.ModelProto, **inputs: Array) -> Array:
    onnx.checker.check_model(model, full_check=True)
    answer: Array = ort.InferenceSession(model.SerializeToString()).run(None, inputs)[0]
    return answer


def one_layer(graph: Graph, output: str, shape: tuple[int | str, ...]) -> onnx.ModelProto:
    return graph.model([value("x", np.float32, shape)], {output: value("y", np.float32, (BATCH, *shape[1:]))})


def open_ended(graph: Graph, output: str, shape: tuple[int | str, ...], rank: int) -> onnx.ModelProto:
    free = [f"d{place}" for place in range(rank)]
    return graph.model([value("x", np.float32, shape)], {output: value("y", np.float32, free)})


def test_a_layer_norm_works_on_the_last_dimension() -> None:
    weights = {"ln.weight": drawn(5), "ln.bias": drawn(5)}
    graph = Graph("g", weights)
    model = one_layer(graph, graph.layer_norm("ln", "x", epsilon=1e-12), (BATCH, 3, 5))
    x = drawn(2, 3, 5)
    wanted = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True) * weights["ln.weight"] + weights["ln.bias"]
    np.testing.assert_allclose(run(model, x=x), wanted, atol=1e-5)


def test_gelu_is_the_exact_one() -> None:
    from scipy.special import ndtr

    graph = Graph("g", {})
    x = np.linspace(-6, 6, 101, dtype=np.float32)[None]
    answer = run(one_layer(graph, graph.gelu("gelu", "x"), (BATCH, 101)), x=x)
    np.testing.assert_allclose(answer, x * ndtr(x), atol=1e-6)


def test_relu6_is_cut_at_six() -> None:
    graph = Graph("g", {})
    x = np.array([[-1.0, 3.0, 7.0]], np.float32)
    assert run(one_layer(graph, graph.relu6("cut", "x"), (BATCH, 3)), x=x).tolist() == [[0, 3, 6]]


@pytest.mark.parametrize("lengths", [None, [4, 2]])
def test_an_lstm_takes_torchs_weights_and_stops_at_each_length(lengths: list[int] | None) -> None:
    steps, batch, inner, hidden = 4, 2, 3, 5
    weights = {
        "r.weight_ih_l0": drawn(4 * hidden, inner),
        "r.weight_hh_l0": drawn(4 * hidden, hidden),
        "r.bias_ih_l0": drawn(4 * hidden),
        "r.bias_hh_l0": drawn(4 * hidden),
    }
    x = drawn(steps, batch, inner)
    graph = Graph("g", weights)
    inputs = [value("x", np.float32, (steps, BATCH, inner))]
    feeds: dict[str, Array] = {"x": x}
    if lengths:
        inputs.append(value("lengths", np.int32, (BATCH,)))
        feeds["lengths"] = np.array(lengths, np.int32)
    output = graph.lstm("r", 0, "x", "lengths" if lengths else "")
    model = graph.model(inputs, {output: value("y", np.float32, (steps, BATCH, hidden))})
    wanted = plain_lstm(weights, x)
    for sample, length in enumerate(lengths or [steps] * batch):
        wanted[length:, sample] = 0
    np.testing.assert_allclose(run(model, **feeds), wanted, atol=1e-5)
    assert flops(model) == 2 * steps * (4 * hidden * inner + 4 * hidden * hidden)
    assert parameters(model) == sum(array.size for array in weights.values())


def plain_lstm(weights: dict[str, Array], x: Array) -> Array:
    """Gate by gate as torch's documentation defines it."""
    hidden = weights["r.weight_hh_l0"].shape[1]
    h = c = np.zeros((x.shape[1], hidden))
    outputs = []
    for step in x:
        gates = step @ weights["r.weight_ih_l0"].T + h @ weights["r.weight_hh_l0"].T
        i, f, g, o = np.split(gates + weights["r.bias_ih_l0"] + weights["r.bias_hh_l0"], 4, axis=1)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        outputs.append(h)
    return np.stack(outputs)


def test_convolutions_of_all_kinds_are_counted() -> None:
    weights = {
        "deep.weight": drawn(4, 1, 3, 3),
        "deep.bias": drawn(4),
        "up.weight": drawn(4, 2, 2, 2),
        "up.bias": drawn(2),
    }
    graph = Graph("g", weights)
    x = graph.conv("deep", "x", padding=(0, 0, 1, 1), stride=2, groups=4)
    model = open_ended(graph, graph.conv_transpose("up", x, stride=2), (BATCH, 4, 8, 8), 4)
    assert run(model, x=drawn(1, 4, 8, 8)).shape == (1, 2, 8, 8)
    assert flops(model) == 2 * (4 * 4 * 4 * 9) + 2 * (4 * 4 * 4 * 2 * 4)
    assert parameters(model) == 36 + 4 + 32 + 2


def test_matrix_products_and_free_dimensions_are_counted() -> None:
    weights = {"d.weight": drawn(7, 5), "d.bias": drawn(7)}
    graph = Graph("g", weights)
    x = graph.dense("d", "x")
    turned = graph.transpose("turn", x, (0, 2, 1))
    model = open_ended(graph, graph.node("MatMul", "square", [x, turned]), (BATCH, "length", 5), 3)
    x_value = drawn(1, 3, 5)
    y = x_value @ weights["d.weight"].T + weights["d.bias"]
    np.testing.assert_allclose(run(model, x=x_value), y @ y.transpose(0, 2, 1), rtol=1e-4)
    assert flops(model, length=3) == 2 * 3 * 5 * 7 + 2 * 3 * 3 * 7
    assert flops(model, N=2, length=3) == 2 * flops(model, length=3)
    assert parameters(model) == 35 + 7  # shapes and axes are constants


def test_an_embedding_gathers_rows() -> None:
    weights = {"e.weight": drawn(6, 2)}
    graph = Graph("g", weights)
    indices = value("i", np.int64, (BATCH, 3))
    model = graph.model([indices], {graph.embedding("e", "i"): value("y", np.float32, (BATCH, 3, 2))})
    rows = np.array([[5, 0, 5]])
    assert np.array_equal(run(model, i=rows), weights["e.weight"][rows])
