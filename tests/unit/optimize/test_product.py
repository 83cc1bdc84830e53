# SPDX-License-Identifier: Apache-2.0
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import septet
from networks_made import perceptron, vectors
from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import load
from septet.errors import NotOptimized, ResultsNotWritten, ResultsUnreadable, UsageError
from septet.model_config.text import read
from septet.optimize import graph
from septet.optimize.candidate import Candidate
from septet.optimize.folder import UNFINISHED
from septet.optimize.ledger import Row
from septet.optimize.product import open_product, put
from septet.workloads.optimizing import Optimized, optimized_form
from septet.workloads.workload import Asked


def made(folder: Path) -> Optimized:
    return septet.optimize(
        perceptron(folder / "mine.onnx"), data=vectors(200), output=folder / "search", repository=folder / "models"
    )


def test_the_entry_is_whole_and_runs_from_where_it_lies(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert found.entry == tmp_path / "models" / "mine"
    product, file = open_product(tmp_path / "models", "mine")
    assert product.row == found.ledger.product
    assert file.is_file()
    text = (found.entry / "config.pbtxt").read_text()
    assert 'name: "mine"' in text
    openvino = product.candidate.engine == "openvino"
    assert ("INFERENCE_PRECISION_HINT" in text) == openvino
    assert "max_batch_size: 16384" in text
    assert 'input [ { name: "x" data_type: TYPE_FP32 dims: [ 24 ] } ]' in text
    said = read(found.entry / "config.pbtxt")
    assert said.instance_group[0].count == len(Cpu.detect().cores)  # so small a network takes no time
    warmed = [warmup.batch_size for warmup in said.model_warmup]
    assert said.dynamic_batching is not None
    assert list(said.dynamic_batching.preferred_batch_size) == warmed == list(range(1, len(warmed) + 1))
    assert all(dict(warmup.inputs)["x"].dims == (24,) for warmup in said.model_warmup)
    config = EngineConfig(product.candidate.precision)
    with load(product.candidate.engine, file, config, Cpu.detect().partition()) as engine:
        assert engine.infer({"x": np.zeros((3, 24), np.float32)})["scores"].shape == (3, 10)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["mine"]


def test_a_call_from_python_writes_all_that_the_command_writes(tmp_path: Path) -> None:
    found = septet.optimize(
        perceptron(tmp_path / "mine.onnx"), data=vectors(40), minutes=1e-9, output=tmp_path / "search",
        repository=tmp_path / "models",
    )  # fmt: skip
    assert found.folder == tmp_path / "search"
    assert (found.folder / "ledger.json").is_file()
    assert found.ledger.notes[0] in (found.folder / "report.html").read_text()


def test_an_entry_of_ours_is_replaced_and_anothers_is_not(tmp_path: Path) -> None:
    entry = made(tmp_path).entry
    killed = [
        tmp_path / path for path in ("search/prepared", "search/files/key", "models/.mine.new")
    ]  # while they wrote these
    left = [path.parent / f"{UNFINISHED}{path.name}-1" for path in killed]
    others = tmp_path / "models" / f"{UNFINISHED}.another.new-1"
    for folder in (*left, others):
        folder.mkdir()
    assert made(tmp_path).entry == entry
    assert [folder for folder in (*left, others) if folder.exists()] == [others]
    (entry / "product.json").unlink()
    shutil.rmtree(tmp_path / "search")
    with pytest.raises(ResultsNotWritten, match="did not make"):
        made(tmp_path)
    assert not (tmp_path / "search").exists()  # told before anything was tried


def test_a_table_of_the_users_is_copied_and_what_was_made_of_the_model_is_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "OUTSIDE", 4_096)
    (tmp_path / "far").mkdir()
    path = tmp_path / "far" / "mine.onnx"
    onnx.save(onnx.load(perceptron(tmp_path / "a.onnx")), path, save_as_external_data=True, location="w.bin",
              size_threshold=4_096)  # fmt: skip
    (tmp_path / "far" / "w.bin").rename(tmp_path / "far" / "stored.bin")
    (tmp_path / "far" / "w.bin").symlink_to("stored.bin")
    prepared = tmp_path / "prepared" / "model.onnx"
    prepared.parent.mkdir()
    graph.write(graph.read(path), prepared, path)
    assert prepared.with_name("w.bin").samefile(path.with_name("w.bin"))
    ledger = septet.optimize(
        path, data=vectors(40), output=tmp_path / "s", repository=tmp_path / "models", minutes=1e-9
    ).ledger
    ledger.put(Row(Candidate("openvino", "f32"), "prepared/model.onnx", 1, "kept", ""))
    ledger.chosen = 1
    entry = put(ledger, prepared, {"x": np.zeros((1, 24), np.float32)}, tmp_path / "models", model=path)
    before = (entry / "1" / "w.bin").read_bytes()
    with (tmp_path / "far" / "stored.bin").open("r+b") as file:
        file.write(bytes(100))
    assert (entry / "1" / "w.bin").read_bytes() == before
    assert (entry / "1" / "model.onnx").samefile(prepared)


def test_what_is_no_product_is_told(tmp_path: Path) -> None:
    entry = made(tmp_path).entry
    (entry / "product.json").write_text("{}")
    with pytest.raises(ResultsUnreadable):
        open_product(tmp_path / "models", "mine")
    with pytest.raises(NotOptimized, match="septet optimize bert --size mini makes it"):
        optimized_form("bert", "mini", Asked(), tmp_path / "models")


def test_terms_that_do_not_fit_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"99 or 99\.9"):
        septet.optimize("resnet50", keep=98)
    with pytest.raises(UsageError, match="its own score"):
        septet.optimize("resnet50", score=lambda answers, indices: [])
    with pytest.raises(UsageError, match="nothing to optimise"):
        septet.optimize("null", output=tmp_path)
