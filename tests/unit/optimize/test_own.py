# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import septet
from networks_made import WIDTH, perceptron, save, vectors
from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, load
from septet.errors import DataError, ModelInvalid, ModelNotFound, SeptetError, UnknownNetwork, UsageError
from septet.optimize.gate import judge
from septet.optimize.own import OwnModel, OwnScore
from septet.optimize.samples import Given
from septet.optimize.subject import PARTS
from septet.score import mean
from septet.tensor import Tensors


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return perceptron(tmp_path / "mine.onnx")


def own(path: Path, data: Given, score: OwnScore | str | None = None) -> OwnModel:
    return OwnModel(path, data, score, path.parent / "search")


def fp32(path: Path | None) -> Engine:
    return load("onnx", path, EngineConfig(), Cpu.detect().partition())


def test_the_parts_are_disjoint_and_whole(model: Path) -> None:
    subject = own(model, vectors(100))
    parts = [set(subject._parts[part]) for part in PARTS]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 100
    assert all(len(part) >= 20 for part in parts)


def test_a_batch_is_timed_only_if_there_are_samples_to_fill_it(model: Path) -> None:
    subject = own(model, vectors(40))
    assert subject.batches == (1, 8)
    assert [len(feed["x"]) for feed in subject.feeds("calibration", fp32, 8, 8)] == [8]
    assert own(model, vectors(20)).batches == (1,)


def test_samples_that_repeat_others_are_left_out_and_counted(model: Path) -> None:
    samples = vectors(40)
    subject = own(model, [*samples, *samples[:15], samples[3]])
    assert sorted(index for part in PARTS for index in subject._parts[part]) == list(range(40))
    assert "16 samples are left out that repeat others" in subject.notes[-1]
    assert subject._parts == own(model, samples)._parts
    with pytest.raises(DataError, match="1 that are not the same are too few"):
        own(model, samples[:1] * 2_000)


def test_without_a_score_it_is_agreement_and_says_so(model: Path) -> None:
    subject = own(model, vectors(40))
    assert subject.judged == "agreement"
    assert "not accuracy" in subject.notes[0]
    assert "scores, float [N, classes], is taken for a classifier's" in subject.notes[1]
    score = subject.exam("search", fp32, 10)
    assert (score.metric, score.value) == ("top-1 agreement", 100)


def test_samples_come_from_files_folders_and_functions(model: Path, tmp_path: Path) -> None:
    samples = vectors(20)
    np.savez(tmp_path / "all.npz", x=np.stack([sample["x"] for sample in samples]), label=np.arange(20))
    for kind in ("npz", "npy"):
        (tmp_path / kind).mkdir()
    for place, sample in enumerate(samples):
        np.savez(tmp_path / "npz" / f"{place:03}.npz", x=sample["x"])
        np.save(tmp_path / "npy" / f"{place:03}.npy", sample["x"])
    files: list[Given] = [tmp_path / "all.npz", str(tmp_path / "npz"), tmp_path / "npy"]
    given: list[Given] = [*files, samples, lambda: iter(samples), "networks_made:twenty_vectors"]
    for data in given:
        subject = own(model, data)
        assert sum(subject.count(part) for part in PARTS) == 20
        np.testing.assert_array_equal(subject._samples[3]["x"], samples[3]["x"])


def two_inputs(path: Path) -> Path:
    """``left`` float32 [N, L, 4], ``right`` float32 [N, L, 4] -> ``sum``: L is free, and names are unusual."""
    nodes = [
        helper.make_node("MatMul", ["left/input:0", "w"], ["a"], name="m"),
        helper.make_node("Add", ["a", "right input"], ["sum.out"], name="s"),
    ]
    shape: list[int | str] = ["N", "L", 4]
    constants = {"w": np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)}
    return save(path, nodes, {"left/input:0": shape, "right input": shape}, {"sum.out": shape}, constants)


def test_several_inputs_free_dimensions_and_odd_names(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    samples = [
        {
            name: draw.standard_normal((2 + place % 5, 4)).astype(np.float32)
            for name in ("left/input:0", "right input")
        }
        for place in range(60)
    ]
    found = septet.optimize(
        two_inputs(tmp_path / "two.onnx"), data=samples, output=tmp_path / "s", repository=tmp_path / "models"
    )
    assert found.ledger.judged == "agreement"
    assert 'name: "left/input:0"' in (found.entry / "config.pbtxt").read_text()
    assert "dims: [ -1, 4 ]" in (found.entry / "config.pbtxt").read_text()


def test_weights_outside_and_a_fixed_batch(tmp_path: Path) -> None:
    model = onnx.load(perceptron(tmp_path / "a.onnx"))
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = 1
    moved = model.graph.initializer.pop()  # a weight may be a node's, too
    model.graph.node.insert(0, helper.make_node("Constant", [], [moved.name], value=moved))
    (tmp_path / "far" / "weights").mkdir(parents=True)
    path = tmp_path / "far" / "fixed.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights/w.bin", size_threshold=0,
              convert_attribute=True)  # fmt: skip
    found = septet.optimize(path, data=vectors(60), output=tmp_path / "s", repository=tmp_path / "models")
    assert not [row.why for row in found.ledger.rows if "cannot be run" in row.why]
    assert "max_batch_size: 0" in (found.entry / "config.pbtxt").read_text()


def test_a_product_that_is_the_users_own_file_is_a_copy_of_it_with_all_that_lies_outside(tmp_path: Path) -> None:
    (tmp_path / "far" / "weights").mkdir(parents=True)
    path = tmp_path / "far" / "own.onnx"
    onnx.save(onnx.load(perceptron(tmp_path / "a.onnx")), path, save_as_external_data=True,
              location="weights/w.bin", size_threshold=0)  # fmt: skip
    found = septet.optimize(path, data=vectors(60), minutes=1e-9, output=tmp_path / "s", repository=tmp_path / "m")
    assert found.ledger.product is found.ledger.reference
    for part in ("own.onnx", "weights/w.bin"):
        mine, theirs = tmp_path / "far" / part, found.entry / "1" / part
        assert mine.read_bytes() == theirs.read_bytes()
        assert not mine.samefile(theirs)


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_minutes_are_more_than_none(model: Path, minutes: float) -> None:
    with pytest.raises(UsageError, match="more than 0"):
        septet.optimize(model, data=vectors(20), minutes=minutes)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ("no.npz", DataError, "cannot be read"),
        ("nowhere", DataError, "neither"),
        ("no_module:samples", UsageError, "not module:function"),
        ("networks_made:nothing", UsageError, "not module:function"),
        ([{"y": np.zeros(WIDTH, np.float32)}] * 20, DataError, "has no x"),
        ([{"x": np.zeros(3, np.float32)}] * 20, DataError, r"\[3\], the network takes x: float32\[24\]"),
        ([{"x": np.array(["a"] * WIDTH)}] * 20, DataError, "the network takes"),
        ([{"x": np.zeros(WIDTH, np.float32)}] * 3, DataError, "too few"),
        ([], DataError, "no samples"),
        ([np.zeros(WIDTH)] * 20, DataError, "not arrays by input name"),
        (None, UsageError, "--data"),
    ],
)  # fmt: skip
def test_bad_samples_are_told(model: Path, data: object, error: type[SeptetError], words: str) -> None:
    with pytest.raises(error, match=words):
        septet.optimize(model, data=data, output=model.parent / "s", repository=model.parent / "m")  # type: ignore[arg-type]


def test_bad_models_are_told(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        own(tmp_path / "none.onnx", vectors(20))
    (tmp_path / "half.onnx").write_bytes(model.read_bytes()[:500])
    with pytest.raises(ModelInvalid):
        own(tmp_path / "half.onnx", vectors(20))
    with pytest.raises(UnknownNetwork, match="no network is called so, and no file"):
        septet.optimize("resnet5")


def test_operators_that_no_engine_knows_are_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Frobnicate", ["r"], ["f"], domain="com.example"),
        helper.make_node("Whirl", ["f"], ["y"], domain="com.example"),
    ]
    x, y = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4])] for name in ("x", "y"))
    made = helper.make_model(
        helper.make_graph(nodes, "odd", x, y),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)],
        ir_version=8,
    )
    onnx.save(made, tmp_path / "odd.onnx")
    with pytest.raises(ModelInvalid, match=r"com\.example\.Frobnicate, com\.example\.Whirl"):
        own(tmp_path / "odd.onnx", vectors(20))


@pytest.mark.parametrize("said", [[0.5], [2.0] * 8, [float("nan")] * 8])
def test_a_score_that_is_none_is_told(model: Path, said: list[float]) -> None:
    subject = own(model, vectors(20), lambda answers, indices: said)
    with pytest.raises(UsageError, match="the score gave"):
        subject.exam("search", fp32, 8)


def test_a_score_gets_outputs_without_batch_and_the_places_of_samples(model: Path) -> None:
    seen: list[tuple[Tensors, int]] = []

    def score(answers: list[Tensors], indices: list[int]) -> list[float]:
        seen.extend(zip(answers, indices, strict=True))
        return [1.0] * len(answers)

    samples = vectors(40)
    own(model, samples, score).exam("search", fp32, 12)  # type: ignore[arg-type]
    with fp32(model) as engine:
        for answer, index in seen:
            want = engine.infer({"x": samples[index]["x"][None]})["scores"][0]
            np.testing.assert_allclose(answer["scores"], want, rtol=1e-5)


@pytest.mark.parametrize("said", [{"a": 1}, "good", None, [[1.0]] * 8, ["x"] * 8, 0.5])
def test_a_score_of_another_kind_is_told(model: Path, said: object) -> None:
    subject = own(model, vectors(20), lambda answers, indices: said)  # type: ignore[arg-type, return-value]
    with pytest.raises(UsageError, match="the score"):
        subject.exam("search", fp32, 8)


def test_a_whole_score_is_of_as_many_samples(model: Path) -> None:
    subject = own(model, vectors(20), lambda answers, indices: mean("mine", "%", np.ones(3), scale=100))
    with pytest.raises(UsageError, match="not one number for each of 8 samples"):
        subject.exam("search", fp32, 8)


def test_what_a_users_function_raises_is_told_with_its_line(model: Path) -> None:
    def score(answers: object, indices: object) -> list[float]:
        raise KeyError("label")

    with pytest.raises(UsageError, match=r"the score: failed: KeyError: 'label' \(.*test_own\.py:\d+\)"):
        own(model, vectors(20), score).exam("search", fp32, 8)
    with pytest.raises(DataError, match="broken_samples: failed: OSError: no disk"):
        own(model, "networks_made:broken_samples")
    with pytest.raises(DataError, match="gave NoneType, not samples"):
        own(model, lambda: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(DataError, match="inhomogeneous"):
        own(model, [{"x": [[1.0], [1.0, 2.0]]}] * 20)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("part", "graded"), [(lambda n: 0.5, False), (lambda n: n % 3 / 2, False), (lambda n: 1 / (n + 1), True)]
)
def test_a_score_that_jumps_is_not_taken_for_a_fine_one(
    model: Path, part: Callable[[int], float], graded: bool
) -> None:
    subject = own(model, vectors(50), lambda answers, indices: [part(index) for index in indices])
    score = subject.exam("final", fp32, 20)
    assert score.graded is graded
    assert (judge(score, score, 0.999, "accuracy").verdict == "kept") is graded


def test_an_output_without_a_row_for_each_sample_comes_whole(tmp_path: Path) -> None:
    """`y` float32 [24], the batch squeezed away, and `found` [K, 2]: where a sample is above one."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="m"),
        helper.make_node("ReduceSum", ["m", "axes"], ["y"], name="s", keepdims=0),
        helper.make_node("Greater", ["x", "one"], ["large"], name="g"),
        helper.make_node("NonZero", ["large"], ["places"], name="n"),
        helper.make_node("Transpose", ["places"], ["pairs"], name="t", perm=[1, 0]),
        helper.make_node("Cast", ["pairs"], ["found"], name="c", to=TensorProto.FLOAT),
    ]
    constants = {
        "w": np.eye(WIDTH, dtype=np.float32),
        "axes": np.array([0]),
        "one": np.array(1, np.float32),
    }
    path = save(tmp_path / "odd.onnx", nodes, {"x": ["N", WIDTH]}, {"y": [WIDTH], "found": ["K", 2]}, constants)
    seen: dict[int, Tensors] = {}

    def score(answers: Sequence[Tensors], indices: Sequence[int]) -> list[float]:
        seen.update(zip(indices, answers, strict=True))
        return [1.0] * len(answers)

    samples = vectors(40)
    subject = own(path, samples, score)
    subject.exam("search", fp32, 12)
    assert not subject.joins
    assert subject.batches == (1,)
    for index, answer in seen.items():
        np.testing.assert_allclose(answer["y"], samples[index]["x"], rtol=1e-5)
        np.testing.assert_array_equal(answer["found"][:, 1], np.flatnonzero(samples[index]["x"] > 1))


def test_a_network_that_answers_nan_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Log", ["x"], ["y"], name="l")]
    path = save(tmp_path / "nan.onnx", nodes, {"x": ["N", WIDTH]}, {"y": ["N", WIDTH]}, {})
    with pytest.raises(DataError, match=r"FP32 on .*sample \d+: y is NaN"):
        septet.optimize(path, data=vectors(40), output=tmp_path / "s", repository=tmp_path / "m")


@pytest.mark.parametrize("kind", ["float64", "float16"])
def test_a_network_of_other_numbers_than_float32_is_left_in_them(tmp_path: Path, kind: str) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")]
    constants = {"w": np.random.default_rng(0).standard_normal((WIDTH, 8)).astype(kind)}
    path = save(tmp_path / "other.onnx", nodes, {"x": ["N", WIDTH]}, {"y": ["N", 8]}, constants)
    model = onnx.load(path)
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    onnx.save(model, path)
    samples = [{name: array.astype(kind) for name, array in sample.items()} for sample in vectors(40)]
    found = septet.optimize(path, data=samples, output=tmp_path / "s", repository=tmp_path / "m")
    static = [row for row in found.ledger.rows if row.candidate.recipe.quantiser == "static"]
    assert all("no layers that compute in float32" in row.why for row in static)
    assert static


def test_another_score_or_other_samples_are_another_search(model: Path, tmp_path: Path) -> None:
    def one(answers: Sequence[Tensors], indices: Sequence[int]) -> list[float]:
        return [1.0] * len(answers)

    def half(answers: Sequence[Tensors], indices: Sequence[int]) -> list[float]:
        return [0.5] * len(answers)

    samples = vectors(21)
    different: Sequence[tuple[list[Tensors], OwnScore | None]] = (
        (samples[:20], one),
        (samples[:20], half),
        (samples[:20], None),
        (samples[1:], one),
    )
    said = [own(model, data, score).identity for data, score in different]
    assert len(set(said)) == len(said)
    assert own(model, samples[:20], one).identity == said[0]


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_files_that_changed_are_other_samples(model: Path, tmp_path: Path, kind: str) -> None:
    def written(samples: list[Tensors]) -> Path:
        if kind == "npz":
            np.savez(tmp_path / "all.npz", x=np.stack([sample["x"] for sample in samples]))
            return tmp_path / "all.npz"
        (tmp_path / "folder").mkdir(exist_ok=True)
        for place, sample in enumerate(samples):
            np.save(tmp_path / "folder" / f"{place:03}.npy", sample["x"])
        return tmp_path / "folder"

    before = own(model, written(vectors(20))).identity
    assert own(model, written(vectors(21)[1:])).identity != before


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("a.npz", b"PK\x03\x04 cut off", "cannot be read"), ("a.npz", b"nothing", "cannot be read"),
     ("a.npz", "npy", "one array without a name"), ("f/a.npy", "npz", "several arrays"),
     ("f/a.npy", b"", "cannot be read"), ("f/a.npz", "damaged", "cannot be read"),
     ("f/a.npy", "short", r"a\.npy: x is")],
)  # fmt: skip
def test_files_that_are_damaged_or_something_else_are_told_by_name(
    model: Path, tmp_path: Path, name: str, content: bytes | str, words: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    kinds = {"npy": np.zeros((20, WIDTH), np.float32), "short": np.zeros(3, np.float32)}
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content in kinds:
        with path.open("wb") as file:
            np.save(file, kinds[content])
    else:
        with path.open("wb") as file:
            np.savez_compressed(file, x=vectors(1)[0]["x"])
        if content == "damaged":
            path.write_bytes(path.read_bytes().replace(path.read_bytes()[60:80], bytes(20)))
    for place in range(20) if path.parent.name == "f" else ():
        np.savez(path.parent / f"b{place}.npz", x=vectors(1)[0]["x"])
    with pytest.raises(DataError, match=words):
        own(model, path.parent if path.parent.name == "f" else path)


@pytest.mark.parametrize(
    ("terms", "error", "words"),
    [({"keep": "95"}, UsageError, "keep can be 99 or 99.9"), ({"size": "huge"}, UsageError, "size can be"),
     ({"score": 3}, UsageError, "a score is a function"), ({"keep": None}, UsageError, "keep can be")],
)  # fmt: skip
def test_terms_that_cannot_be_are_told(
    model: Path, terms: dict[str, object], error: type[SeptetError], words: str
) -> None:
    with pytest.raises(error, match=words):
        septet.optimize(model, data=vectors(20), **terms)  # type: ignore[arg-type]


def test_names_that_cannot_be_served_are_told_before_the_search(model: Path, tmp_path: Path) -> None:
    odd = model.rename(tmp_path / "half%.onnx")
    with pytest.raises(SeptetError, match="a model's name"):
        septet.optimize(odd, data=vectors(20), output=tmp_path / "s", repository=tmp_path / "m")
    upper = odd.rename(tmp_path / "A.ONNX")
    with pytest.raises(UsageError, match=r"ends in \.onnx"):
        septet.optimize(upper, data=vectors(20), output=tmp_path / "s", repository=tmp_path / "m")


def test_paths_and_percents_may_be_texts(model: Path, tmp_path: Path) -> None:
    found = septet.optimize(str(model), data=vectors(20), keep="99", minutes=1e-9,
                            output=str(tmp_path / "s"), repository=str(tmp_path / "m"))  # fmt: skip
    assert found.entry == tmp_path / "m" / "mine"
