# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies: requests and responses of every datatype."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from septet.request import Parameter, Request, Response, Wanted
from septet.tensor import KSERVE_DTYPES, Array, objects

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
PARAMETER = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=5),
    st.floats(allow_nan=False, allow_infinity=False),
)
PARAMETERS = st.dictionaries(NAMES.map(lambda name: f"p{name}"), PARAMETER, max_size=3)


@st.composite
def arrays(draw: st.DrawFn, datatypes: list[str] | None = None, *, finite: bool = False) -> Array:
    """A tensor of any rank to 4, some of them empty."""
    datatype = draw(st.sampled_from(datatypes or sorted(KSERVE_DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=3))
    size = int(np.prod(shape))
    if datatype == "BYTES":
        element: st.SearchStrategy[bytes] = NAMES.map(str.encode) if finite else st.binary(max_size=6)
        return objects(draw(st.lists(element, min_size=size, max_size=size)), shape)
    if datatype == "BF16":
        return draw(hnp.arrays(np.uint16, shape)).view(KSERVE_DTYPES["BF16"])
    elements: dict[str, Any] = {}
    if finite and datatype.startswith("FP"):
        elements = {"elements": {"allow_nan": False, "allow_infinity": False}}
    return draw(hnp.arrays(KSERVE_DTYPES[datatype], shape, **elements))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request as a client may send it."""
    inputs = draw(st.dictionaries(NAMES, arrays(), min_size=1, max_size=4))
    wanted = draw(st.lists(NAMES, unique=True, max_size=3))
    parameters: dict[str, Parameter] = draw(PARAMETERS)
    return Request(
        "model",
        inputs,
        version=draw(st.sampled_from(["", "3"])),
        id=draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
        wanted=tuple(Wanted(name, draw(st.integers(0, 3))) for name in wanted),
        parameters=parameters,
    )


@st.composite
def responses(draw: st.DrawFn) -> Response:
    """A response as a model may give it."""
    asked = draw(requests())
    return Response("model", "1", asked.id, asked.inputs, asked.parameters)


def same(one: Array, other: Array) -> bool:
    """Whether both have the same dtype, shape and bytes (NaN included)."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return one.tolist() == other.tolist() if one.dtype.kind == "O" else one.tobytes() == other.tobytes()
