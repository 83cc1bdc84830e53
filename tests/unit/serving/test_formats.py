# SPDX-License-Identifier: Apache-2.0
"""Models of every format that a repository of Triton's may hold, by its platforms' names."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
from onnx import TensorProto, helper

from saved_models import frozen_graph, saved_model, tflite
from septet.errors import LoadFailed, Status
from septet.request import Request
from septet.serving.core import Core
from septet.tensor import objects
from septet.wire.shm import Regions
from serving_made import Answers, ask, model, onnx_file, row

TORCH = find_spec("torch") is not None

Open = Callable[[], Core]


@pytest.fixture
def open_(tmp_path: Path) -> Iterator[Open]:
    cores: list[Core] = []

    def start() -> Core:
        cores.append(Core([tmp_path], regions=Regions()))
        cores[-1].start()
        return cores[-1]

    yield start
    for core in cores:
        core.close(10)


def test_openvino_serves_onnx_and_its_own_format(open_: Open, tmp_path: Path) -> None:
    model(tmp_path, "onnx", 'backend: "openvino"')
    onnx_file(tmp_path / "onnx" / "1" / "model.onnx", 3)
    model(tmp_path, "ir", None)
    ov.save_model(
        ov.Core().read_model(tmp_path / "onnx" / "1" / "model.onnx"), tmp_path / "ir" / "1" / "model.xml"
    )
    core = open_()
    for name in ("onnx", "ir"):
        assert core.model_config(name).backend == "openvino"
        assert core.model_config(name).max_batch_size == 4
        assert np.array_equal(ask(core, name, {"x": row(2, 3)}).outputs["y"], row(6, 3))


def test_a_frozen_graph_of_tensorflow_is_served(open_: Open, tmp_path: Path) -> None:
    text = """
    platform: "tensorflow_graphdef"
    max_batch_size: 8
    input { name: "x" data_type: TYPE_FP32 dims: 4 }
    output { name: "y" data_type: TYPE_FP32 dims: 4 }
    """
    model(tmp_path, "frozen", text)
    frozen_graph(tmp_path / "frozen" / "1" / "model.graphdef", 3)
    core = open_()
    assert core.model_metadata("frozen")["platform"] == "tensorflow_graphdef"
    assert np.array_equal(ask(core, "frozen", {"x": row(2, 3)}).outputs["y"], row(6, 3))


@pytest.mark.parametrize(
    "text",
    [
        None,
        """
        platform: "tensorflow_savedmodel"
        max_batch_size: 8
        input { name: "image" data_type: TYPE_FP32 dims: 4 }
        output { name: "score" data_type: TYPE_FP32 dims: 4 }
        """,
    ],
    ids=["without", "with"],
)
def test_a_saved_model_is_served_by_the_names_of_its_signature(
    open_: Open, tmp_path: Path, text: str | None
) -> None:
    model(tmp_path, "saved", text)
    saved_model(tmp_path / "saved" / "1" / "model.savedmodel", 3)
    core = open_()
    assert core.model_metadata("saved")["platform"] == "tensorflow_savedmodel"
    assert np.array_equal(ask(core, "saved", {"image": row(2, 3)}).outputs["score"], row(6, 3))


def test_a_tflite_model_is_served(open_: Open, tmp_path: Path) -> None:
    model(tmp_path, "lite", None)
    tflite(tmp_path / "lite" / "1" / "model.tflite", 3)
    core = open_()
    assert core.model_config("lite").backend == "openvino"
    assert np.array_equal(ask(core, "lite", {"x": row(2)}).outputs["y"], row(6))


def test_onnx_data_outside_the_models_folder_is_refused(tmp_path: Path, open_: Open) -> None:
    path = onnx_file(tmp_path / "models" / "m" / "1" / "model.onnx")
    loaded = onnx.load(path)
    (tmp_path / "secret").write_bytes(np.array(2, np.float32).tobytes())
    for place in ("../../../secret", str(tmp_path / "secret")):
        [tensor] = loaded.graph.initializer
        tensor.ClearField("raw_data")
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place)
        path.write_bytes(loaded.SerializeToString())
        for backend in ("onnxruntime", "openvino"):
            (path.parents[1] / "config.pbtxt").write_text(f'backend: "{backend}"')
            with pytest.raises(LoadFailed, match="lies outside the model's folder"):
                Core([tmp_path / "models"], regions=Regions()).start()


def identity_file(path: Path, kind: int = TensorProto.STRING) -> None:
    """``x`` [N, 2] -> ``y``, the same."""
    shape: list[str | int | None] = ["N", 2]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "same",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_texts_go_through_onnx_runtime_as_they_are(open_: Open, tmp_path: Path) -> None:
    identity_file(tmp_path / "m" / "1" / "model.onnx")
    delay = "preferred_batch_size: 3 max_queue_delay_microseconds: 100000"
    (tmp_path / "m" / "config.pbtxt").write_text(f'backend: "onnxruntime" dynamic_batching {{ {delay} }}')
    core, answers = open_(), Answers()
    pairs = [[b"b", "\u00e4\u4e16".encode()], [b"\xff", b""], [b"", b"a\x00b\x00"]]
    for number, pair in enumerate(pairs):
        core.submit(Request("m", {"x": objects(pair, (1, 2))}, id=str(number)), answers)
    got = {int(each.id): each for each in answers.wait(3)}
    for number in (0, 2):
        assert got[number].error is None
        assert got[number].outputs["y"].tolist() == [pairs[number]]
    error = got[1].error
    assert error is not None
    assert (error.status, "UTF-8" in str(error)) == (Status.INVALID_ARG, True)


def test_onnx_runtime_says_that_it_takes_no_bfloat16(tmp_path: Path) -> None:
    identity_file(tmp_path / "m" / "1" / "model.onnx", TensorProto.BFLOAT16)
    with pytest.raises(LoadFailed, match="bfloat16"):
        Core([tmp_path], regions=Regions()).start()


def test_openvino_says_that_it_takes_no_texts(tmp_path: Path) -> None:
    identity_file(tmp_path / "m" / "1" / "model.onnx")
    (tmp_path / "m" / "config.pbtxt").write_text('backend: "openvino"')
    with pytest.raises(LoadFailed, match="texts"):
        Core([tmp_path], regions=Regions()).start()


@pytest.mark.skipif(not TORCH, reason="PyTorch is not installed")
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("names", [("x", "y"), ("INPUT__0", "OUTPUT__0"), ("image", "score")])
@pytest.mark.parametrize("suffix", ["pt", "pt2"])
def test_pytorch_models_are_served(open_: Open, tmp_path: Path, names: tuple[str, str], suffix: str) -> None:
    import torch

    class Scale(torch.nn.Module):  # type: ignore[misc,unused-ignore]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 3 * x

    text = f"""
    {'platform: "pytorch_libtorch"' if suffix == "pt" else 'backend: "pytorch"'}
    max_batch_size: 8
    input {{ name: "{names[0]}" data_type: TYPE_FP32 dims: 4 }}
    output {{ name: "{names[1]}" data_type: TYPE_FP32 dims: 4 }}
    """
    model(tmp_path, "scale", text)
    path = tmp_path / "scale" / "1" / f"model.{suffix}"
    if suffix == "pt":
        torch.jit.script(Scale()).save(str(path))
    else:
        batch = {"x": {0: torch.export.Dim("batch", max=8)}}
        torch.export.save(torch.export.export(Scale(), (torch.zeros(2, 4),), dynamic_shapes=batch), path)
    core = open_()
    assert np.array_equal(ask(core, "scale", {names[0]: row(2, 3)}).outputs[names[1]], row(6, 3))


@pytest.mark.skipif(TORCH, reason="PyTorch is installed")
def test_a_missing_extra_is_told_by_the_command_that_installs_it(open_: Open, tmp_path: Path) -> None:
    model(tmp_path, "m", 'platform: "pytorch_libtorch"', {"1/model.pt": b"x"})
    with pytest.raises(LoadFailed, match="pip install torch"):
        open_()
