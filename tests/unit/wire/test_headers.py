# SPDX-License-Identifier: Apache-2.0
"""Header blocks: what was remembered of one is not said of another."""

from __future__ import annotations

import pytest

from septet.wire.headers import HeaderReader, HeadersInvalid, write_headers

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
