# SPDX-License-Identifier: Apache-2.0
"""JSON lists in pieces: what they say is what they say at once."""

from __future__ import annotations

import json
import random
import tracemalloc

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from septet.errors import RequestInvalid
from septet.tensor import Array
from septet.wire import lists
from septet.wire.lists import read_list, write_list
from wire_strategies import arrays, same

NUMBERS = st.lists(
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.text(max_size=2)
    | st.none()
    | st.just([1]),
    max_size=12,
)
DTYPES = st.sampled_from([np.dtype(name) for name in ("bool", "int8", "uint64", "float32", "float64")])


def raw(text: bytes) -> msgspec.Raw:
    """`text` as a part of a document that was decoded; msgspec refuses what is no JSON."""
    return msgspec.json.decode(b'{"data": %b}' % text, type=dict[str, msgspec.Raw])["data"]


def outcome(text: bytes, dtype: np.dtype[np.generic], size: int) -> Array | None:
    """The array, or ``None`` where it is refused."""
    try:
        return read_list(raw(text), dtype, (size,), "x")
    except RequestInvalid:
        return None


@pytest.fixture(params=[1, 7])
def short_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "PIECE", request.param)
    monkeypatch.setattr(lists, "ELEMENTS_AT_ONCE", request.param)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NUMBERS, DTYPES, st.integers(-1, 1), st.sampled_from([None, 1]), st.randoms())
def test_a_list_is_read_alike_in_pieces_and_at_once(
    short_pieces: None,
    elements: list[object],
    dtype: np.dtype[np.generic],
    more: int,
    indent: int | None,
    draw: random.Random,
) -> None:
    if draw.random() < 0.7:
        elements = [element for element in elements if isinstance(element, type(elements[0]))]
    text, size = json.dumps(elements, indent=indent).encode(), max(0, len(elements) + more)
    pieces = outcome(text, dtype, size)
    before, lists.PIECE = lists.PIECE, 1 << 30
    at_once = outcome(text, dtype, size)
    lists.PIECE = before
    assert (pieces is None) == (at_once is None)
    assert pieces is None or at_once is None or same(pieces, at_once)


@pytest.mark.parametrize(
    "text", [b"[1,2,]", b"[,1,2]", b"[1,,2]", b"[1 2]", b"[1,2", b"[01,2]", b"[1,2]]", b"[1,[2]]"]
)
def test_what_is_no_list_is_none_in_pieces_either(short_pieces: None, text: bytes) -> None:
    for size in (2, 3):
        with pytest.raises((RequestInvalid, msgspec.DecodeError)):
            read_list(raw(text), np.dtype(np.int32), (size,), "x")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays(["BOOL", "INT8", "UINT64", "FP32", "FP64", "BYTES"], finite=True))
def test_a_list_is_written_alike_in_pieces_and_at_once(short_pieces: None, array: Array) -> None:
    pieces = write_list("y", array)
    before, lists.ELEMENTS_AT_ONCE = lists.ELEMENTS_AT_ONCE, 1 << 30
    assert write_list("y", array) == pieces
    lists.ELEMENTS_AT_ONCE = before
    assert len(json.loads(pieces)["data"]) == array.size


def test_a_long_list_takes_little_more_than_its_tensor() -> None:
    text = raw(b"[" + b",".join([b"1.5"] * 1_000_000) + b"]")
    tracemalloc.start()
    array = read_list(text, np.dtype(np.float32), (1_000_000,), "x")
    assert tracemalloc.get_traced_memory()[1] < 16_000_000  # at once, its objects alone take 32 MB
    tracemalloc.stop()
    assert array.sum() == 1_500_000


TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from('",\\\\[]{}'), max_size=4)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3), st.data(), st.booleans())
def test_texts_are_read_in_pieces_flat_and_nested(
    short_pieces: None, shape: tuple[int, ...], data: st.DataObject, flat: bool
) -> None:
    size = int(np.prod(shape))
    texts = data.draw(st.lists(TEXTS, min_size=size, max_size=size))
    nested = texts if flat else np.array(texts, object).reshape(shape).tolist()
    ascii_, indent = data.draw(st.booleans()), data.draw(st.sampled_from([None, 1]))
    text = json.dumps(nested, ensure_ascii=ascii_, indent=indent).encode()
    array = read_list(raw(text), np.dtype(object), shape, "x")
    assert (array.shape, array.reshape(-1).tolist()) == (shape, [each.encode() for each in texts])


@pytest.mark.parametrize(
    ("text", "shape"),
    [(b"[]", (0,)), (b"[ ]", (2, 0)), (b"[[],[ ]]", (2, 0)), (b"[[]]", (1, 0, 2, 0)), (b"[]", (0, 9))],
)
def test_lists_of_nothing(short_pieces: None, text: bytes, shape: tuple[int, ...]) -> None:
    assert read_list(raw(text), np.dtype(np.int32), shape, "x").shape == shape


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (b"[[1,2],[3,4]]", (4,)),
        (b"[[1,2,3],[4]]", (2, 2)),
        (b"[[1,2],[3,[4]]]", (2, 2)),
        (b"[[1],2,[3],4]", (2, 2)),
        (b"[[1,2],[3,4]]", (2, 1, 2)),
        (b"[[],[]]", (3, 0)),
        (b"[[1]]", (1, 0)),
        (b"[{},1]", (2,)),
    ],
)
def test_what_is_nested_otherwise_is_refused(short_pieces: None, text: bytes, shape: tuple[int, ...]) -> None:
    with pytest.raises(RequestInvalid):
        read_list(raw(text), np.dtype(np.int32), shape, "x")


@pytest.mark.parametrize("element", [b"[1.5]", b'["a"]', b'"ab"'])
def test_long_lists_of_any_kind_take_little_more_than_their_tensor(
    element: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "PIECE", 16 << 10)
    count, shape = 200_000, (200_000, 1) if element.startswith(b"[") else (200_000,)
    text = raw(b"[" + b",".join([element] * count) + b"]")
    dtype = np.dtype(np.object_ if b'"' in element else np.float32)
    tracemalloc.start()
    array = read_list(text, dtype, shape, "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    texts = 40 * count if element == b'"ab"' else 0  # those of one byte are shared
    assert peak < array.nbytes + texts + len(memoryview(text)) + 2_000_000


@pytest.mark.parametrize("size", [10**9, 2**31 - 1])
def test_a_long_list_is_counted_before_there_is_room_for_it(size: int) -> None:
    with pytest.raises(RequestInvalid):
        read_list(raw(b"[" + b"1," * 200_000 + b"1]"), np.dtype(np.int64), (size,), "x")
