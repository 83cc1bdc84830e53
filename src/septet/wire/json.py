# SPDX-License-Identifier: Apache-2.0
"""KServe's v2 JSON with Triton's binary tensors, both directions.

A body is a JSON document, and behind it, where the header ``Inference-Header-Content-Length`` gives the document's
length, the raw tensors one after another. Where Triton wraps integers that do not fit, and reads and writes NaN,
which is no JSON, this raises `RequestInvalid`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np

from septet.errors import RequestInvalid
from septet.request import Parameter, Region, Request, Response, Wanted
from septet.tensor import KSERVE_NAMES, Array, Buffer, made_of_objects, objects, to_raw
from septet.wire.form import Form, in_binary
from septet.wire.head import (
    LARGEST_HEAD,
    MOST_TENSORS,
    Draft,
    Head,
    Input,
    Placed,
    bind,
    check_parameters,
    check_request,
    check_shape,
    dtype_of,
    read_placed,
    region_of,
    wanted_of,
)
from septet.wire.lists import BINARY_ONLY, check_list, count_in, read_list, write_list
from septet.wire.memory import Memory
from septet.wire.proto import region_parameters, wanted_parameters
from septet.wire.shm import Regions

Values = dict[str, Parameter]


class TensorDocument(msgspec.Struct):
    """An input of a request or an output of a response."""

    name: str
    datatype: str
    shape: list[int]
    parameters: Values = {}
    data: msgspec.Raw = msgspec.Raw()


class WantedDocument(msgspec.Struct):
    """An output that a request asks for."""

    name: str
    parameters: Values = {}


class RequestDocument(msgspec.Struct):
    """An infer request."""

    inputs: list[TensorDocument]
    id: str = ""
    parameters: Values = {}
    outputs: list[WantedDocument] = []


class ResponseDocument(msgspec.Struct):
    """An infer response."""

    model_name: str
    model_version: str = ""
    id: str = ""
    parameters: Values = {}
    outputs: list[TensorDocument] = []


class Outline(msgspec.Struct):
    """A request of which nothing is decoded yet."""

    inputs: msgspec.Raw


class TensorOutline(msgspec.Struct):
    """A tensor of which nothing is decoded yet."""

    data: msgspec.Raw = msgspec.Raw()


_request = msgspec.json.Decoder(RequestDocument)
_outline, _outlines = msgspec.json.Decoder(Outline), msgspec.json.Decoder(list[TensorOutline])
_response = msgspec.json.Decoder(ResponseDocument)
_encode = msgspec.json.Encoder().encode

LONGEST = 2048
"""A longer document is not remembered."""

TOO_MUCH = "failed to parse the request JSON: beside elements of tensors there is too much in it"

_forms, _lengths = Memory(), Memory()

Document = TypeVar("Document")


def _decode(decoder: msgspec.json.Decoder[Document], text: Buffer, what: str) -> Document:
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RequestInvalid(f"failed to parse the {what}: {error}") from None
    except RecursionError:
        raise RequestInvalid(f"failed to parse the {what}: it is nested too deeply") from None


def header_length(text: bytes | None, size: int) -> int:
    """The length of the JSON document in a body of `size` bytes, from its header's `text`."""
    if text is None:
        return size
    known: int | None = _lengths.get(text)
    if known is not None and known <= size:
        return known
    if not text.isdigit() or len(text) > 18 or int(text) > size:
        got = text[:32].decode("latin-1")
        raise RequestInvalid(f"inference header size should be in range (0, {size}), got: {got}")
    _lengths.keep(text, int(text))
    return int(text)


def known_form(model: str, version: str, body: Buffer, length: int) -> Form | None:
    """The form of `body`, whose first `length` bytes are JSON, if it has the size of one that is known."""
    if length > LONGEST:
        return None
    form: Form | None = _forms.get((model, version, bytes(body[:length])))
    return form if form is not None and form.size == len(body) else None


def read_request(model: str, version: str, body: Buffer, length: int) -> Draft:
    """The request in `body`, whose first `length` bytes are JSON. Raises `RequestInvalid`."""
    view = memoryview(body)
    text = bytes(view[:length]) if length <= LONGEST else None
    form: Form | None = _forms.get((model, version, text))
    if form is None:
        form = Form(*_read_head(model, version, view[:length]), length)
        if text is not None and all(tensor.elements is None for tensor in form.head.inputs):
            _forms.keep((model, version, text), form)
    return Draft(form.head, _cut(form.head.inputs, view, length), form.binary)


def _read_head(model: str, version: str, text: memoryview) -> tuple[Head, bool]:
    """What a document says, and whether it wants its outputs in binary."""
    if len(text) > LARGEST_HEAD:
        _check_outline(text)
    document = _decode(_request, text, "request JSON")
    inputs = tuple([_read_tensor(tensor) for tensor in document.inputs])
    wanted = tuple([_read_wanted(output) for output in document.outputs])
    parameters = document.parameters
    binary = parameters.pop("binary_data_output", False)
    if not isinstance(binary, bool):
        raise RequestInvalid("binary_data_output is true or false")
    if wanted or parameters:
        check_request(wanted, parameters)
    return Head(model, version, document.id, inputs, wanted, parameters), binary


def _check_outline(text: memoryview) -> None:
    """Raise `RequestInvalid` for a long document that is long by anything but elements, before it is decoded."""
    outline = _decode(_outline, text, "request JSON")
    others = len(text) - len(outline.inputs)
    if others > LARGEST_HEAD or count_in(outline.inputs, b"{") > 2 * MOST_TENSORS:
        raise RequestInvalid(TOO_MUCH)
    tensors = _decode(_outlines, outline.inputs, "request JSON")
    if len(outline.inputs) - sum(len(tensor.data) for tensor in tensors) > LARGEST_HEAD:
        raise RequestInvalid(TOO_MUCH)


def _cut(inputs: Sequence[Input], view: memoryview, position: int) -> list[memoryview]:
    """The raw tensors behind the document."""
    raw = []
    for tensor in inputs:
        if tensor.size is not None:
            begin, position = position, position + tensor.size
            if position > len(view):
                raise RequestInvalid(f"tensor '{tensor.name}': binary_data_size goes beyond the body's end")
            raw.append(view[begin:position])
    if position != len(view):
        raise RequestInvalid(f"unexpected additional input data: {len(view) - position} bytes")
    return raw


def _read_wanted(output: WantedDocument) -> Wanted:
    check_parameters(output.parameters)
    return wanted_of(output.name, output.parameters)


def _read_tensor(tensor: TensorDocument) -> Input:
    name, shape, parameters = tensor.name, tuple(tensor.shape), tensor.parameters
    dtype = dtype_of(tensor.datatype, name)
    if parameters:
        check_parameters(parameters)
        size = parameters.get("binary_data_size")
        region = region_of(parameters, name)
        if (size is not None or region is not None) and len(tensor.data):
            raise RequestInvalid(f"tensor '{name}' has data in more than one place")
        if size is not None:
            if type(size) is not int or size < 0:
                raise RequestInvalid(f"tensor '{name}': binary_data_size is a number of bytes")
            return Input(name, dtype, shape, size)
        if region is not None:
            check_shape(shape, name)
            return Input(name, dtype, shape, region=region)
    if not len(tensor.data):
        raise RequestInvalid(f"tensor '{name}' has no data")
    if tensor.datatype in BINARY_ONLY:
        raise RequestInvalid(f"tensor '{name}': {tensor.datatype} is sent in binary only")
    check_list(tensor.data, shape, name)
    return Input(name, dtype, shape, elements=partial(read_list, tensor.data, dtype, shape, name))


def _read_output(tensor: TensorDocument, region: Region | None, regions: Regions) -> Input:
    if region is None:
        return _read_tensor(tensor)
    name, shape = tensor.name, tuple(tensor.shape)
    dtype = dtype_of(tensor.datatype, name)
    return Input(name, dtype, shape, elements=partial(read_placed, regions, region, dtype, shape, name))


def read_raw(
    model: str, version: str, body: Buffer, name: str, dtype: np.dtype[Any], dims: tuple[int, ...]
) -> Draft:
    """The request whose whole body is its model's single input, or of BYTES its single element.

    Of `dims`, one may be free, which is less than 0: it is as large as the body makes it. Raises `RequestInvalid`.
    """
    known = check_shape(tuple(max(dim, 1) if dim else 0 for dim in dims), name)
    free = sum(dim < 0 for dim in dims)
    each = known * dtype.itemsize
    if dtype.kind == "O":
        count, fits = 1, known == 1
    elif free:
        count, fits = len(body) // max(each, 1), free == 1 and each > 0 and len(body) % each == 0
    else:
        count, fits = 1, len(body) == each
    if not fits:
        raise RequestInvalid(f"a raw request of {len(body)} bytes is no input '{name}' of shape {list(dims)}")
    shape = tuple(count if dim < 0 else dim for dim in dims)
    elements = partial(objects, [bytes(body)], shape) if dtype.kind == "O" else None
    return Draft(
        Head(model, version, "", [Input(name, dtype, shape, elements=elements)]), [] if elements else [body]
    )


@dataclass(slots=True)
class Body:
    """A body in chunks; `length` is the JSON document's where raw tensors follow it."""

    chunks: list[Buffer]
    length: int | None


_tensors = Memory()
_names = Memory()


def written(request: Request, response: Response, binary: bool) -> int:
    """How many bytes of a response's tensors `write_response` will write element by element."""
    outputs = response.outputs
    if binary and not request.wanted:  # as nearly always, and then asked of every answer
        return sum([array.nbytes for array in outputs.values() if made_of_objects(array)])
    wanted = {one.name: one for one in request.wanted}
    return sum(
        array.nbytes
        for name, array in outputs.items()
        if made_of_objects(array) or _listed(wanted.get(name), binary)
    )


def _listed(place: Wanted | None, otherwise: bool) -> bool:
    """Whether an output goes out as a list."""
    return (place is None or place.region is None) and not in_binary(place, otherwise)


def write_response(request: Request, response: Response, regions: Regions, binary: bool) -> Body:
    """A response's body; `binary` says how outputs go out that were not asked for otherwise.

    Raises the errors of `Regions.write`, and `RequestInvalid` for an output that JSON cannot express.
    """
    wanted = {one.name: one for one in request.wanted} if request.wanted else {}
    tensors: list[bytes] = []
    raws: list[Buffer] = []
    for name, array in response.outputs.items():
        place = wanted.get(name)
        if place is not None and place.region is not None:
            regions.write(place.region, to_raw(array))
            tensors.append(_tensor(name, array, {}))
        elif in_binary(place, binary):
            raw = to_raw(array)
            tensors.append(_raw_tensor(name, array, len(raw)))
            raws.append(raw)
        else:
            tensors.append(write_list(name, array))
    document = b"".join((_opening(response), b'"outputs":[', b",".join(tensors), b"]}"))
    return Body([document, *raws], len(document) if raws else None)


def _opening(response: Response) -> bytes:
    key = (response.model, response.version)
    known: bytes | None = _names.get(key)
    if known is None:
        known = _encode({"model_name": response.model, "model_version": response.version})[:-1] + b","
        _names.keep(key, known)
    if response.id:
        known += b'"id":' + _encode(response.id) + b","
    if response.parameters:
        known += b'"parameters":' + _encode(response.parameters) + b","
    return known


def _raw_tensor(name: str, array: Array, size: int) -> bytes:
    key = (name, array.dtype, array.shape, size)
    known: bytes | None = _tensors.get(key)
    if known is None:
        known = _tensor(name, array, {"binary_data_size": size})
        _tensors.keep(key, known)
    return known


def _tensor(name: str, array: Array, parameters: Mapping[str, Parameter]) -> bytes:
    about: dict[str, object] = {"name": name, "datatype": KSERVE_NAMES[array.dtype], "shape": array.shape}
    return _encode(about | {"parameters": parameters} if parameters else about)


def write_request(request: Request, placed: Mapping[str, Placed] | None = None) -> Body:
    """A request's body with all tensors in binary; `placed` are inputs in regions that the server knows."""
    raws: list[Buffer] = []
    inputs: list[dict[str, object]] = []
    for name, array in request.inputs.items():
        raw = to_raw(array)
        raws.append(raw)
        datatype = "BYTES" if array.dtype.kind in "SU" else KSERVE_NAMES[array.dtype]
        about = {"name": name, "datatype": datatype, "shape": array.shape}
        inputs.append(about | {"parameters": {"binary_data_size": len(raw)}})
    for name, place in (placed or {}).items():
        about = {"name": name, "datatype": KSERVE_NAMES[place.dtype], "shape": place.shape}
        inputs.append(about | {"parameters": region_parameters(place.region)})
    document: dict[str, object] = {"inputs": inputs}
    parameters = dict(request.parameters)
    if request.id:
        document["id"] = request.id
    if request.wanted:
        document["outputs"] = [
            {"name": one.name, "parameters": wanted_parameters(one) or {"binary_data": one.binary is not False}}
            for one in request.wanted
        ]
    else:
        parameters["binary_data_output"] = True
    if parameters:
        document["parameters"] = parameters
    text = _encode(document)
    return Body([text, *raws], len(text) if raws else None)


class ResponseReader:
    """Reads the answers to a request whose outputs are `wanted`, some of them perhaps in `regions`.

    Where an answer's document is the last one's, byte for byte, and short, it is not parsed again.
    """

    def __init__(self, regions: Regions, wanted: Sequence[Wanted] = ()) -> None:
        self._regions = regions
        self._wanted = wanted
        self._text: bytes | None = None
        self._head = Head("", "", "", ())

    def read(self, body: Buffer, length: int) -> Response:
        """The response in `body`, whose first `length` bytes are JSON. Raises `RequestInvalid`."""
        view = memoryview(body)
        text = bytes(view[:length]) if length <= LONGEST else None
        if text is None or text != self._text:
            self._text = None
            self._head = self._parsed(view[:length])
            self._text = text
        bound = bind(self._head, _cut(self._head.inputs, view, length), self._regions)
        bound.fetch()
        return Response(bound.model, bound.version, bound.id, bound.inputs, dict(self._head.parameters))

    def _parsed(self, text: Buffer) -> Head:
        document = _decode(_response, text, "response JSON")
        places = {one.name: one.region for one in self._wanted}
        outputs = [_read_output(tensor, places.get(tensor.name), self._regions) for tensor in document.outputs]
        return Head(document.model_name, document.model_version, document.id, outputs, (), document.parameters)
