# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest

from networks_made import perceptron, sharp_attention, vectors
from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import load
from septet.errors import EngineUnavailable
from septet.optimize import graph, nncf
from septet.optimize.candidate import Candidate, Recipe
from septet.optimize.passes import outputs
from septet.optimize.plan import plan
from septet.optimize.workshop import Workshop

NEEDED = pytest.mark.skipif(not nncf.available(), reason="NNCF is not installed: pip install 'septet[nncf]'")


@NEEDED
def test_its_ir_answers_nearly_the_same(tmp_path: Path) -> None:
    path = sharp_attention(tmp_path / "a.onnx", temperature=0.5)
    feeds = [{"x": sample["x"][None]} for sample in vectors(12, shape=(8, 24))]
    file = Workshop(path, lambda: feeds, tmp_path / "files").file(Recipe("nncf"))
    assert [part.name for part in graph.files(file)] == ["model.xml", "model.bin"]
    with load("openvino", file, EngineConfig("int8"), Cpu.detect().partition()) as engine:
        for want, feed in zip(outputs(path, feeds), feeds, strict=True):
            assert np.linalg.norm(engine.infer(feed)["y"] - want["y"]) < 0.25 * np.linalg.norm(want["y"])


def test_without_it_nothing_is_planned_for_it_and_it_says_how_to_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nncf, "available", lambda: False)
    path = perceptron(tmp_path / "a.onnx")
    planned = [candidate for family in plan(graph.read(path), Cpu.detect()) for candidate in family]
    assert Candidate("openvino", "int8", Recipe("nncf")) not in planned
    with pytest.raises(EngineUnavailable, match=r"pip install 'septet\[nncf\]'"):
        nncf.quantise(path, [], (), False, tmp_path / "b.xml")
