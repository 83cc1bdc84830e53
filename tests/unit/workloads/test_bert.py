# SPDX-License-Identifier: Apache-2.0
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import load
from septet.errors import DataError, ModelInvalid, ModelNotFound, NotSequences, Unreachable, UsageError
from septet.workloads import bert
from septet.workloads.bert import Bert
from septet.workloads.graph import flops
from septet.workloads.squad import best, f1
from septet.workloads.transformer import BERT_LARGE, BERT_MINI, Synthetic, build, shapes
from septet.workloads.weights import shipped
from septet.workloads.workload import Asked, miniatures, open_workload

INPUTS = ("input_ids", "input_mask", "segment_ids")
PAIR = {"output_start_logits": ["N", 384], "output_end_logits": ["N", 384]}
SPELLINGS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "who", "?", "."]

Shape = list[str | int]


@pytest.fixture(autouse=True)
def own_cache(session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPTET_CACHE", str(session_cache))


def reader(
    path: Path,
    inputs: tuple[str, ...] = INPUTS,
    outputs: dict[str, Shape] | None = None,
    kind: int = TensorProto.INT64,
    length: int | str = 384,
) -> Path:
    """An ONNX file of the right inputs and outputs, which computes nothing of use."""
    wanted: dict[str, Any] = PAIR if outputs is None else outputs
    nodes = [helper.make_node("Cast", [inputs[0]], [name], name=name, to=TensorProto.FLOAT) for name in wanted]
    takes = [helper.make_tensor_value_info(name, kind, ["N", length]) for name in inputs]
    gives = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in wanted.items()]
    graph = helper.make_graph(nodes, "reader", takes, gives)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.fixture
def squad(tmp_path: Path) -> Path:
    """SQuAD's folder with one question."""
    question = {"id": "q1", "question": "Who sat?", "answers": [{"text": "The cat", "answer_start": 0}]}
    paragraph = {"context": "The cat sat.", "qas": [question]}
    folder = tmp_path / "squad"
    folder.mkdir()
    content = {"version": "1.1", "data": [{"title": "t", "paragraphs": [paragraph]}]}
    (folder / "dev-v1.1.json").write_text(json.dumps(content))
    (folder / "vocab.txt").write_text(
        "\n".join([*SPELLINGS, *map(str, range(BERT_LARGE.vocabulary - len(SPELLINGS)))])
    )
    return folder


SHIPS = "bert" in miniatures()


@pytest.fixture(scope="module")
def mini(session_cache: Path) -> Bert:
    if not SHIPS:
        pytest.skip("BERT's miniature has no trained weights yet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEPTET_CACHE", str(session_cache))
        opened = open_workload("bert", "mini", Asked())
    assert isinstance(opened, Bert)
    return opened


def test_the_miniature_answers_about_as_well_as_its_recipe_said(mini: Bert) -> None:
    assert (mini.origin, mini.scored, mini.notes) == ("trained", True, ())
    windows = mini._windows
    with mini.predictor(lambda path: load("onnx", path, EngineConfig(), Cpu.detect().partition())) as predict:
        logits = [np.zeros((384, 2), np.float32) for _ in range(len(mini))]
        few = range(400)
        for begin in range(0, len(few), 20):
            batch = mini.collate([mini.sample(index) for index in few[begin : begin + 20]])
            logits[begin : begin + 20] = list(predict(batch))
    said, truths = windows.answers(logits)[:380], windows.truths()[:380]  # 400 windows hold 380 questions at least
    assert 0.80 < best(f1, said, truths).mean() < 0.97


def test_the_card_is_true_of_the_miniature(mini: Bert) -> None:
    assert mini.model is not None
    assert flops(onnx.load(mini.model), L=384) == pytest.approx(Bert.card.mini.flops, rel=1e-3)
    assert sum(int(np.prod(shape)) for shape in shapes(BERT_LARGE).values()) == Bert.card.full.parameters


@pytest.mark.skipif(not SHIPS, reason="BERT's miniature has no trained weights yet")
def test_the_shipped_weights_are_small() -> None:
    assert shipped("bert").stat().st_size < 3e6


@pytest.mark.skipif(not SHIPS, reason="BERT's miniature has no trained weights yet")
def test_the_miniature_takes_no_weights_or_data() -> None:
    with pytest.raises(UsageError, match="go with --size full"):
        open_workload("bert", "mini", Asked(weights="synthetic"))


def test_a_window_is_as_long_as_it_is_unless_padding_is_asked_for(mini: Bert, own_cache: None) -> None:
    padded = open_workload("bert", "mini", Asked(padded=True))
    assert mini.data.endswith("windows, each at its own length")
    assert padded.data.endswith("windows, padded to 384")
    short, long = mini.sample(0), padded.sample(0)
    length = int(long["input_mask"].sum())
    assert {array.shape for array in short.values()} == {(length,)}
    assert {array.shape for array in long.values()} == {(384,)}
    assert length <= mini.length(short) < length + 8
    assert padded.length(long) == 384
    assert mini.collate([short, mini.sample(1)])["input_ids"].shape[1] % 8 == 0
    nothing = np.zeros((384, 2), np.float32)
    answers = {at: nothing[: mini._windows.length(at)].tobytes() for at in range(len(mini))}
    assert mini.score(answers).value == padded.score(dict.fromkeys(answers, nothing.tobytes())).value


def test_networks_without_sequences_cannot_be_padded() -> None:
    with pytest.raises(UsageError, match="nothing is padded: --padded goes with a network of sequences"):
        open_workload("resnet50", "mini", Asked(padded=True))


def test_synthetic_weights_say_so_and_are_not_scored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, squad: Path
) -> None:
    monkeypatch.setenv("SEPTET_CACHE", str(tmp_path))
    # the same road with a network of its form that is built in no time
    monkeypatch.setattr(bert, "BERT_LARGE", replace(BERT_MINI, vocabulary=2_100))
    full = open_workload("bert", "full", Asked(weights="synthetic"))
    assert full.origin == "synthetic"
    assert full.notes == ("synthetic weights: speed only",)
    assert not full.scored
    assert len(full) == 10_833
    lengths = [len(full.sample(index)["input_ids"]) for index in range(200)]
    assert 160 < sum(lengths) / 200 < 200  # as SQuAD's
    assert max(lengths) == 384
    assert full.model is not None
    assert full.model.with_name("model.onnx.data").stat().st_size > 2e6
    with load("openvino", full.model, EngineConfig(), Cpu.detect().partition()) as engine:
        batch = full.collate([full.sample(index) for index in range(2)])
        assert [len(row) for row in full.predictor(lambda _: engine)(batch)] == lengths[:2]
    (squad / "vocab.txt").write_text("\n".join([*SPELLINGS, *map(str, range(2_100 - len(SPELLINGS)))]))
    assert not open_workload("bert", "full", Asked(weights="synthetic", data=squad)).scored


@pytest.mark.parametrize(
    ("inputs", "outputs", "told"),
    [
        (INPUTS, PAIR, INPUTS),
        (("segment_ids", "input_mask", "input_ids"), PAIR, INPUTS),
        (
            ("input_ids", "attention_mask", "token_type_ids"),
            PAIR,
            ("input_ids", "attention_mask", "token_type_ids"),
        ),
        (("a", "b", "c"), {"end_logits": ["N", "L"], "start_logits": ["N", "L"]}, ("a", "b", "c")),
        (INPUTS, {"logits": ["N", 384, 2]}, INPUTS),
    ],
    ids=["v0.7", "by name", "Hugging Face", "by order", "both in one"],
)
def test_a_users_file_is_read_by_what_it_takes_and_gives(
    tmp_path: Path, squad: Path, inputs: tuple[str, ...], outputs: dict[str, Shape], told: tuple[str, ...]
) -> None:
    path = reader(tmp_path / "mine.onnx", inputs, outputs)
    mine = open_workload("bert", "full", Asked(str(path), squad, padded=True))
    assert isinstance(mine, Bert)
    assert (mine.origin, mine.scored, len(mine)) == ("user", True, 1)
    sample = mine.sample(0)
    assert tuple(sample) == told
    assert sample[told[0]][:9].tolist() == [2, 7, 6, 8, 3, 4, 5, 6, 9]
    assert sample[told[2]].sum() == 5
    start, end = np.zeros((2, 1, 384), np.float32)
    start[0, 5], end[0, 6] = 1, 1
    both = np.stack([start, end], -1)
    answer = mine.respond(
        {n: (both if len(s) == 3 else start if "start" in n else end) for n, s in outputs.items()}
    )
    assert np.array_equal(answer, both)
    score = mine.score({0: answer[0].tobytes()})
    assert (score.value, score.beside) == (100, {"exact match": 100})


def test_files_that_do_not_fit_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="auto, official or synthetic"):
        open_workload("bert", "full", Asked(weights=str(tmp_path / "none.onnx")))
    for misfit in (
        reader(tmp_path / "two.onnx", INPUTS[:2]),
        reader(tmp_path / "short.onnx", length=128),
        reader(tmp_path / "float.onnx", kind=TensorProto.FLOAT),
    ):
        with pytest.raises(ModelInvalid, match=r"not ids, mask and segments, each int64 \[\?, 384\]"):
            open_workload("bert", "full", Asked(weights=str(misfit)))
    other = reader(tmp_path / "other.onnx", outputs={"logits": ["N", 384]})
    with pytest.raises(ModelInvalid, match=r"not start and end logits, float32 \[\?, 384\] each"):
        open_workload("bert", "full", Asked(weights=str(other)))


def test_a_file_of_one_length_is_made_free_or_refused_with_a_reason(tmp_path: Path, squad: Path) -> None:
    fixed = reader(tmp_path / "fixed.onnx")
    mine = open_workload("bert", "full", Asked(str(fixed), squad))
    assert mine.model not in (None, fixed)
    with mine.predictor(lambda path: load("onnx", path, EngineConfig(), Cpu.detect().partition())) as predict:
        assert [len(row) for row in predict(mine.collate([mine.sample(0)]))] == [10]
    model = onnx.load(fixed)
    squared = [helper.make_node("MatMul", ["plain", "square"], ["output_end_logits"], name="mixed")]
    model.graph.node[1].output[0] = "plain"
    model.graph.node.extend(squared)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(384, dtype=np.float32), "square"))
    onnx.save(model, fixed)
    with pytest.raises(NotSequences, match=r"fixed\.onnx: it does not run .*mixed.*: --padded runs it as it is"):
        open_workload("bert", "full", Asked(str(fixed), squad))


def test_data_that_does_not_fit_is_told(tmp_path: Path, squad: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = str(reader(tmp_path / "mine.onnx", outputs={"start": ["N", "L"], "end": ["N", "L"]}, length="L"))
    for spellings in ([*SPELLINGS, *map(str, range(40_000))], SPELLINGS):
        (squad / "vocab.txt").write_text("\n".join(spellings))
        with pytest.raises(DataError, match=rf"vocab\.txt: has {len(spellings):,} spellings, the network 30,522"):
            open_workload("bert", "full", Asked(weights, squad))
    (squad / "vocab.txt").unlink()

    def unreachable(*_: object, **__: object) -> Path:
        raise Unreachable("no network")

    monkeypatch.setattr(bert, "fetch", unreachable)
    with pytest.raises(DataError, match=r"vocab\.txt: is missing, and the official one cannot be had: no network"):
        open_workload("bert", "full", Asked(weights, squad))
    shutil.rmtree(squad)
    with pytest.raises(DataError, match="no such folder"):
        open_workload("bert", "full", Asked(weights, squad))
    squad.mkdir()
    with pytest.raises(DataError, match=r"dev-v1\.1\.json: No such file"):
        open_workload("bert", "full", Asked(weights, squad))


def test_f1_is_scored_from_logged_bytes(mini: Bert) -> None:
    nothing = np.zeros((384, 2), np.float32)
    answers = {index: nothing[: mini._windows.length(index)].tobytes() for index in range(len(mini))}
    score = mini.score(answers)
    assert (score.metric, score.unit, score.samples) == ("F1", "%", 2_000)
    assert score.low <= score.value <= score.high
    assert score.value < 25  # what is first in the passage is rarely the answer
    with pytest.raises(DataError, match="sample 17 has no answer"):
        mini.score({index: answer for index, answer in answers.items() if index != 17})
    with pytest.raises(DataError, match="the answer to sample 3 has 8 bytes"):
        mini.score(answers | {3: bytes(8)})


def test_a_state_of_the_usual_names_fits() -> None:
    net = BERT_MINI
    model = build(net, Synthetic(net, 0))
    names = {tensor.name for tensor in model.graph.initializer}
    assert "bert.encoder.layer.2.attention.self.query.weight" in names
    assert {"bert.embeddings.word_embeddings.weight", "qa_outputs.bias"} <= names


def test_the_sparse_miniature_is_another_network_held_against_the_dense_one(mini: Bert) -> None:
    sparse = open_workload("bert", "mini", Asked(weights="sparse"))
    assert (sparse.origin, sparse.scored, sparse.baseline) == ("trained", True, "auto")
    assert "Open division" in sparse.notes[0]
    assert mini.baseline is None
    costs = [flops(onnx.load(one.model), L=164) for one in (mini, sparse) if one.model]
    assert costs[1] < 0.45 * costs[0]
    assert {name: array.tolist() for name, array in sparse.sample(5).items()} == {
        name: array.tolist() for name, array in mini.sample(5).items()
    }
    with pytest.raises(UsageError, match="it has --weights sparse"):
        open_workload("bert", "mini", Asked(weights="2:4"))
    with pytest.raises(UsageError, match=r"go with --size full$"):
        open_workload("resnet50", "mini", Asked(weights="sparse"))
