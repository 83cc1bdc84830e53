# SPDX-License-Identifier: Apache-2.0
"""Infer requests and responses in protobuf, both directions.

Elements of tensors never enter a protobuf object (that costs milliseconds): the walk over a message's fields
finds them, what remains is small and is parsed by protobuf itself. Messages are written as chunks, the tensors
being views of the arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from septet.errors import RequestInvalid
from septet.request import Parameter, Region, Request, Response, Wanted
from septet.stubs import service_pb2
from septet.tensor import KSERVE_NAMES, Array, Buffer, to_raw
from septet.wire.contents import reader_of
from septet.wire.head import (
    LARGEST_HEAD,
    MOST_TENSORS,
    Draft,
    Head,
    Input,
    Placed,
    array_of,
    check_name,
    check_request,
    check_shape,
    dtype_of,
    read_placed,
    region_of,
    wanted_of,
)
from septet.wire.memory import Memory
from septet.wire.protobuf import split
from septet.wire.shm import Regions

ID = 3
"""Field number of a ModelInferRequest's id."""

TENSOR, RAW_INPUT, RAW_OUTPUT = 5, 7, 6
"""Field numbers of the heads of tensors in ModelInferRequest and ModelInferResponse, and of the raw tensors."""

CONTENTS = 5
"""Field number of the InferTensorContents of a tensor."""

LONGEST = 64 << 10
"""Bytes; a longer head is not remembered."""

_heads = Memory()
_begins, _begun = Memory(), Memory()
"""Of messages that end with their only raw tensor: where it begins, by size, and by what is before it the head."""
_outputs = Memory()
_names = Memory()


def read_request(message: Buffer) -> Draft:
    """The request in a ModelInferRequest. Raises `RequestInvalid`."""
    size = len(message)
    begin: int | None = _begins.get(size)
    if begin is not None:
        begun: Head | None = _begun.get((size, bytes(message[:begin])))
        if begun is not None:
            return Draft(begun, [memoryview(message)[begin:]])
    rest, raw = split(message, RAW_INPUT)
    short = len(rest) <= LONGEST
    head: Head | None = _heads.get((rest, bool(raw))) if short else None
    if head is None:
        head = _read_head(rest, bool(raw))
        if short and all(tensor.elements is None for tensor in head.inputs):
            _heads.keep((rest, bool(raw)), head)
    if short and len(raw) == 1 and head.viewed and message[: len(rest)] == rest:
        _learn(message, size - len(raw[0]), head)
    return Draft(head, raw)


def _learn(message: Buffer, begin: int, head: Head) -> None:
    """Remember what is said before the tensor that begins at `begin`, with which `message` ends."""
    size = len(message)
    if size not in _begins:
        _begins.keep(size, begin)
    if _begins[size] == begin:
        _begun.keep((size, bytes(message[:begin])), head)


def id_of(message: Buffer) -> str:
    """The id in a ModelInferRequest that cannot be read otherwise; empty where there is none."""
    try:
        _, ids = split(message, ID)
    except RequestInvalid:
        return ""
    return bytes(ids[-1]).decode(errors="replace") if ids else ""


def _read_head(message: bytes, raw: bool) -> Head:
    rest, tensors = parts_of(message)
    parsed = _parsed(service_pb2.ModelInferRequest, rest)
    wanted = tuple(wanted_of(one.name, parameters_of(one.parameters)) for one in parsed.outputs)
    parameters = parameters_of(parsed.parameters)
    check_request(wanted, parameters)
    check_name(parsed.model_name)
    check_name(parsed.model_version)
    inputs = tuple([_read_input(tensor, contents, raw) for tensor, contents in tensors])
    return Head(parsed.model_name, parsed.model_version, parsed.id, inputs, wanted, parameters)


def parts_of(message: bytes) -> tuple[bytes, list[tuple[bytes, Sequence[memoryview]]]]:
    """A request or response without its tensors, and these, each without its contents, and the contents.

    Raises `RequestInvalid` where all but the contents is more than protobuf is to parse.
    """
    rest, tensors = split(message, TENSOR)
    if len(tensors) > MOST_TENSORS:
        raise RequestInvalid(f"the message has more than {MOST_TENSORS} tensors")
    parts, size = [], len(rest)
    for tensor in tensors:
        part = split(tensor, CONTENTS)
        parts.append(part)
        size += len(tensor) - sum(map(len, part[1]))
        if size > LARGEST_HEAD:
            break
    if size > LARGEST_HEAD:
        raise RequestInvalid(f"the message has more than {LARGEST_HEAD} bytes beside the elements of its tensors")
    return rest, parts


def _parsed(kind: Any, message: bytes) -> Any:
    """A message of `kind` that holds no elements. Raises `RequestInvalid`."""
    try:
        return kind.FromString(message)
    except DecodeError:
        raise RequestInvalid(f"the message is no {kind.DESCRIPTOR.name}") from None


def _read_input(message: bytes, contents: Sequence[memoryview], raw: bool) -> Input:
    tensor = _parsed(service_pb2.ModelInferRequest.InferInputTensor, message)
    name, shape = tensor.name, tuple(tensor.shape)
    dtype = dtype_of(tensor.datatype, name)
    region = region_of(parameters_of(tensor.parameters), name)
    check_shape(shape, name)
    if raw and contents:
        raise RequestInvalid("contents field must not be specified when using raw_input_contents")
    if region is not None or raw:
        return Input(name, dtype, shape, region=region)
    return Input(name, dtype, shape, elements=reader_of(contents, tensor.datatype, shape, name))


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
    head, raw = split(message, RAW_OUTPUT)
    rest, tensors = parts_of(head)
    parsed = _parsed(service_pb2.ModelInferResponse, rest)
    outputs: dict[str, Array] = {}
    for place, (about, contents) in enumerate(tensors):
        tensor = _parsed(service_pb2.ModelInferResponse.InferOutputTensor, about)
        dtype, shape = dtype_of(tensor.datatype, tensor.name), tuple(tensor.shape)
        region = places.get(tensor.name)
        if region is not None:
            outputs[tensor.name] = read_placed(regions, region, dtype, shape, tensor.name)
        elif place < len(raw):
            outputs[tensor.name] = array_of(raw[place], dtype, shape, tensor.name)
        elif "shared_memory_region" in tensor.parameters:
            raise RequestInvalid(f"output '{tensor.name}' lies in shared memory that nobody asked for")
        else:
            outputs[tensor.name] = reader_of(contents, tensor.datatype, shape, tensor.name)()
    parameters = parameters_of(parsed.parameters)
    return Response(parsed.model_name, parsed.model_version, parsed.id, outputs, parameters)


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
