# SPDX-License-Identifier: Apache-2.0
"""v2 JSON: what crosses comes back the same, and what is wrong is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from septet.errors import RequestInvalid, SeptetError
from septet.request import SCHEDULING, Region, Request, Response, Wanted
from septet.tensor import KSERVE_NAMES, Array
from septet.wire import json as wire
from septet.wire.shm import Regions
from wire_strategies import arrays, requests, responses, same

NOTHING = Regions()
JSONABLE = [
    "BOOL",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "FP32",
    "FP64",
    "BYTES",
]


def read(document: object, tail: bytes = b"") -> Request:
    text = document if isinstance(document, bytes) else msgspec.json.encode(document)
    return wire.read_request("m", "", text + tail, len(text)).request(NOTHING)


WRONG_KINDS = ["abc", "1", True, 1.5, -1]


def one(data: object, datatype: str = "INT32", shape: list[int] | None = None) -> dict[str, object]:
    return {"inputs": [{"name": "x", "datatype": datatype, "shape": shape or [1], "data": data}]}


@settings(deadline=None)
@given(requests())
def test_requests_cross_whole(request: Request) -> None:
    body = wire.write_request(request)
    whole = b"".join(body.chunks)
    length = len(whole) if body.length is None else body.length
    back = wire.read_request("model", request.version, whole, length).request(NOTHING)
    assert (back.id, back.version) == (request.id, request.version)
    assert back.parameters == request.parameters
    assert [(want.name, want.classes) for want in back.wanted] == [
        (want.name, want.classes) for want in request.wanted
    ]
    assert list(back.inputs) == list(request.inputs)
    assert all(same(back.inputs[name], array) for name, array in request.inputs.items())


@settings(deadline=None)
@given(responses())
def test_responses_cross_whole_in_binary(response: Response) -> None:
    body = wire.write_response(Request("model", {}), response, NOTHING, True)
    whole = b"".join(body.chunks)
    back = wire.ResponseReader(NOTHING).read(whole, len(whole) if body.length is None else body.length)
    assert (back.model, back.version, back.id) == (response.model, response.version, response.id)
    assert back.parameters == response.parameters
    assert all(same(back.outputs[name], array) for name, array in response.outputs.items())


@settings(deadline=None)
@given(st.lists(responses(), min_size=1, max_size=4), st.data())
def test_a_reader_of_many_responses_takes_each_for_itself(some: list[Response], data: st.DataObject) -> None:
    """Also where a document comes again with other elements behind it, and after one that is none."""
    reader = wire.ResponseReader(NOTHING)
    for response in data.draw(st.lists(st.sampled_from(some), min_size=2, max_size=6)):
        body = wire.write_response(Request("model", {}), response, NOTHING, True)
        whole = b"".join(body.chunks)
        length = len(whole) if body.length is None else body.length
        fixed = all(array.dtype.kind != "O" for array in response.outputs.values())
        tail = bytes(reversed(whole[length:])) if fixed and data.draw(st.booleans()) else whole[length:]
        got = reader.read(whole[:length] + tail, length)
        expected = wire.ResponseReader(NOTHING).read(whole[:length] + tail, length)
        assert (got.model, got.version, got.id) == (expected.model, expected.version, expected.id)
        assert got.parameters == expected.parameters
        assert list(got.outputs) == list(expected.outputs)
        assert all(same(got.outputs[name], array) for name, array in expected.outputs.items())
        got.parameters["p"] = 1  # what its caller does to it is no other's
        got.outputs["o"] = np.zeros(1)
        if data.draw(st.booleans()):
            with pytest.raises(RequestInvalid):
                reader.read(whole[:length] + tail + b"x", length)
            with pytest.raises(RequestInvalid):
                reader.read(b"{", 1)


@settings(deadline=None)
@given(arrays(JSONABLE, finite=True), st.booleans())
def test_tensors_cross_as_lists_flat_and_nested(array: Array, nest: bool) -> None:
    body = wire.write_response(Request("m", {}), Response("m", outputs={"y": array}), NOTHING, False)
    assert body.length is None
    document = msgspec.json.decode(b"".join(body.chunks))
    (tensor,) = document["outputs"]
    data = np.array(tensor["data"], object).reshape(array.shape).tolist() if nest else tensor["data"]
    back = read(one(data, KSERVE_NAMES[array.dtype], list(array.shape))) if array.ndim else None
    assert back is not None
    assert same(back.inputs["x"], array)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_bytes_whatever_do_more_than_refuse(noise: bytes, length: int) -> None:
    with pytest.raises(RequestInvalid):
        wire.read_request("m", "", noise, min(length, len(noise)))


FIELDS = ["inputs", "outputs", "name", "shape", "datatype", "data", "parameters", "binary_data_size", "id"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None, max_examples=300)
@given(
    st.fixed_dictionaries(
        {"inputs": st.lists(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6), max_size=2)}
    )
)
def test_no_document_whatever_does_more_than_refuse(document: dict[str, object]) -> None:
    with contextlib.suppress(SeptetError):
        read(document)


@pytest.mark.parametrize(
    ("data", "datatype"),
    [
        ([3_000_000_000], "INT32"),
        ([-1], "UINT8"),
        ([256], "UINT8"),
        ([2**64], "UINT64"),
        ([10**400], "INT64"),
        ([1.5], "INT32"),
        ([True], "INT32"),
        ([1], "BOOL"),
        (["1"], "FP32"),
        ([1e39], "FP32"),
        ([1], "BYTES"),
        ([None], "FP32"),
        ([[1]], "INT32"),
        ([1, 2], "INT32"),
        ([], "INT32"),
        (1, "INT32"),
        ({"a": 1}, "INT32"),
        ([1.0], "FP16"),
        ([1.0], "BF16"),
        ([1], "INT128"),
        ([1], ""),
    ],
)
def test_elements_that_do_not_fit_are_refused(data: object, datatype: str) -> None:
    with pytest.raises(RequestInvalid):
        read(one(data, datatype))


@pytest.mark.parametrize("text", [b"NaN", b"Infinity", b"-Infinity", b'"\\ud800"', b"1e999"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    template = b'{"inputs":[{"name":"x","datatype":"%b","shape":[1],"data":[%b]}]}'
    with pytest.raises(RequestInvalid):
        read(template % (b"BYTES" if b'"' in text else b"FP32", text))


def test_nan_goes_out_in_binary_only() -> None:
    response = Response("m", outputs={"y": np.array([np.nan], np.float32)})
    with pytest.raises(RequestInvalid, match="binary_data"):
        wire.write_response(Request("m", {}), response, NOTHING, False)
    assert wire.write_response(Request("m", {}), response, NOTHING, True).length is not None


@pytest.mark.parametrize(
    "shape",
    [
        [2**32, 2**32],
        [-1],
        [2**63],
        [2**64],
        [1] * 10_000,
        [10**30],
        [0, 2**40],
        [2**31, 0],
        [0, *[2**31 - 1] * 3],
    ],
)
def test_shapes_that_cannot_be_are_refused(shape: list[int]) -> None:
    region = {"shared_memory_region": "r", "shared_memory_byte_size": 4}
    places: list[dict[str, Any]] = [{}, {"binary_data_size": 0}, {"binary_data_size": 4}, region]
    for parameters in places:
        tensor = {"name": "x", "datatype": "INT32", "shape": shape, "parameters": parameters}
        document = {"inputs": [tensor if parameters else tensor | {"data": [1]}]}
        with pytest.raises(RequestInvalid):
            read(document, b"abcd"[: parameters.get("binary_data_size", 0)])


@pytest.mark.parametrize("size", [3, 5, -1, 2**63, 10**30, 1.5, True, "4"])
def test_declared_sizes_are_true(size: object) -> None:
    tensor = {"name": "x", "datatype": "INT32", "shape": [1], "parameters": {"binary_data_size": size}}
    with pytest.raises(RequestInvalid):
        read({"inputs": [tensor]}, b"abcd")


@pytest.mark.parametrize("raw", [b"\xff\xff\xff\xffab", b"\x01\0\0\0ab", b"\x01\0\0", b"", bytes(8)])
def test_bytes_tensors_are_whole(raw: bytes) -> None:
    tensor = {"name": "x", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(raw)}}
    with pytest.raises(RequestInvalid):
        read({"inputs": [tensor]}, raw)


def test_nothing_follows_the_tensors() -> None:
    tensor = {"name": "x", "datatype": "INT32", "shape": [1], "parameters": {"binary_data_size": 4}}
    with pytest.raises(RequestInvalid, match="additional"):
        read({"inputs": [tensor]}, b"abcde")


@pytest.mark.parametrize(
    "document",
    [
        one([1]) | {"inputs": [*one([1])["inputs"], *one([1])["inputs"]]},  # type: ignore[misc]
        one([1]) | {"outputs": [{"name": "y"}, {"name": "y"}]},
        one([1]) | {"parameters": {"triton_secret": 1}},
        one([1]) | {"parameters": {str(number): 1 for number in range(2000)}},
        one([1]) | {"parameters": {"a": None}},
        one([1]) | {"parameters": {"a": [1]}},
        one([1]) | {"parameters": {"binary_data_output": 1}},
        one([1]) | {"outputs": [{"name": "y", "parameters": {"classification": -1}}]},
        one([1]) | {"outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]},
        one([1]) | {"outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]},
        one([1]) | {"id": 7},
        one([1]) | {"parameters": {"a": 2**70}},
        one([1]) | {"parameters": {"a": -(2**63) - 1}},
        one([1]) | {"outputs": [{"name": "y", "parameters": {"a": 2**64}}]},
        {"inputs": [one([1])["inputs"][0] | {"parameters": {"a": 2**64}}]},  # type: ignore[index]
        *(one([1]) | {"parameters": {name: value}} for name in sorted(SCHEDULING) for value in WRONG_KINDS),
        {},
        {"inputs": None},
        [],
    ],
)
def test_requests_that_make_no_sense_are_refused(document: object) -> None:
    with pytest.raises(RequestInvalid):
        read(document)


def test_depth_and_breadth_have_limits() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(RequestInvalid):
        read(b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":' + deep + b"}]}")
    with pytest.raises(RequestInvalid):
        read(b'{"inputs":' + deep + b"}")
    keys = b",".join(b'"%d":1' % number for number in range(1_000_000))
    with pytest.raises(RequestInvalid):
        read(b'{"inputs":[],"parameters":{' + keys + b"}}")


def test_documents_that_are_long_by_anything_but_elements_are_refused_before_they_are_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "_request", None)
    tensor = b'{"name":"x","datatype":"INT8","shape":[1],"data":[1]}'
    for document in (
        b'{"inputs":[' + b",".join([tensor] * 30_000) + b"]}",
        b'{"inputs":[{"name":"x","datatype":"INT8","shape":[' + b"1," * 600_000 + b'1],"data":[1]}]}',
        b'{"inputs":[],"outputs":[' + b",".join([b'{"name":"y"}'] * 100_000) + b"]}",
    ):
        with pytest.raises(RequestInvalid, match="too much"):
            wire.read_request("m", "", document, len(document))


def test_elements_are_read_last() -> None:
    document = msgspec.json.encode(one([1, 2, 3], "INT64", [3]))
    draft = wire.read_request("m", "", document, len(document))
    assert draft.room() == 24
    assert draft.outline().inputs["x"].shape == (3,)
    assert draft.request(NOTHING).inputs["x"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("shape", [[2**62, 2**62], [-1], [1] * 100, [10**30]])
def test_an_outline_has_a_shape_that_can_be(shape: list[int]) -> None:
    tensor = {"name": "y", "datatype": "INT8", "shape": shape, "parameters": {"binary_data_size": 1}}
    document = msgspec.json.encode({"inputs": [tensor]})
    with pytest.raises(RequestInvalid):
        wire.read_request("m", "", document + b"1", len(document)).outline()


@pytest.mark.parametrize("text", ["abc", "-1", "11", "1e1", " 5", "", "²", "9" * 30])
def test_a_header_length_is_a_number_within_the_body(text: str) -> None:
    with pytest.raises(RequestInvalid, match="in range"):
        wire.header_length(text.encode(), 10)


def test_header_lengths() -> None:
    assert wire.header_length(None, 10) == 10
    assert wire.header_length(b"0", 10) == 0
    assert wire.header_length(b"10", 10) == 10


def test_raw_requests() -> None:
    dtype = np.dtype(np.float32)
    got = wire.read_raw("m", "", bytes(24), "x", dtype, (-1, 3))
    assert got.request(NOTHING).inputs["x"].shape == (2, 3)
    assert got.binary
    for body, shape in ((bytes(23), (-1, 3)), (bytes(8), (3,)), (bytes(8), (-1, -1)), (bytes(4), (-1, 0))):
        with pytest.raises(RequestInvalid):
            wire.read_raw("m", "", body, "x", dtype, shape)


def test_a_raw_request_of_bytes_is_one_element() -> None:
    dtype = np.dtype(object)
    assert wire.read_raw("m", "", b"abc", "x", dtype, (1, 1)).request(NOTHING).inputs["x"].tolist() == [[b"abc"]]
    with pytest.raises(RequestInvalid):
        wire.read_raw("m", "", b"abc", "x", dtype, (2,))


def test_what_is_written_element_by_element() -> None:
    outputs: dict[str, Array] = {
        name: np.zeros(size, np.float32) for name, size in {"said": 1, "raw": 10, "placed": 100}.items()
    }
    wanted = (Wanted("raw", binary=True), Wanted("placed", region=Region("there", 0, 400)))
    request, response = Request("m", {}, wanted=wanted), Response("m", "1", "", outputs)
    assert wire.written(request, response, binary=False) == 4
    assert wire.written(request, response, binary=True) == 0
    outputs["texts"] = np.array([b"a", b"b"], object)
    assert wire.written(request, response, binary=True) == 16
