# SPDX-License-Identifier: Apache-2.0
from functools import partial
from hashlib import md5
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import load
from septet.engines.model import read_onnx
from septet.errors import DataError, ModelInvalid, UsageError
from septet.tensor import Array
from septet.workloads import dlrm, recommender
from septet.workloads.auc import auc
from septet.workloads.clicks import QUANTILES, ClickLog
from septet.workloads.criteo import PROCESSED
from septet.workloads.dlrm import SIZES, UNMAPPED, Dlrm, rows_within, sample_ends
from septet.workloads.graph import flops, parameters
from septet.workloads.recommender import DLRM, DLRM_MINI, Recommender, build, rows_as_int8, shapes, synthetic
from septet.workloads.workload import Asked, open_workload

SMALL = Recommender(bottom=(6, 4), top=(5, 1), rows=(3, 7, 2))


@pytest.fixture(autouse=True)
def own_cache(session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPTET_CACHE", str(session_cache))


def run(model: onnx.ModelProto, dense: Array, indices: Array) -> Array:
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString())
    answer: Array = session.run(None, {"dense": dense, "indices": indices})[0]
    return answer


def by_hand(net: Recommender, weights: dict[str, Array], dense: Array, indices: Array) -> Array:
    """DLRM from its description, pair by pair."""

    def layers(name: str, x: Array, count: int, last: bool) -> Array:
        for place in range(count):
            x = weights[f"{name}.{2 * place}.weight"] @ x + weights[f"{name}.{2 * place}.bias"]
            x = np.maximum(x, 0) if last or place + 1 < count else x
        return x

    answers = []
    for numbers, rows in zip(dense, indices, strict=True):
        bottom = layers("bot_l", numbers, len(net.bottom), True)
        vectors = [bottom, *(weights[f"emb_l.{place}.weight"][row] for place, row in enumerate(rows))]
        products = [vectors[i] @ vectors[j] for i in range(len(vectors)) for j in range(i)]
        odds = layers("top_l", np.concatenate([bottom, products]), len(net.top), False)
        answers.append(1 / (1 + np.exp(-odds)))
    return np.array(answers)


def test_full_size_counts() -> None:
    assert DLRM.interacted == 479
    perceptrons = {name: shape for name, shape in shapes(DLRM).items() if not name.startswith("emb_l")}
    assert sum(int(np.prod(shape)) for shape in perceptrons.values()) == 2_368_897  # 2.369 M
    small = DLRM.capped(100)
    model = build(small, synthetic(small, 0))
    assert parameters(model) == 2_368_897 + 128 * sum(small.rows)
    assert flops(model, P=1) == pytest.approx(4.92e6, rel=2e-3)
    assert sum(DLRM.rows) == 187_767_399
    assert Dlrm.card.full.parameters == 2_368_897 + 128 * 187_767_399
    assert Dlrm.card.full.flops == pytest.approx(flops(model, P=270), rel=2e-3)


def test_the_graph_computes_what_the_description_says() -> None:
    weights = synthetic(SMALL, 3)
    draw = np.random.default_rng(0)
    dense = draw.random((6, 13), np.float32)
    indices = np.stack([draw.integers(rows, size=6) for rows in SMALL.rows], axis=1)
    answers = run(build(SMALL, weights), dense, indices)
    np.testing.assert_allclose(answers, by_hand(SMALL, weights, dense, indices), rtol=1e-5)


def test_rows_as_int8_answer_nearly_alike() -> None:
    weights = synthetic(SMALL, 3)
    weights["emb_l.0.weight"][1] = 0
    packed = rows_as_int8(weights)
    assert packed["emb_l.1.weight"].dtype == np.int8
    for place in range(len(SMALL.rows)):
        table, scale = weights[f"emb_l.{place}.weight"], packed[f"emb_l.{place}.scale"]
        assert (np.abs(packed[f"emb_l.{place}.weight"] * scale - table) <= scale / 2 + 1e-7).all()
    dense, indices = np.ones((4, 13), np.float32), np.array([[0, 1, 1], [1, 2, 0], [2, 6, 1], [1, 0, 0]])
    plain, small = (run(build(SMALL, these), dense, indices) for these in (weights, packed))
    np.testing.assert_allclose(small, plain, atol=0.01)


def stored(path: Path) -> dict[str, Array]:
    """The weights in a file and beside it."""
    return {
        tensor.name: onnx.numpy_helper.to_array(tensor, str(path.parent))
        for tensor in onnx.load(path, load_external_data=False).graph.initializer
        if not tensor.name.endswith(".constant")
    }


def test_tables_outside_the_file_are_the_same_tables(tmp_path: Path) -> None:
    recommender.write_synthetic(SMALL, 5, tmp_path / "model.onnx")
    weights = stored(tmp_path / "model.onnx")
    assert {name: array.shape for name, array in weights.items()} == shapes(SMALL)
    dense, indices = np.ones((2, 13), np.float32), np.array([[2, 6, 1], [0, 0, 0]])
    session = ort.InferenceSession(str(tmp_path / "model.onnx"))
    np.testing.assert_allclose(
        session.run(None, {"dense": dense, "indices": indices})[0],
        by_hand(SMALL, weights, dense, indices),
        rtol=1e-5,
    )


def test_int8_tables_outside_the_file_are_those_of_float32_made_small(tmp_path: Path) -> None:
    recommender.write_synthetic(SMALL, 5, tmp_path / "plain.onnx")
    wanted = rows_as_int8(stored(tmp_path / "plain.onnx"))
    recommender.write_synthetic(SMALL, 5, tmp_path / "small.onnx", int8=True)
    found = stored(tmp_path / "small.onnx")
    assert found.keys() == wanted.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, wanted[name])
    assert read_onnx(tmp_path / "small.onnx").quantised


@pytest.mark.parametrize(("int8", "row"), [(False, 4 * 128), (True, 128 + 4)])
def test_tables_are_cut_to_what_memory_allows(int8: bool, row: int) -> None:
    cap = rows_within(6e9, int8)
    assert row * sum(DLRM.capped(cap).rows) <= 6e9 < row * sum(DLRM.capped(cap + 100_000).rows)
    assert rows_within(1e12, int8) >= max(DLRM.rows)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_the_miniature_with_int8_rows_ranks_nearly_alike(engine: str) -> None:
    answers = []
    for precision in ("f32", "int8"):
        mini, config = open_workload("dlrm", "mini", Asked(precision=precision)), EngineConfig(precision)
        with mini.predictor(partial(load, engine, config=config, partition=Cpu.detect().partition())) as predict:
            answers.append(np.concatenate(list(predict(mini.collate([mini.sample(at) for at in range(8)])))))
    plain, small = answers
    assert 0 < np.abs(plain - small).max() < 0.05


def test_a_full_network_says_how_far_it_was_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlrm, "LARGEST_TABLES", 1e8)
    full = open_workload("dlrm", "full", Asked(weights="synthetic"))
    assert full.notes[0] == "synthetic weights: speed only"
    assert "tables capped at 100,000 rows" in full.notes[1]
    assert not full.scored
    own = open_workload("dlrm", "full", Asked(weights=str(full.model)))
    assert own.origin == "user"
    for workload in (full, own):
        sample = workload.sample(7)
        assert (sample["indices"] < 100_000).all()
        assert (sample["indices"][:, 5] < 3).all()
        assert len(sample["dense"]) in QUANTILES


def test_the_official_file_cannot_be_fetched_and_the_text_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="bring it as ONNX with --weights FILE"):
        open_workload("dlrm", "full", Asked(weights="official"))


def test_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    onnx.save(build(SMALL, synthetic(SMALL, 0)), path)
    with pytest.raises(ModelInvalid, match="looks into 3 tables, not 26"):
        open_workload("dlrm", "full", Asked(weights=str(path)))


def test_samples_are_cut_as_the_reference_cuts_them() -> None:
    ends = sample_ends(89_137_319)
    begins = [0, *ends[:-1].tolist()]
    assert len(ends) == 330_067
    # the trace that the reference writes of its samples, and its published checksum (zenodo.org/record/3941795)
    trace = "".join(f"{begin}, {end}, {end - begin}\n" for begin, end in zip(begins, ends.tolist(), strict=True))
    assert md5(trace.encode(), usedforsecurity=False).hexdigest() == "3db90209564316f2506c99cc994ad0b2"
    assert sample_ends(1).tolist() == [1]


def test_raw_rows_are_not_judged_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: None
) -> None:
    monkeypatch.setattr(dlrm, "LARGEST_TABLES", 1e8)
    weights = str(open_workload("dlrm", "full", Asked(weights="synthetic")).model)
    (tmp_path / "day_23").write_text("\t".join(["1", *["3"] * 13, *["0000000f"] * 26]) + "\n")
    raw = open_workload("dlrm", "full", Asked(weights=weights, data=tmp_path))
    assert (raw.origin, raw.scored, raw.notes) == ("user", False, (UNMAPPED,))
    synthetic = open_workload("dlrm", "full", Asked(weights="synthetic", data=tmp_path))
    assert UNMAPPED not in synthetic.notes
    np.savez(tmp_path / PROCESSED, y=np.ones(2), X_int=np.ones((2, 13)), X_cat=np.ones((2, 26)))
    mapped = open_workload("dlrm", "full", Asked(weights=weights, data=tmp_path))
    assert (mapped.scored, mapped.notes) == (True, ())
    assert mapped.sample(0)["indices"].tolist() == [[1] * 26] * 2


def test_pairs_of_a_sample_follow_the_quantiles() -> None:
    log = ClickLog("test")
    sizes = [len(log.pairs(index).clicks) for index in range(400)]
    assert set(sizes) <= set(QUANTILES)
    assert np.mean(sizes) == pytest.approx(np.mean(QUANTILES), rel=0.1)
    pairs = log.pairs(3)
    assert (pairs.categories[:, :10] == pairs.categories[0, :10]).all()
    assert len(np.unique(pairs.categories[:, 24])) > 1
    assert (pairs.categories < np.array(DLRM_MINI.rows)).all()
    assert not np.array_equal(ClickLog("train").pairs(3).categories[:50], pairs.categories[:50])


def test_the_miniature_is_far_above_chance_and_below_what_can_be_known() -> None:
    mini = open_workload("dlrm", "mini", Asked())
    count = 120
    with mini.predictor(lambda path: load("onnx", path, EngineConfig(), Cpu.detect().partition())) as predict:
        answers = predict(mini.collate([mini.sample(index) for index in range(count)]))
    log = ClickLog("test")
    clicks = np.concatenate([log.pairs(index).clicks for index in range(count)])
    known = auc(np.concatenate([log.pairs(index).odds for index in range(count)]), clicks)[0]
    learnt = auc(np.concatenate(list(answers)), clicks)[0]
    assert 0.75 < learnt < known < 0.9


def test_the_score_is_the_area_over_all_pairs() -> None:
    mini = open_workload("dlrm", "mini", Asked())
    log, draw = ClickLog("test"), np.random.default_rng(0)
    noisy = {
        index: (log.pairs(index).odds + draw.standard_normal()).astype(np.float32) for index in range(len(mini))
    }
    score = mini.score({index: row.tobytes() for index, row in noisy.items()})
    clicks = np.concatenate([log.pairs(index).clicks for index in range(len(mini))])
    assert score.value == pytest.approx(100 * auc(np.concatenate(list(noisy.values())), clicks)[0], abs=1e-3)
    assert score.low < score.value < score.high
    assert score.samples == len(mini)
    with pytest.raises(DataError, match="sample 5 has no answer"):
        mini.score({index: row.tobytes() for index, row in noisy.items() if index != 5})
    noisy[5] = np.full_like(noisy[5], np.nan)
    with pytest.raises(DataError, match=r"click log of a hidden model, test split.*: score .* is not a number"):
        mini.score({index: row.tobytes() for index, row in noisy.items()})


def test_a_batch_joins_pairs_and_knows_whose_they_are() -> None:
    mini = open_workload("dlrm", "mini", Asked())
    samples = [mini.sample(index) for index in (4, 9)]
    batch = mini.collate(samples)
    assert batch[SIZES].tolist() == [len(sample["dense"]) for sample in samples]
    assert len(batch["dense"]) == batch[SIZES].sum()
