# SPDX-License-Identifier: Apache-2.0
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from septet.pipelines.sequence import STEP, Sequences
from septet.tensor import Tensors

ROLES = Sequences(("ids", "mask"), "mask", {"tags": 1, "shares": 2}, 384)


def sample(length: int, padded: int | None = None) -> Tensors:
    ids = np.arange(1, length + 1)
    mask = np.ones(length, np.int64)
    more = (0, (padded or length) - length)
    return {"ids": np.pad(ids, more), "mask": np.pad(mask, more), "weight": np.array([0.5], np.float32)}


def test_a_bucket_is_the_next_step_but_never_longer_than_the_network_takes() -> None:
    assert [ROLES.bucket(length) for length in (1, 8, 9, 377, 384)] == [STEP, 8, 16, 384, 384]
    assert Sequences(("ids",), "ids", {}, 50).bucket(49) == 50
    assert Sequences(("ids",), "ids", {}).bucket(700) == 704


@given(st.lists(st.integers(1, 384), min_size=1, max_size=6))
def test_what_is_cut_and_joined_has_its_own_tokens_and_zeros_after(lengths: list[int]) -> None:
    cut = [ROLES.cut(sample(length, 384)) for length in lengths]
    assert [len(one["ids"]) for one in cut] == lengths
    batch = ROLES.join(cut)
    assert batch["ids"].shape == (len(lengths), ROLES.bucket(max(lengths)))
    assert batch["weight"].shape == (len(lengths), 1)
    assert ROLES.lengths(batch).tolist() == lengths
    for row, length in zip(batch["ids"], lengths, strict=True):
        assert row[:length].tolist() == list(range(1, length + 1))
        assert not row[length:].any()


def test_tokens_may_be_vectors() -> None:
    roles = Sequences(("frames", "mask"), "mask", {})
    cut = [roles.cut({"frames": np.ones((9, 3), np.float32), "mask": np.arange(9) < length}) for length in (4, 6)]
    assert [one["frames"].shape for one in cut] == [(4, 3), (6, 3)]
    assert roles.join(cut)["frames"].sum(axis=(1, 2)).tolist() == [12, 18]


def test_a_mask_of_zeros_alone_leaves_one_token() -> None:
    assert ROLES.length({"mask": np.zeros(9, np.int64)}) == 1


def test_holes_and_padding_before_stay() -> None:
    assert ROLES.length({"mask": np.array([0, 0, 1, 0, 1, 0])}) == 5


def test_outputs_are_parted_along_their_own_dimension_of_tokens() -> None:
    outputs = {"tags": np.zeros((2, 9, 3)), "shares": np.zeros((2, 4, 9, 9)), "topic": np.zeros((2, 3))}
    one, other = ROLES.part(outputs, np.array([9, 4]))
    assert {name: array.shape for name, array in other.items()} == {
        "tags": (4, 3), "shares": (4, 4, 9), "topic": (3,)
    }  # fmt: skip
    assert one["tags"].shape == (9, 3)
