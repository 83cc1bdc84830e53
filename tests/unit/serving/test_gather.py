# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from septet.errors import InferenceFailed, RequestInvalid
from septet.model_config.text import parse
from septet.request import Request, Wanted
from septet.serving.gather import Gather
from septet.serving.pending import Pending
from septet.serving.signature import Signature
from septet.tensor import Array
from serving_made import Answers

CONFIG = """
name: "m"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
input { name: "s" data_type: TYPE_STRING dims: [ 1 ] optional: true }
output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "z" data_type: TYPE_INT64 dims: [ 1 ] }
"""
RESHAPED = """
name: "m"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
input { name: "w" data_type: TYPE_FP32 dims: [ 2, -1 ] reshape { shape: [ 1, 2, -1 ] } }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
"""
RAGGED = """
name: "m"
max_batch_size: 8
input { name: "ids" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }
output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }
batch_input { kind: BATCH_ELEMENT_COUNT target_name: "count" data_type: TYPE_INT32 source_input: "ids" }
batch_input { kind: BATCH_ACCUMULATED_ELEMENT_COUNT target_name: "ends" data_type: TYPE_FP32 source_input: "ids" }
batch_input {
  kind: BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO target_name: "cu" data_type: TYPE_INT32 source_input: "ids"
}
batch_input {
  kind: BATCH_MAX_ELEMENT_COUNT_AS_SHAPE target_name: "most" data_type: TYPE_INT32 source_input: "ids"
}
batch_input { kind: BATCH_ITEM_SHAPE target_name: "shapes" data_type: TYPE_INT32 source_input: "ids" }
batch_input { kind: BATCH_ITEM_SHAPE_FLATTEN target_name: "flat" data_type: TYPE_INT32 source_input: "ids" }
batch_output { target_name: "y" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "ids" }
"""


class Bed:
    def __init__(self, config: str) -> None:
        parsed = parse(config)
        self.signature = Signature(parsed)
        self.gather = Gather(parsed, self.signature)

    def pending(self, inputs: dict[str, Array], *wanted: str) -> tuple[Pending, Answers]:
        request, answers = Request("m", inputs, wanted=tuple(map(Wanted, wanted))), Answers()
        return Pending(request, answers, "1", self.signature.check(request)), answers


def floats(*shape: int, start: int = 0) -> Array:
    return np.arange(start, start + np.prod(shape), dtype=np.float32).reshape(shape)


def test_requests_are_joined_and_cut_again() -> None:
    bed = Bed(CONFIG)
    (one, first), (two, second) = bed.pending({"x": floats(1, 3)}), bed.pending({"x": floats(2, 3, start=9)}, "z")
    joined = bed.gather.join([one, two])["x"]
    assert joined.shape == (3, 3)
    bed.gather.answer([one, two], {"y": joined + 1, "z": np.array([[1], [2], [3]])})
    assert np.array_equal(first.responses[0].outputs["y"], floats(1, 3) + 1)
    assert list(second.responses[0].outputs) == ["z"]
    assert second.responses[0].outputs["z"].tolist() == [[2], [3]]


def test_one_request_alone_is_not_copied() -> None:
    bed = Bed(CONFIG)
    x = floats(2, 3)
    assert bed.gather.join([bed.pending({"x": x})[0]])["x"] is x


@pytest.mark.parametrize(
    "outputs",
    [
        {"y": floats(3, 3)},
        {"y": floats(2, 3), "z": np.zeros((3, 1), np.int64)},
        {"y": floats(3, 3).astype(np.float64), "z": np.zeros((3, 1), np.int64)},
        {"y": np.float32(3).reshape(()), "z": np.zeros((3, 1), np.int64)},
    ],
    ids=["missing", "too few", "dtype", "scalar"],
)
def test_outputs_that_do_not_fit_are_an_error_before_anybody_is_answered(outputs: dict[str, Array]) -> None:
    bed = Bed(CONFIG)
    (one, first), (two, second) = bed.pending({"x": floats(1, 3)}), bed.pending({"x": floats(2, 3)})
    with pytest.raises(InferenceFailed):
        bed.gather.answer([one, two], outputs)
    assert (first.responses, second.responses) == ([], [])


def test_tensors_take_the_shape_of_the_file_and_back() -> None:
    bed = Bed(RESHAPED)
    one, first = bed.pending({"x": floats(1, 1), "w": floats(1, 2, 5)})
    two, second = bed.pending({"x": floats(2, 1), "w": floats(2, 2, 5)})
    joined = bed.gather.join([one, two])
    assert (joined["x"].shape, joined["w"].shape) == ((3,), (3, 1, 2, 5))
    bed.gather.answer([one, two], {"y": joined["x"]})
    assert (first.responses[0].outputs["y"].shape, second.responses[0].outputs["y"].shape) == ((1, 1), (2, 1))


def test_requests_of_different_length_become_one_row_and_where_each_begins() -> None:
    bed = Bed(RAGGED)
    (one, first), (two, second) = bed.pending({"ids": floats(1, 3)}), bed.pending({"ids": floats(2, 2, start=5)})
    joined = bed.gather.join([one, two])
    assert joined["ids"].tolist() == [0, 1, 2, 5, 6, 7, 8]
    assert joined["count"].tolist() == [3, 4]
    assert joined["ends"].tolist() == [3, 7]
    assert joined["ends"].dtype == np.float32
    assert joined["cu"].tolist() == [0, 3, 7]
    assert joined["most"].shape == (4,)
    assert joined["shapes"].tolist() == [[3], [2], [2]]
    assert joined["flat"].tolist() == [3, 2, 2]
    bed.gather.answer([one, two], {"y": joined["ids"] * 2})
    assert np.array_equal(first.responses[0].outputs["y"], 2 * floats(1, 3))
    assert np.array_equal(second.responses[0].outputs["y"], 2 * floats(2, 2, start=5))


@pytest.mark.parametrize(
    ("inputs", "wanted", "words"),
    [
        ({}, [], "expected 1 inputs but got 0 .*missing 'x'"),
        ({"x": floats(1, 3), "q": floats(1, 3)}, [], "no input 'q'"),
        ({"x": floats(1, 3).astype(np.int32)}, [], "is INT32, but model 'm' takes FP32"),
        ({"x": floats(1, 3).astype(np.complex64)}, [], "is complex64"),
        ({"x": floats(3)}, [], r"expected \[-1,-1\], got \[3\]"),
        ({"x": np.zeros((), np.float32)}, [], r"got \[\]"),
        ({"x": floats(9, 1)}, [], "batch size 9 is not between 1 and 8"),
        ({"x": floats(0, 1)}, [], "batch size 0"),
        ({"x": floats(0, 1), "s": np.full((2, 1), b"", object)}, [], "'s' of 'm' has batch size 2, others have 0"),
        ({"x": floats(2, 1), "s": np.full((0, 1), b"", object)}, [], "'s' of 'm' has batch size 0, others have 2"),
        ({"x": floats(2, 1), "s": np.full((1, 1), b"", object)}, [], "'s' of 'm' has batch size 1, others have 2"),
        ({"x": floats(1, 3)}, ["nope"], "no output 'nope'"),
        ({"x": floats(1, 3)}, ["y", "y"], "asked for twice"),
    ],
)
def test_a_request_that_does_not_fit_is_told(inputs: dict[str, Array], wanted: list[str], words: str) -> None:
    with pytest.raises(RequestInvalid, match=words):
        Bed(CONFIG).pending(inputs, *wanted)


def test_only_requests_alike_share_a_batch() -> None:
    bed = Bed(CONFIG)
    string = np.full((1, 1), b"", object)
    keys = [
        bed.signature.key(Request("m", inputs))
        for inputs in (
            {"x": floats(1, 3)},
            {"x": floats(2, 3)},
            {"x": floats(1, 4)},
            {"x": floats(1, 3), "s": string},
        )
    ]
    assert keys[0] == keys[1]
    assert len({keys[0], keys[2], keys[3]}) == 3
