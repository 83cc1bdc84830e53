# SPDX-License-Identifier: Apache-2.0
"""Protobuf by hand against protobuf itself."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from septet.errors import RequestInvalid, SeptetError
from septet.request import Request, Response
from septet.stubs import service_pb2
from septet.tensor import KSERVE_DTYPES, Array, to_raw
from septet.wire import contents, proto
from septet.wire.shm import Regions
from wire_strategies import arrays, requests, responses, same

NOTHING = Regions()
FIXED = sorted(KSERVE_DTYPES.keys() - {"BYTES"})


@settings(deadline=None)
@given(requests())
def test_requests_cross_whole(request: Request) -> None:
    whole = b"".join(proto.write_request(request))
    parsed = service_pb2.ModelInferRequest.FromString(whole)
    assert list(parsed.raw_input_contents) == [bytes(to_raw(array)) for array in request.inputs.values()]
    for message in (whole, parsed.SerializeToString()):
        back = proto.read_request(message).request(NOTHING)
        assert (back.model, back.version, back.id) == (request.model, request.version, request.id)
        assert back.parameters == request.parameters
        assert [(w.name, w.classes) for w in back.wanted] == [(w.name, w.classes) for w in request.wanted]
        assert list(back.inputs) == list(request.inputs)
        assert all(same(back.inputs[name], array) for name, array in request.inputs.items())


@settings(deadline=None)
@given(responses())
def test_responses_cross_whole(response: Response) -> None:
    whole = b"".join(proto.write_response(Request("model", {}), response, NOTHING))
    parsed = service_pb2.ModelInferResponse.FromString(whole)
    assert [output.name for output in parsed.outputs] == list(response.outputs)
    back = proto.read_response(whole, NOTHING)
    assert (back.model, back.version, back.id) == (response.model, response.version, response.id)
    assert back.parameters == response.parameters
    assert all(same(back.outputs[name], array) for name, array in response.outputs.items())


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_no_bytes_whatever_do_more_than_refuse(noise: bytes) -> None:
    with contextlib.suppress(SeptetError):
        proto.read_request(noise).request(NOTHING)
    with contextlib.suppress(SeptetError):
        proto.read_response(noise, NOTHING)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damaged_messages_do_no_more_than_refuse(data: st.DataObject) -> None:
    request = Request("m", {"x": np.arange(4, dtype=np.int16), "y": np.array([b"a"], object)}, id="i")
    whole = bytearray(b"".join(proto.write_request(request)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    del whole[data.draw(st.integers(0, len(whole))) :]
    with contextlib.suppress(SeptetError):
        proto.read_request(bytes(whole)).request(NOTHING)


def typed(datatype: str, shape: list[int], **elements: list[Any]) -> bytes:
    message = service_pb2.ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name="x", datatype=datatype, shape=shape)
    for field, values in elements.items():
        getattr(tensor.contents, field).extend(values)
    return bytes(message.SerializeToString())


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-128, 127]),
        ("INT64", "int64_contents", [-(2**63), 1]),
        ("UINT16", "uint_contents", [0, 65535]),
        ("UINT64", "uint64_contents", [0, 2**64 - 1]),
        ("FP32", "fp32_contents", [0.5, -1.0]),
        ("FP64", "fp64_contents", [0.5, 1e300]),
        ("BYTES", "bytes_contents", [b"a", b""]),
    ],
)
def test_typed_contents(datatype: str, field: str, values: list[object]) -> None:
    request = proto.read_request(typed(datatype, [1, 2], **{field: values})).request(NOTHING)
    assert request.inputs["x"].tolist() == [values]


CONTENTS: dict[str, st.SearchStrategy[Any]] = {
    "bool_contents": st.booleans(),
    "int_contents": st.integers(-(2**31), 2**31 - 1),
    "int64_contents": st.integers(-(2**63), 2**63 - 1),
    "uint_contents": st.integers(0, 2**32 - 1),
    "uint64_contents": st.integers(0, 2**64 - 1),
    "fp32_contents": st.floats(width=32, allow_nan=False),
    "fp64_contents": st.floats(allow_nan=False),
    "bytes_contents": st.binary(max_size=3),
}


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "PIECE", 10)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(set(contents.FIELDS) - {"INT8", "INT16", "UINT8", "UINT16"})), st.data())
def test_contents_in_pieces_are_protobufs_own(short_pieces: None, datatype: str, data: st.DataObject) -> None:
    field = contents.FIELDS[datatype].name
    values = data.draw(st.lists(CONTENTS[field], max_size=20))
    request = proto.read_request(typed(datatype, [len(values)], **{field: values})).request(NOTHING)
    assert request.inputs["x"].tolist() == values


def test_contents_that_are_not_packed() -> None:
    message = service_pb2.ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype="INT32", shape=[3])
    unpacked = b"\x10\x05\x10\x80\x01\x12\x01\x07"
    tensor = message.inputs[0].SerializeToString() + b"\x2a" + bytes((len(unpacked),)) + unpacked
    whole = b"\x0a\x01m\x2a" + bytes((len(tensor),)) + tensor
    assert proto.read_request(whole).request(NOTHING).inputs["x"].tolist() == [5, 128, 7]


@pytest.mark.parametrize(
    ("datatype", "field", "value"), [("INT32", "int_contents", 1), ("BYTES", "bytes_contents", b"")]
)
def test_contents_of_too_many_elements_are_refused_before_they_are_read(
    datatype: str, field: str, value: object
) -> None:
    message = typed(datatype, [1], **{field: [value] * 1_000_000})
    tracemalloc.start()
    with pytest.raises(RequestInvalid, match="more than"):
        proto.read_request(message).request(NOTHING)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(message) + 3_000_000


@pytest.mark.parametrize(
    "message",
    [
        b"\x3a\0" * 1_000_000,
        b"\x40\1" * 1_000_000,
        b"\x2a\0" * 10_000,
        typed("INT32", [1] * 2_000_000, int_contents=[1]),
    ],
)
def test_messages_that_are_large_by_anything_but_elements_are_refused(message: bytes) -> None:
    with pytest.raises(RequestInvalid, match="more than"):
        proto.read_request(message)


@pytest.mark.parametrize(
    "message",
    [
        typed("INT8", [1], int_contents=[128]),
        typed("UINT8", [1], uint_contents=[256]),
        typed("FP32", [1], fp64_contents=[1.0]),
        typed("FP32", [1], fp32_contents=[1.0], int_contents=[1]),
        typed("FP32", [2], fp32_contents=[1.0]),
        typed("FP32", [1]),
        typed("FP16", [1], fp32_contents=[1.0]),
        typed("NONE", [1], fp32_contents=[1.0]),
        typed("FP32", [-1], fp32_contents=[1.0]),
        typed("FP32", [2**32, 2**32], fp32_contents=[1.0]),
        typed("FP32", [1] * 100, fp32_contents=[1.0]),
        typed("FP32", [1], fp32_contents=[1.0]) + b"\x3a\x04abcd",
        b"\x3a\x04abcd",
        b"\x3a\x05abcd",
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0b",
        b"\xff" * 20,
    ],
)
def test_what_is_wrong_is_refused(message: bytes) -> None:
    with pytest.raises(RequestInvalid):
        proto.read_request(message).request(NOTHING)


@pytest.mark.parametrize("name", ["priority", "timeout"])
@pytest.mark.parametrize("value", ["abc", True, 1.5, -1])
def test_when_a_request_is_to_run_is_an_integer(name: str, value: str | float) -> None:
    whole = b"".join(proto.write_request(Request("m", {}, parameters={name: value})))
    with pytest.raises(RequestInvalid, match=name):
        proto.read_request(whole)


def test_a_name_given_twice_is_refused() -> None:
    message = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[b"a", b"b"])
    for _ in range(2):
        message.inputs.add(name="x", datatype="UINT8", shape=[1])
    with pytest.raises(RequestInvalid, match="twice"):
        proto.read_request(message.SerializeToString()).request(NOTHING)


def test_large_tensors_are_views_of_the_message() -> None:
    message = b"".join(proto.write_request(Request("m", {"x": np.zeros(1 << 20, np.uint8)})))
    array = proto.read_request(message).request(NOTHING).inputs["x"]
    assert np.shares_memory(array, np.frombuffer(message, np.uint8))


def test_the_memory_of_heads_stays_small() -> None:
    for number in range(2000):
        request = Request("m", {"x": np.zeros(1, np.uint8)}, id=str(number))
        assert proto.read_request(b"".join(proto.write_request(request))).head.id == str(number)
    assert len(proto._heads) <= 256


@settings(deadline=None)
@given(arrays(FIXED), st.sampled_from(["", "seven"]), st.data())
def test_a_message_that_came_before_says_the_same_of_other_elements(
    array: Array, id_: str, data: st.DataObject
) -> None:
    whole = b"".join(proto.write_request(Request("m", {"x": array}, id=id_)))
    proto.read_request(whole)
    elements = data.draw(st.binary(min_size=array.nbytes, max_size=array.nbytes))
    message = whole[: len(whole) - array.nbytes] + elements
    for known in (message, memoryview(message), bytearray(message)):
        got = proto.read_request(known).request(NOTHING)
        assert (got.model, got.id) == ("m", id_)
        assert (got.inputs["x"].dtype, got.inputs["x"].shape) == (array.dtype, array.shape)
        assert got.inputs["x"].tobytes() == elements
    for wrong in (message[:-1], message + b"\x00"):
        with pytest.raises(RequestInvalid):
            proto.read_request(wrong).request(NOTHING)


def test_a_tensor_before_other_fields_is_found() -> None:
    request = Request("m", {"x": np.arange(4, dtype=np.uint8)})
    *head, raw = proto.write_request(request)
    first = b"\x3a\x04" + bytes(raw)
    whole = b"".join((*head, raw))
    moved = first + whole[: -len(first)]
    assert len(moved) == len(whole)
    for _ in range(3):
        for message in (whole, moved):
            assert proto.read_request(message).request(NOTHING).inputs["x"].tolist() == [0, 1, 2, 3]
