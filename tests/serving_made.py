# SPDX-License-Identifier: Apache-2.0
"""Repositories, requests and answers that the tests of serving share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from fake_plane import FREE
from septet.request import Request, Response
from septet.serving.core import Core
from septet.serving.server import Server, Settings
from septet.tensor import Array
from septet.wire.shm import Regions

IDENTITY = """
backend: "null"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 4 }
"""


class Answers:
    """Collects responses, and waits for them."""

    def __init__(self) -> None:
        self.responses: list[Response] = []
        self._came = threading.Condition()

    def __call__(self, response: Response) -> None:
        with self._came:
            self.responses.append(response)
            self._came.notify_all()

    def wait(self, count: int = 1, seconds: float = 30.0) -> list[Response]:
        """The responses, once there are `count`."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.responses) >= count, seconds), f"{self.responses} only"
            return list(self.responses)


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Core, Server]]:
    """A server of the models in `folder`, on free ports of the loopback, in a thread of this process."""
    core = Core([folder], regions=Regions())
    server, ready = Server(core, Settings(FREE, FREE, FREE, exit_seconds=5.0)), threading.Event()
    core.start()
    thread = threading.Thread(target=server.run, args=(ready.set,))
    thread.start()
    assert ready.wait(10)
    yield core, server
    server.stop()
    thread.join(15)


def ask(core: Core, model: str, inputs: dict[str, Array], **more: object) -> Response:
    """One request's answer."""
    answers = Answers()
    core.submit(Request(model, inputs, **more), answers)  # type: ignore[arg-type]
    [answer] = answers.wait()
    return answer


def row(value: float, count: int = 1) -> Array:
    """float32 [count, 4], all `value`."""
    return np.full((count, 4), value, np.float32)


def model(root: Path, name: str, config: str | None, files: dict[str, str | bytes] | None = None) -> Path:
    """A model's folder with a version 1; `files` by their path in it."""
    folder = root / name
    (folder / "1").mkdir(parents=True)
    if config is not None:
        (folder / "config.pbtxt").write_text(config)
    for path, content in (files or {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def onnx_file(path: Path, factor: float = 2.0, batch: str | int = "N") -> Path:
    """``x`` float32 [batch, 4] -> ``y``, `factor` times as much."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "scale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
        [onnx.numpy_helper.from_array(np.array(factor, np.float32), "factor")],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until `true`, or fail."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
