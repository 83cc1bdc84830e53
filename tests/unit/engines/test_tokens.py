# SPDX-License-Identifier: Apache-2.0
import re
from collections.abc import Mapping

import numpy as np
import pytest

from septet.engines.model import Dims, OnnxFile
from septet.engines.tokens import sequences_of
from septet.errors import NotSequences
from septet.tensor import TensorSpec

LONG = np.dtype(np.int64)
FLOAT = np.dtype(np.float32)


def file(inputs: Mapping[str, Dims], outputs: Mapping[str, Dims], dtype: np.dtype[np.generic] = LONG) -> OnnxFile:
    def specs(of: Mapping[str, Dims], kind: np.dtype[np.generic]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name, kind, tuple(dim if isinstance(dim, int) else None for dim in dims))
            for name, dims in of.items()
        )

    return OnnxFile(specs(inputs, dtype), specs(outputs, FLOAT), False, {**inputs, **outputs})


FREE: Mapping[str, Dims] = {"ids": ("N", "L"), "attention_mask": ("N", "L")}


def test_tokens_are_told_by_the_name_of_their_dimension() -> None:
    found = sequences_of(file(FREE, {"tags": ("N", "L", 3), "maps": ("N", 4, "L", 9), "topic": ("N", 3)}))
    assert (found.inputs, found.mask, found.longest) == (("ids", "attention_mask"), "attention_mask", None)
    assert found.outputs == {"tags": 1, "maps": 2}


def test_a_dimension_without_that_name_counts_if_no_other_is_free() -> None:
    assert sequences_of(file(FREE, {"tags": ("N", "Addtags_dim_1", 3), "logits": (None, None)})).outputs == {
        "tags": 1,
        "logits": 1,
    }


def test_a_fixed_length_is_the_longest() -> None:
    fixed = sequences_of(file({"ids": ("N", 384), "mask": ("N", 384)}, {"tags": ("N", 384), "topic": ("N", 2)}))
    assert (fixed.longest, fixed.outputs) == (384, {"tags": 1})


def test_the_mask_may_be_named_by_the_caller() -> None:
    assert sequences_of(file({"a": ("N", "L"), "b": ("N", "L")}, {"y": ("N", "L")}), "b").mask == "b"


def test_of_dimensions_with_the_lengths_number_the_first_is_taken() -> None:
    square = {"states": ("N", 128, 128), "shares": ("N", 4, 128, 128)}
    assert sequences_of(file({"ids": ("N", 128), "mask": ("N", 128)}, square)).outputs == {
        "states": 1,
        "shares": 2,
    }


def test_tokens_may_be_vectors_and_the_mask_of_any_numbers() -> None:
    found = sequences_of(
        file({"frames": ("N", "L", 80), "mask": ("N", "L"), "scale": ("N", 1)}, {"y": ("N", "L", 5)}, FLOAT)
    )
    assert (found.inputs, found.mask, found.outputs) == (("frames", "mask"), "mask", {"y": 1})


@pytest.mark.parametrize(
    ("inputs", "outputs", "why"),
    [
        ({"ids": ("N", "L")}, {"y": ("N", "L")}, "no input, or more than one, is a mask [N, L]"),
        ({"mask_a": ("N", "L"), "mask_b": ("N", "L")}, {"y": ("N", "L")}, "no input, or more than one, is a mask"),
        ({"ids": ("N", "L"), "mask": ("N", "M")}, {"y": ("N", "L")}, "do not share one dimension of tokens"),
        (FREE, {"y": ("N", "A", "B")}, "more than one dimension that may be that of tokens"),
    ],
)
def test_what_has_no_sequences_is_told(inputs: Mapping[str, Dims], outputs: Mapping[str, Dims], why: str) -> None:
    with pytest.raises(NotSequences, match=re.escape(why)):
        sequences_of(file(inputs, outputs))


def test_pictures_are_no_sequences() -> None:
    with pytest.raises(NotSequences):
        sequences_of(file({"mask": ("N", "L")}, {"y": ("N", "L")}, FLOAT))
