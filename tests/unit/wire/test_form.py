# SPDX-License-Identifier: Apache-2.0
"""Requests of a document that was read before: they say what they would have said the first time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from septet.errors import RegionUnknown
from septet.request import Region, Request, Response, Wanted
from septet.tensor import objects
from septet.wire import json as wire
from septet.wire.form import ANSWERS, Form
from septet.wire.head import LATER, Placed
from septet.wire.shared import Shared
from septet.wire.shm import Regions
from wire_strategies import requests, same

NOTHING = Regions()
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def read(request: Request) -> tuple[bytes, int]:
    """The body of `request`, read once, and the length of its document."""
    body = wire.write_request(request)
    whole = b"".join(body.chunks)
    length = len(whole) if body.length is None else body.length
    wire.read_request("m", "", whole, length)
    return whole, length


def form_of(request: Request) -> Form | None:
    return wire.known_form("m", "", *read(request))


@settings(deadline=None)
@given(requests(), st.data())
def test_a_request_of_a_known_form_is_what_it_was_before(request: Request, data: st.DataObject) -> None:
    body, length = read(request)
    form = wire.known_form("m", "", body, length)
    fixed = all(array.dtype.kind != "O" for array in request.inputs.values())
    assert (form is not None) == (fixed and length <= wire.LONGEST)
    if form is None:
        return
    tail = data.draw(st.binary(min_size=len(body) - length, max_size=len(body) - length))
    for other in (body, body[:length] + tail, bytearray(body), memoryview(body)):
        again = wire.known_form("m", "", other, length)
        assert again is form
        got, draft = form.request(other, NOTHING), wire.read_request("m", "", other, length)
        expected = draft.request(NOTHING)
        assert draft.binary == form.binary
        for field in ("model", "version", "id", "wanted", "parameters", "likeness"):
            assert getattr(got, field) == getattr(expected, field)
        assert got.parameters is not form.head.parameters
        assert list(got.inputs) == list(expected.inputs)
        assert all(same(got.inputs[name], array) for name, array in expected.inputs.items())
    for size in (-1, 1):
        assert wire.known_form("m", "", body[: len(body) + size] + b"x" * max(0, size), length) is None
    assert wire.known_form("m", "1", body, length) is None


@pytest.mark.parametrize(
    "request_",
    [
        Request("m", {"x": X}, wanted=(Wanted("y", region=Region("r", 0, 24)),)),
        Request("m", {"x": objects([b"a", b"b"], (2,))}),
    ],
)
def test_what_is_to_go_to_regions_or_of_no_fixed_size_has_no_form(request_: Request) -> None:
    assert form_of(request_) is None


def placed(shared: Shared, size: int) -> tuple[bytes, int]:
    """The body, read once, of a request whose input ``x`` is in `shared`, said to be `size` bytes, and whose input
    ``w`` lies behind the document; and that document's length."""
    place = Placed(Region(shared.name, 0, size), X.dtype, X.shape)
    body = wire.write_request(Request("m", {"w": X}), {"x": place})
    assert body.length is not None
    whole = b"".join(body.chunks)
    wire.read_request("m", "", whole, body.length)
    return whole, body.length


def test_of_a_known_form_what_lies_in_regions_is_read_anew() -> None:
    shared = Shared(24)
    try:
        body, length = placed(shared, X.nbytes)
        form = wire.known_form("m", "", body, length)
        assert form is not None
        for factor in (1, 2):
            shared.clear()
            shared.put(factor * X)
            inputs = form.request(body, shared.regions).inputs
            assert list(inputs) == ["w", "x"]
            np.testing.assert_array_equal(inputs["w"], X)
            np.testing.assert_array_equal(inputs["x"], factor * X)
        shared.regions.unregister(shared.name)
        with pytest.raises(RegionUnknown):
            form.request(body, shared.regions)
    finally:
        shared.close()


@pytest.mark.parametrize("known", [False, True])
def test_what_is_large_and_lies_in_a_region_is_read_when_it_is_fetched(known: bool) -> None:
    """And from where it lay when the request came."""
    large = np.arange(LATER // 4, dtype=np.float32)
    shared, other = Shared(large.nbytes), Shared(large.nbytes)
    try:
        body = wire.write_request(Request("m", {}), {"x": shared.put(large)})
        whole = b"".join(body.chunks)
        draft = wire.read_request("m", "", whole, len(whole))
        form = wire.known_form("m", "", whole, len(whole))
        assert form is not None
        request = form.request(whole, shared.regions) if known else draft.request(shared.regions)
        stands = request.inputs["x"]
        assert (stands.dtype, stands.shape, stands.nbytes) == (large.dtype, large.shape, large.nbytes)
        shared.clear()
        shared.put(large + 1)
        shared.regions.unregister(shared.name)
        shared.regions.register(shared.name, other.key, 0, other.size)
        request.fetch()
        request.fetch()
        np.testing.assert_array_equal(request.inputs["x"], large + 1)
        shared.regions.unregister(shared.name)
        with pytest.raises(RegionUnknown):
            form.request(whole, shared.regions)
        with pytest.raises(RegionUnknown):
            draft.request(shared.regions)
    finally:
        shared.close()
        other.close()


@pytest.mark.parametrize("size", [0, 23, 25])
def test_a_region_of_another_size_than_the_tensor_has_no_form(size: int) -> None:
    shared = Shared(100)
    try:
        assert wire.known_form("m", "", *placed(shared, size)) is None
    finally:
        shared.close()


def test_tensors_of_one_name_have_no_form() -> None:
    tensor = '{"name":"x","datatype":"UINT8","shape":[1],"parameters":{"binary_data_size":1}}'
    text = f'{{"inputs":[{tensor},{tensor}]}}'.encode()
    wire.read_request("m", "", text + b"ab", len(text))
    assert wire.known_form("m", "", text + b"ab", len(text)) is None


@pytest.mark.parametrize("size", [0, 11, 13])
def test_a_declared_size_that_is_none_of_the_shape_has_no_form(size: int) -> None:
    tensor = f'{{"name":"x","datatype":"FP32","shape":[3],"parameters":{{"binary_data_size":{size}}}}}'
    text = f'{{"inputs":[{tensor}]}}'.encode()
    body = text + bytes(size)
    wire.read_request("m", "", body, len(text))
    assert wire.known_form("m", "", body, len(text)) is None


@pytest.mark.parametrize(
    ("wanted", "raw"),
    [
        ((), True),
        ((Wanted("y"),), True),
        ((Wanted("y", binary=True), Wanted("z", binary=True)), True),
        ((Wanted("y", binary=True), Wanted("z", binary=False)), False),
        ((Wanted("y", classes=2, binary=True),), False),
    ],
)
def test_answers_in_binary_as_they_are_begin_alike(wanted: tuple[Wanted, ...], raw: bool) -> None:
    form = form_of(Request("m", {"x": X}, wanted=wanted))
    assert form is not None
    assert (form.kind(Response("m", "1", "", {"y": X})) is not None) == raw


def test_kinds_of_answers_differ_where_their_beginnings_do() -> None:
    form = form_of(Request("m", {"x": X}))
    assert form is not None
    responses = [
        Response("m", "1", "", {"y": X}),
        Response("m", "2", "", {"y": X}),
        Response("m", "1", "", {"z": X}),
        Response("m", "1", "", {"y": X.astype(np.float64)}),
        Response("m", "1", "", {"y": X.reshape(3, 2)}),
        Response("m", "1", "", {"y": X, "z": X}),
        Response("m", "1", "", {"z": X, "y": X}),
        Response("m", "1"),
    ]
    kinds = [form.kind(response) for response in responses]
    assert None not in kinds
    assert len(set(kinds)) == len(responses)
    assert form.kind(Response("m", "1", "", {"y": X + 1})) == kinds[0]
    assert form.kind(Response("m", "1", "", {"y": X}, {"p": 1})) is None


def test_few_beginnings_are_kept() -> None:
    form = form_of(Request("m", {"x": X}))
    assert form is not None
    for number in range(10 * ANSWERS):
        form.beginnings.keep(number, b"")
        assert len(form.beginnings) <= ANSWERS


def test_an_answer_from_a_region_that_nobody_named_is_read_or_refused() -> None:
    """Whatever its size: an answer is taken whole."""
    shared = Shared(2 * LATER)
    try:
        large = np.arange(LATER // 4, dtype=np.float32)
        place = shared.put(large)
        parameters = f'"shared_memory_region":"{shared.name}","shared_memory_byte_size":{place.region.size}'
        tensor = f'{{"name":"y","datatype":"FP32","shape":[{large.size}],"parameters":{{{parameters}}}}}'
        text = f'{{"model_name":"m","model_version":"1","outputs":[{tensor}]}}'.encode()
        got = wire.ResponseReader(shared.regions).read(text, len(text))
        np.testing.assert_array_equal(got.outputs["y"], large)
        with pytest.raises(RegionUnknown):
            wire.ResponseReader(Regions()).read(text, len(text))
    finally:
        shared.close()
