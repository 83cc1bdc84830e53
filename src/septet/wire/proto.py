# SPDX-License-Identifier: Apache-2.0
"""Infer requests and responses in protobuf, both directions.

Raw tensors never enter a protobuf object (that costs milliseconds): the walk over a message's top-level fields
finds them, what remains is small and is parsed by protobuf itself. Messages are written as chunks, the tensors
being views of the arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from septet.errors import RequestInvalid
from septet.request import Parameter, Region, Request, Response, Wanted
from septet.stubs import service_pb2
from septet.tensor import KSERVE_NAMES, Array, Buffer, objects, to_raw
from septet.wire.head import (
    Head,
    Input,
    Placed,
    array_of,
    bind,
    check_name,
    check_request,
    check_shape,
    dtype_of,
    read_placed,
    region_of,
    wanted_of,
)
from septet.wire.memory import Memory
from septet.wire.shm import Regions

RAW_INPUT, RAW_OUTPUT = 7, 6
"""Field numbers of the raw tensors in ModelInferRequest and ModelInferResponse."""

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Datatype -> the field of InferTensorContents that holds it; FP16 and BF16 are raw only."""

_heads = Memory()
_outputs = Memory()
_names = Memory()


def read_request(message: Buffer, regions: Regions) -> Request:
    """The request in a ModelInferRequest; raises `RequestInvalid` and the errors of `Regions.read`."""
    rest, raw = split(message, RAW_INPUT)
    head: Head | None = _heads.get((rest, bool(raw)))
    if head is None:
        head = _read_head(rest, bool(raw))
    return bind(head, raw, regions)


def _read_head(rest: bytes, raw: bool) -> Head:
    try:
        parsed = service_pb2.ModelInferRequest.FromString(rest)
    except DecodeError:
        raise RequestInvalid("the message is no ModelInferRequest") from None
    typed = [tensor for tensor in parsed.inputs if tensor.HasField("contents")]
    if raw and typed:
        raise RequestInvalid("contents field must not be specified when using raw_input_contents")
    wanted = tuple(wanted_of(one.name, parameters_of(one.parameters)) for one in parsed.outputs)
    parameters = parameters_of(parsed.parameters)
    check_request(wanted, parameters)
    check_name(parsed.model_name)
    check_name(parsed.model_version)
    inputs = tuple(_read_input(tensor, raw) for tensor in parsed.inputs)
    head = Head(parsed.model_name, parsed.model_version, parsed.id, inputs, wanted, parameters)
    if not typed:
        _heads.keep((rest, raw), head)
    return head


def _read_input(tensor: Any, raw: bool) -> Input:
    name, shape = tensor.name, tuple(tensor.shape)
    dtype = dtype_of(tensor.datatype, name)
    region = region_of(parameters_of(tensor.parameters), name)
    size = check_shape(shape, name)
    if region is not None or raw:
        return Input(name, dtype, shape, region=region)
    contents = tensor.contents
    field = CONTENTS.get(tensor.datatype)
    if field is None:
        raise RequestInvalid(f"input '{name}': {tensor.datatype} is sent in raw_input_contents only")
    values = getattr(contents, field)
    if any(entry.name != field for entry, _ in contents.ListFields()):
        raise RequestInvalid(f"input '{name}': contents of another type than {tensor.datatype}")
    if len(values) != size:
        raise RequestInvalid(f"input '{name}': {len(values)} elements are not {list(shape)}")
    if field == "bytes_contents":
        return Input(name, dtype, shape, data=objects(list(values), shape))
    try:
        return Input(name, dtype, shape, data=np.array(values, dtype).reshape(shape))
    except OverflowError:
        raise RequestInvalid(f"input '{name}': an element does not fit {tensor.datatype}") from None


def parameters_of(parameters: Mapping[str, Any]) -> dict[str, Parameter]:
    """A map of InferParameter as plain values."""
    if not parameters:
        return {}
    found: dict[str, Parameter] = {}
    for name, value in parameters.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is None:
            raise RequestInvalid(f"parameter '{name}' has no value")
        found[name] = getattr(value, choice)
    return found


def write_response(request: Request, response: Response, regions: Regions) -> list[Buffer]:
    """A ModelInferResponse in chunks; outputs that `request` wants in regions are written there.

    Raises the errors of `Regions.write`.
    """
    wanted = {one.name: one for one in request.wanted} if request.wanted else {}
    key = (response.model, response.version)
    known: bytes | None = _names.get(key)
    if known is None:
        known = _text(0x0A, response.model) + _text(0x12, response.version)
        _names.keep(key, known)
    head = [known]
    if response.id:
        head.append(_text(0x1A, response.id))
    if response.parameters:
        message = service_pb2.ModelInferResponse()
        fill_parameters(message.parameters, response.parameters)
        head.append(message.SerializeToString())
    tail: list[Buffer] = []
    for name, array in response.outputs.items():
        place = wanted.get(name)
        raw = to_raw(array)
        if place is not None and place.region is not None:
            regions.write(place.region, raw)
            head.append(_output(name, array))
            tail.append(b"\x32\x00")  # an empty raw tensor, so that places in both lists agree
            continue
        head.append(_output(name, array))
        tail.append(_length(0x32, len(raw)))
        tail.append(raw)
    return [b"".join(head), *tail]


def _output(name: str, array: Array) -> bytes:
    """The InferOutputTensor of an output whose data are raw, as field 5."""
    key = (name, array.dtype, array.shape)
    known: bytes | None = _outputs.get(key)
    if known is None:
        message = service_pb2.ModelInferResponse()
        message.outputs.add(name=name, datatype=KSERVE_NAMES[array.dtype], shape=array.shape)
        known = message.SerializeToString()
        _outputs.keep(key, known)
    return known


def region_parameters(region: Region) -> dict[str, Parameter]:
    """The parameters by which a tensor says that it lies in a region."""
    found: dict[str, Parameter] = {"shared_memory_region": region.name, "shared_memory_byte_size": region.size}
    if region.offset:
        found["shared_memory_offset"] = region.offset
    return found


def fill_parameters(target: Any, parameters: Mapping[str, Parameter]) -> None:
    """Write plain values into a map of InferParameter."""
    for name, value in parameters.items():
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, str):
            target[name].string_param = value
        elif isinstance(value, float):
            target[name].double_param = value
        elif value > (1 << 63) - 1:
            target[name].uint64_param = value
        else:
            target[name].int64_param = value


def write_request(request: Request, placed: Mapping[str, Placed] | None = None) -> list[Buffer]:
    """A ModelInferRequest in chunks; `placed` are inputs that lie in regions that the server knows."""
    message = service_pb2.ModelInferRequest(model_name=request.model, model_version=request.version, id=request.id)
    fill_parameters(message.parameters, request.parameters)
    tail: list[Buffer] = []
    for name, array in request.inputs.items():
        message.inputs.add(name=name, datatype=_datatype(array), shape=array.shape)
        raw = to_raw(array)
        tail += _length(0x3A, len(raw)), raw
    for name, place in (placed or {}).items():
        tensor = message.inputs.add(name=name, datatype=KSERVE_NAMES[place.dtype], shape=place.shape)
        fill_parameters(tensor.parameters, region_parameters(place.region))
    for wanted in request.wanted:
        fill_parameters(message.outputs.add(name=wanted.name).parameters, wanted_parameters(wanted))
    return [message.SerializeToString(), *tail]


def wanted_parameters(wanted: Wanted) -> dict[str, Parameter]:
    """The parameters of a requested output."""
    if wanted.region is not None:
        return region_parameters(wanted.region)
    return {"classification": wanted.classes} if wanted.classes else {}


def _datatype(array: Array) -> str:
    return "BYTES" if array.dtype.kind in "SU" else KSERVE_NAMES[array.dtype]


def read_response(message: Buffer, regions: Regions, wanted: Sequence[Wanted] = ()) -> Response:
    """The response in a ModelInferResponse; outputs that were `wanted` in regions are read from there."""
    places = {one.name: one.region for one in wanted}
    rest, raw = split(message, RAW_OUTPUT)
    try:
        parsed = service_pb2.ModelInferResponse.FromString(rest)
    except DecodeError:
        raise RequestInvalid("the message is no ModelInferResponse") from None
    outputs: dict[str, Array] = {}
    for place, tensor in enumerate(parsed.outputs):
        dtype, shape = dtype_of(tensor.datatype, tensor.name), tuple(tensor.shape)
        region = places.get(tensor.name)
        if region is not None:
            outputs[tensor.name] = read_placed(regions, region, dtype, shape, tensor.name)
        elif place < len(raw):
            outputs[tensor.name] = array_of(raw[place], dtype, shape, tensor.name)
        else:
            outputs[tensor.name] = _typed_output(tensor)
    parameters = parameters_of(parsed.parameters)
    return Response(parsed.model_name, parsed.model_version, parsed.id, outputs, parameters)


def _typed_output(tensor: Any) -> Array:
    data = _read_input(tensor, False).data
    if data is None:
        raise RequestInvalid(f"output '{tensor.name}' lies in shared memory that nobody asked for")
    return data


def split(message: Buffer, raw_field: int) -> tuple[bytes, Sequence[memoryview]]:
    """The fields of `message` but for those of number `raw_field`, and these: views, in their order."""
    view = memoryview(message)
    position, end = 0, len(view)
    rest: list[memoryview] = []
    raw: list[memoryview] = []
    kept = 0
    try:
        while position < end:
            start = position
            tag = view[position]
            position += 1
            if tag >= 0x80:
                tag, position = _varint(view, position - 1)
            kind = tag & 7
            if kind == 2:
                size = view[position]
                position += 1
                if size >= 0x80:
                    size, position = _varint(view, position - 1)
                begin, position = position, position + size
                if tag >> 3 == raw_field:
                    if start > kept:
                        rest.append(view[kept:start])
                    raw.append(view[begin:position])
                    kept = position
            elif kind == 0:
                _, position = _varint(view, position)
            elif kind in (1, 5):
                position += 8 if kind == 1 else 4
            else:
                raise RequestInvalid("the message is no protobuf")
    except IndexError:
        raise RequestInvalid("the message is cut off") from None
    if position != end:
        raise RequestInvalid("the message is cut off")
    if kept < end:
        rest.append(view[kept:end])
    return b"".join(rest), raw


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise RequestInvalid("the message is no protobuf: a number without an end")


def _length(tag: int, size: int) -> bytes:
    """A one-byte tag and a length."""
    if size < 0x80:
        return bytes((tag, size))
    parts = [tag]
    while size >= 0x80:
        parts.append(size & 0x7F | 0x80)
        size >>= 7
    parts.append(size)
    return bytes(parts)


def _text(tag: int, text: str) -> bytes:
    raw = text.encode()
    return _length(tag, len(raw)) + raw


def prefixed(tag: int, chunks: Sequence[Buffer]) -> list[Buffer]:
    """`chunks` as one length-delimited field of a message around it."""
    return [_length(tag, sum(map(len, chunks))), *chunks]
