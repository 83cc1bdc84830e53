# SPDX-License-Identifier: Apache-2.0
"""Header blocks: what was remembered of one is not said of another."""

from __future__ import annotations

import pytest

from septet.wire.headers import (
    RESIZING,
    HeaderReader,
    HeadersInvalid,
    HeadersUnreadable,
    _integer,
    write_headers,
)

REQUEST = ((":method", "POST"), (":scheme", "http"), (":path", "/x"))
TRAILERS = (("grpc-status", "0"),)


@pytest.mark.parametrize(("fields", "request_"), [(REQUEST, True), (TRAILERS, False)])
def test_a_block_that_is_right_in_one_place_is_judged_anew_in_another(
    fields: tuple[tuple[str, str], ...], request_: bool
) -> None:
    reader, block = HeaderReader(1 << 16, 1 << 16), write_headers(fields)
    for _ in range(2):
        assert reader.read(block, request=request_) == fields
        with pytest.raises(HeadersInvalid):
            reader.read(block, request=not request_)


@pytest.mark.parametrize("sizes", [[0, 4096], [31], [4096], [30, 0]])
def test_the_table_is_resized_twice_in_a_block_at_most(sizes: list[int]) -> None:
    block = write_headers(REQUEST)
    resized = b"".join(bytes((RESIZING | each[0], *each[1:])) for each in (_integer(size, 5) for size in sizes))
    assert HeaderReader(1 << 16, 1 << 16).read(resized + block, request=True) == REQUEST
    with pytest.raises(HeadersUnreadable, match="again and again"):
        HeaderReader(1 << 16, 1 << 16).read(resized * 3 + block, request=True)
