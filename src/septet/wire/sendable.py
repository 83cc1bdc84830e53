# SPDX-License-Identifier: Apache-2.0
"""Which arrays can be sent: those whose dtype KServe has a name for, and what can be made one of them."""

from __future__ import annotations

import numpy as np

from septet.errors import UsageError
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
