# SPDX-License-Identifier: Apache-2.0
"""Protobuf's own encoding: the fields of a message, found without making objects of them."""

from __future__ import annotations

from collections.abc import Sequence

from septet.errors import RequestInvalid
from septet.tensor import Buffer

MOST_FIELDS = 16_384
"""Of one message."""


def split(message: Buffer, raw_field: int) -> tuple[bytes, Sequence[memoryview]]:
    """The fields of `message` but for those of number `raw_field`, and these: views, in their order.

    Raises `RequestInvalid` for what is no message, or one of too many fields.
    """
    view = memoryview(message)
    position, end = 0, len(view)
    rest: list[memoryview] = []
    raw: list[memoryview] = []
    kept = 0
    try:
        for _ in range(MOST_FIELDS):
            if position >= end:
                break
            start = position
            tag = view[position]
            position += 1
            if tag >= 0x80:
                tag, position = varint(view, position - 1)
            kind = tag & 7
            if kind == 2:
                size = view[position]
                position += 1
                if size >= 0x80:
                    size, position = varint(view, position - 1)
                begin, position = position, position + size
                if tag >> 3 == raw_field:
                    if start > kept:
                        rest.append(view[kept:start])
                    raw.append(view[begin:position])
                    kept = position
            elif kind == 0:
                _, position = varint(view, position)
            elif kind in (1, 5):
                position += 8 if kind == 1 else 4
            else:
                raise RequestInvalid("the message is no protobuf")
        else:
            if position < end:
                raise RequestInvalid(f"the message has more than {MOST_FIELDS} fields")
    except IndexError:
        raise RequestInvalid("the message is cut off") from None
    if position != end:
        raise RequestInvalid("the message is cut off")
    if kept < end:
        rest.append(view[kept:end])
    return b"".join(rest), raw


def varint(view: memoryview, position: int) -> tuple[int, int]:
    """The number that begins at `position`, and where it ends; raises `IndexError` where the view ends before."""
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
