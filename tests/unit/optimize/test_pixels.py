# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import septet
from networks_made import normalised_convolutions, perceptron, save
from septet.errors import ModelInvalid, UsageError
from septet.optimize.passes import outputs
from septet.optimize.pixels import Normalisation, take_pixels
from septet.tensor import Array

IMAGENET = Normalisation.read("123.68,116.78,103.94/58.4,57.1,57.4")


def images(count: int) -> list[Array]:
    draw = np.random.default_rng(3)
    return [draw.integers(0, 256, (1, 16, 16, 3), np.uint8) for _ in range(count)]


def bare(path: Path) -> Path:
    """A convolution that pads nothing."""
    constants = {"w": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)}
    nodes = [helper.make_node("Conv", ["image", "w"], ["y"], name="conv")]
    return save(path, nodes, {"image": ["N", 3, 16, 16]}, {"y": ["N", 4, 14, 14]}, constants)


@pytest.mark.parametrize(("build", "kinds"), [
    (normalised_convolutions, ["Cast", "Transpose", "Sub"]),
    (bare, ["Cast", "Transpose", "Conv"]),
])  # fmt: skip
def test_bytes_give_what_normalised_floats_gave(tmp_path: Path, build: object, kinds: list[str]) -> None:
    assert callable(build)
    source, to = build(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    assert take_pixels(source, to, IMAGENET, images(3)) < 1e-4
    model = onnx.load(to)
    assert [node.op_type for node in model.graph.node][:3] == kinds
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    (image,) = images(1)
    old = outputs(source, [{"image": IMAGENET(image)}])[0]
    new = outputs(to, [{"image": image}])[0]
    for name in old:
        np.testing.assert_allclose(new[name], old[name], rtol=1e-3, atol=1e-4)


def test_the_border_is_padded_with_the_mean_and_not_with_black(tmp_path: Path) -> None:
    source, to = normalised_convolutions(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    black = [np.zeros((1, 16, 16, 3), np.uint8)]
    assert take_pixels(source, to, IMAGENET, black) < 1e-4


def test_a_network_that_takes_no_image_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match="does not begin with one convolution"):
        take_pixels(perceptron(tmp_path / "a.onnx"), tmp_path / "b.onnx", IMAGENET, images(1))


@pytest.mark.parametrize(
    "text", ["1,2", "1,2,3/0,1,1", "a,b,c", "1,2,3/1,1,1/1,1,1", "1,2,3/inf,inf,inf", "nan,2,3"]
)
def test_what_is_no_normalisation_is_told(text: str) -> None:
    with pytest.raises(UsageError):
        Normalisation.read(text)


def test_a_users_network_is_optimised_with_pixels_for_input(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    samples = [{"image": draw.integers(0, 256, (16, 16, 3), np.uint8)} for _ in range(60)]
    found = septet.optimize(
        normalised_convolutions(tmp_path / "net.onnx"),
        data=samples,
        pixels="123.68,116.78,103.94/58.4,57.1,57.4",
        output=tmp_path / "search",
        repository=tmp_path / "models",
    )
    text = (found.entry / "config.pbtxt").read_text()
    assert 'input [ { name: "image" data_type: TYPE_UINT8 dims: [ 16, 16, 3 ] } ]' in text
