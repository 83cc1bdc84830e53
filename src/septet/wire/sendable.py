# SPDX-License-Identifier: Apache-2.0
"""Which arrays and parameters can be sent: those that KServe has a name for, and what can be made one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from septet.errors import UsageError
from septet.request import INTEGERS, Parameter
from septet.tensor import KSERVE_NAMES, Array

ELEMENTS = (bytes, bytearray, memoryview, str)
"""What elements of a BYTES tensor may be; ``str`` is sent as UTF-8."""


def sendable(array: Array) -> Array:
    """`array`, in little-endian order, and as objects where it has strings.

    Raises UsageError for what is no array, a dtype that KServe lacks, and objects that are neither bytes nor text.
    """
    if not isinstance(array, np.ndarray | np.generic):
        raise UsageError(f"{type(array).__name__} is no numpy array")
    array = np.asarray(array)
    if array.dtype.kind in "SU":
        array = array.astype(np.object_)
    elif array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.dtype not in KSERVE_NAMES:
        raise UsageError(f"a tensor of {array.dtype} cannot be sent: KServe has no datatype for it")
    if array.dtype.kind == "O":
        for kind in set(map(type, array.reshape(-1).tolist())):
            if not issubclass(kind, ELEMENTS):
                raise UsageError(f"a tensor of objects holds bytes or text, not {kind.__name__}")
    return array


def parameters_sendable(parameters: Mapping[str, object]) -> dict[str, Parameter]:
    """`parameters` as text, truth values and numbers of Python's own; numpy's are made such.

    Raises UsageError, which names the parameter, for what is none of them, an integer above 64 bits, NaN and
    infinity.
    """
    return {_name(name): _parameter(name, value) for name, value in parameters.items()}


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise UsageError(f"parameter {name!r}: a name is text, not {type(name).__name__}")
    return _text(name, name)


def _parameter(name: str, value: object) -> Parameter:
    if isinstance(value, np.number | np.bool_):
        value = value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(name, value)
    if isinstance(value, int) and int(value) in INTEGERS:
        return int(value)
    if isinstance(value, int):
        raise UsageError(f"parameter '{name}': an integer of more than 64 bits")
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, float):
        raise UsageError(f"parameter '{name}': {value} is no number that can be sent")
    raise UsageError(f"parameter '{name}' is text, a number, true or false, not {type(value).__name__}")


def _text(name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"parameter {name!r}: {text[:40]!r} has no bytes in UTF-8") from None
    return str(text)
