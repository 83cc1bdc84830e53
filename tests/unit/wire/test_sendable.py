# SPDX-License-Identifier: Apache-2.0
"""Arrays that can be sent, those that can be made so, and those that cannot."""

from __future__ import annotations

from http import HTTPStatus

import ml_dtypes
import numpy as np
import pytest

from septet.errors import UsageError
from septet.tensor import KSERVE_DTYPES, Array, to_raw
from septet.wire.sendable import parameters_sendable, sendable


@pytest.mark.parametrize("dtype", [dtype for dtype in KSERVE_DTYPES.values() if dtype.kind != "O"], ids=str)
def test_what_kserve_has_is_sent_as_it_is(dtype: np.dtype[np.generic]) -> None:
    array = np.ones(3, dtype)
    assert sendable(array) is array
    swapped = array if dtype == ml_dtypes.bfloat16 else array.astype(dtype.newbyteorder(">"))
    assert sendable(swapped).dtype == dtype
    assert bytes(to_raw(sendable(swapped))) == array.tobytes()


@pytest.mark.parametrize(
    "array",
    [np.array(["größe", ""]), np.array(["größe", ""], ">U9"), np.array(["größe".encode(), b""]),
     np.array(["größe", b""], np.object_), np.array([bytearray("größe".encode()), memoryview(b"")], np.object_)],
)  # fmt: skip
def test_text_is_sent_as_bytes(array: Array) -> None:
    assert sendable(array).dtype == np.object_
    assert to_raw(sendable(array)) == b"\7\0\0\0" + "größe".encode() + b"\0\0\0\0"


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros(1, np.complex64), "complex64"),
        (np.zeros(1, ">c16"), "complex128"),
        (np.zeros(1, "M8[ns]"), "datetime64"),
        (np.zeros(1, "m8[s]"), "timedelta64"),
        (np.zeros(1, np.longdouble), "float128"),
        (np.zeros(1, [("a", "f4")]), "'a'"),
        (np.zeros(1, "V4"), "V4"),
        (np.zeros(1, ml_dtypes.float8_e4m3fn), "float8"),
        (np.array([5], np.object_), "int"),
        (np.array([b"", None], np.object_), "NoneType"),
        ([1.0, 2.0], "list"),
    ],
    ids=str,
)
def test_what_cannot_be_sent_is_refused_by_its_name(array: Array, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        sendable(array)


def test_numbers_by_name_are_numbers() -> None:
    sent = parameters_sendable({"status": HTTPStatus.OK, "kind": np.int64(3), "on": np.bool_(True)})
    assert sent == {"status": 200, "kind": 3, "on": True}
    assert [type(value) for value in sent.values()] == [int, int, bool]
