# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from septet.engines.freeing import free, prove
from septet.engines.model import read_onnx
from septet.engines.tokens import sequences_of
from septet.errors import NotSequences
from septet.tensor import Array, Tensors
from sequences_made import LONGEST, WORDS, tagger


def samples() -> list[Tensors]:
    draw = np.random.default_rng(1)
    return [
        {"tokens": draw.integers(0, WORDS, size), "token_mask": np.ones(size, np.int64)}
        for size in (3, 30, LONGEST)
    ]


def freed(path: Path) -> Path:
    to = path.with_name("free.onnx")
    free(path, to, sequences_of(read_onnx(path)), samples())
    return to


@pytest.mark.parametrize("batch", ["B", 1])
def test_a_file_of_one_length_is_made_free(tmp_path: Path, batch: int | str) -> None:
    fixed = tagger(tmp_path / "fixed.onnx", LONGEST, batch)
    assert sequences_of(read_onnx(fixed)).longest == LONGEST
    free_now = read_onnx(freed(fixed))
    sequences = sequences_of(free_now)
    assert sequences.longest is None
    assert (sequences.mask, sequences.outputs) == ("token_mask", {"tags": 1})
    rows = None if batch == "B" else 1
    assert [spec.shape for spec in free_now.outputs] == [(rows, None, 3), (rows, 3)]


def test_a_file_whose_answers_depend_on_padding_is_refused(tmp_path: Path) -> None:
    heedless = tagger(tmp_path / "fixed.onnx", LONGEST, heeds=False)
    with pytest.raises(NotSequences, match=r"at 3 tokens its output tags would change by \d"):
        freed(heedless)


def change_scores(path: Path, kind: str, table: Array, name: str = "") -> None:
    """Have the network's scores go through one node more, with a constant `table`."""
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(table, "table"))
    scored = next(node for node in model.graph.node if node.output[0] == "scores")
    scored.output[0] = "plain"
    model.graph.node.insert(
        list(model.graph.node).index(scored) + 1,
        onnx.helper.make_node(kind, ["plain", "table"], ["scores"], name=name),
    )
    onnx.save(model, path)


def test_a_table_of_who_sees_whom_is_made_free_in_both_dimensions(tmp_path: Path) -> None:
    path = tagger(tmp_path / "fixed.onnx", LONGEST)
    change_scores(path, "Add", np.triu(np.full((1, LONGEST, LONGEST), -1e4, np.float32), 1))
    assert sequences_of(read_onnx(freed(path))).longest is None


def test_a_file_that_has_its_length_where_nobody_looks_for_it_is_refused(tmp_path: Path) -> None:
    path = tagger(tmp_path / "fixed.onnx", LONGEST)
    change_scores(path, "MatMul", np.eye(LONGEST, dtype=np.float32), name="mixed")
    with pytest.raises(NotSequences, match=r"does not run with a length of its own: .*mixed"):
        freed(path)


def test_a_file_that_is_free_already_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(NotSequences, match="free already"):
        freed(tagger(tmp_path / "free.onnx", "L"))


def test_padding_that_a_sample_brings_is_what_its_answers_are_held_against(tmp_path: Path) -> None:
    free_already = tagger(tmp_path / "free.onnx", "L", heeds=False)
    sequences = sequences_of(read_onnx(free_already))
    same, other = (
        {"tokens": np.array([3, 5, *more]), "token_mask": np.array([1, 1, *[0] * len(more)])}
        for more in ([], [9, 9, 9])
    )
    prove(free_already, free_already, sequences, 2, [same])
    with pytest.raises(NotSequences, match="at 2 tokens its output tags would change"):
        prove(free_already, free_already, sequences, 5, [other])


def test_an_output_without_a_row_for_each_sequence_is_told(tmp_path: Path) -> None:
    path = tagger(tmp_path / "free.onnx", "L")
    model = onnx.load(path)
    model.graph.node.append(onnx.helper.make_node("Shape", ["tokens"], ["how many"], name="counted"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("how many", onnx.TensorProto.INT64, [2]))
    onnx.save(model, path)
    with pytest.raises(NotSequences, match=r"how many is \[2\], without a row for each sequence"):
        prove(path, path, sequences_of(read_onnx(path)), LONGEST, samples())


def test_an_answer_of_the_wrong_length_is_told(tmp_path: Path) -> None:
    fixed = tagger(tmp_path / "fixed.onnx", LONGEST)
    sequences = sequences_of(read_onnx(fixed))
    with pytest.raises(NotSequences, match="does not run"):
        prove(fixed, fixed, sequences, LONGEST, samples())


@pytest.mark.parametrize("length", [LONGEST, "L"])
def test_an_output_that_is_as_wide_as_the_longest_is_long_stays_so(tmp_path: Path, length: int | str) -> None:
    """`broad`, float32 [B, 64 or ?], is no output of tokens."""
    path = tagger(tmp_path / "made.onnx", length)
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((3, LONGEST), np.float32), "broadening"))
    model.graph.node.append(onnx.helper.make_node("MatMul", ["topic", "broadening"], ["broad"], name="broadened"))
    shape = ["B", LONGEST if length == LONGEST else None]
    model.graph.output.append(onnx.helper.make_tensor_value_info("broad", onnx.TensorProto.FLOAT, shape))
    onnx.save(model, path)
    sequences = sequences_of(read_onnx(path))
    assert sequences.outputs == {"tags": 1, "broad": 1}
    to = path
    if length == LONGEST:
        to = path.with_name("free.onnx")
        assert free(path, to, sequences, samples()).outputs == {"tags": 1}
        assert read_onnx(to).dims["broad"] == ("B", LONGEST)
    assert prove(path, to, sequences, LONGEST, samples()).outputs == {"tags": 1}
