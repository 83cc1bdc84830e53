# SPDX-License-Identifier: Apache-2.0
"""gzip and deflate, both ways, never beyond a limit."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from septet.errors import RequestInvalid, TooLarge, Unsupported
from septet.tensor import Buffer

GZIP, ZLIB = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS
FORMATS = {"gzip": GZIP, "x-gzip": GZIP, "deflate": ZLIB}
LONG = 1 << 10
"""Above so many compressed bytes, of which each may become a thousand, inflating is no work for an event loop."""
LEVELS = {"low": 1, "medium": 6, "high": 9}


def decompress(body: Buffer, encoding: str, limit: int) -> bytes:
    """The plain bytes of `body`; raises `TooLarge` above `limit` bytes, having made no more than these."""
    bits = FORMATS.get(encoding)
    if bits is None:
        raise Unsupported(f"content encoding '{encoding[:32]}' is unknown: gzip, deflate and identity are not")
    machine = zlib.decompressobj(bits)
    try:
        plain = machine.decompress(body, limit + 1)
    except zlib.error:
        raise RequestInvalid(f"the body is no {encoding}") from None
    if len(plain) > limit:
        raise TooLarge(f"the body has more than {limit} bytes when decompressed")
    if not machine.eof or machine.unused_data:
        raise RequestInvalid(f"the {encoding} body is cut off, or goes on after its end")
    return plain


def compress(chunks: Sequence[Buffer], encoding: str, level: int = 1) -> bytes:
    """`chunks` as one compressed body."""
    machine = zlib.compressobj(level, zlib.DEFLATED, FORMATS[encoding])
    return b"".join([*(machine.compress(chunk) for chunk in chunks), machine.flush()])


def accepted(header: str) -> str | None:
    """gzip or deflate where an Accept-Encoding header takes one, gzip first."""
    if not header:
        return None
    takes = set()
    for item in header.lower().split(","):
        name, _, weight = item.partition(";")
        if weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            takes.add(name.strip())
    return next((name for name in ("gzip", "deflate") if name in takes), None)
