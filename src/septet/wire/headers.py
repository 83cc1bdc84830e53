# SPDX-License-Identifier: Apache-2.0
"""Header blocks: HPACK (RFC 7541) both ways, and what HTTP/2 asks of the fields (RFC 9113, section 8)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hpack import Decoder, HPACKError, OversizedHeaderListError

Headers = tuple[tuple[str, str], ...]
"""Names in lower case and values, in the order in which they came."""

REMEMBERED, LONGEST = 64, 1024
"""How many header blocks `HeaderReader` remembers at most, and of how many bytes."""

FIELD_OVERHEAD = 32
"""Bytes that a field counts for beside its name and value (RFC 9113, section 6.5.2)."""

RESIZING = 0x20
"""The upper bits of a block's first byte that begins by resizing the table."""

RESIZES = 2
"""So often may a block do that: to a least size and to the last (RFC 7541, section 4.2)."""

CONNECTION_SPECIFIC = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
REQUEST_PSEUDO = {":method", ":scheme", ":authority", ":path"}
_NAME = re.compile(r":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(r"[\x00\r\n]")


class HeadersInvalid(Exception):
    """The fields break a rule; the stream they came on is refused, the connection goes on."""


class HeadersTooLarge(HeadersInvalid):
    """There is more of them than the limit; they were decoded nevertheless, so that the connection goes on."""


class HeadersUnreadable(Exception):
    """The block is no HPACK, or far too large: the decoder's state is lost, and with it the connection."""


class HeaderReader:
    """Decodes one connection's header blocks: `largest` bytes of fields are taken, and up to `utmost` are decoded.

    Most blocks of a gRPC client repeat byte for byte, and leave HPACK's table as it is. Such a block is decoded
    and judged once. A block that changes the table changes what others mean, so all that is remembered goes.
    """

    def __init__(self, largest: int, utmost: int) -> None:
        self._largest = largest
        self._decoder = Decoder(max_header_list_size=utmost)
        self._known: dict[tuple[bool, bytes], Headers] = {}

    def read(self, block: bytes, *, request: bool) -> Headers:
        """The fields of `block`; raises `HeadersUnreadable`, `HeadersInvalid` or `HeadersTooLarge`."""
        known = self._known.get((request, block))
        if known is not None:
            return known
        if _resizes(block) > RESIZES:
            raise HeadersUnreadable("the header block resizes the table again and again")
        newest = self._newest()
        try:
            fields: Headers = tuple(
                (_text(name), _text(value)) for name, value in self._decoder.decode(block, raw=True)
            )
        except OversizedHeaderListError as error:
            raise HeadersUnreadable("the header list is too large") from error
        except (HPACKError, IndexError, ValueError) as error:
            raise HeadersUnreadable("the header block is no HPACK") from error
        unchanged = self._newest() is newest and block[:1] and block[0] & 0xE0 != RESIZING
        if not unchanged or len(self._known) >= REMEMBERED:
            self._known.clear()
        if sum(FIELD_OVERHEAD + len(name) + len(value) for name, value in fields) > self._largest:
            raise HeadersTooLarge("the header list is too large")
        check(fields, request=request)
        if unchanged and len(block) <= LONGEST:
            self._known[request, block] = fields
        return fields

    def _newest(self) -> object:
        """The entry that HPACK's table took in last; every insertion makes a new one."""
        entries = self._decoder.header_table.dynamic_entries
        return entries[0] if entries else None


def _resizes(block: bytes) -> int:
    """How often `block` begins by resizing the table, counted no further than one too many."""
    count = position = 0
    while count <= RESIZES and position < len(block) and block[position] & 0xE0 == RESIZING:
        count += 1
        more = block[position] & 0x1F == 0x1F
        position += 1
        while more and position < len(block):
            more = block[position] >= 0x80
            position += 1
    return count


def _text(raw: bytes) -> str:
    return bytes(raw).decode("latin-1")


def check(fields: Headers, *, request: bool) -> None:
    """Raise `HeadersInvalid` unless the fields may stand in a request (or else a response or trailers)."""
    pseudo: set[str] = set()
    ordinary = False
    for name, value in fields:
        if not _NAME.fullmatch(name) or _BAD_VALUE.search(value) or value != value.strip(" \t"):
            raise HeadersInvalid(f"bad field {name!r}")
        if name[0] == ":":
            if ordinary or name in pseudo:
                raise HeadersInvalid(f"misplaced {name}")
            pseudo.add(name)
            continue
        ordinary = True
        if name in CONNECTION_SPECIFIC or (name == "te" and value != "trailers"):
            raise HeadersInvalid(f"{name} has no place in HTTP/2")
    if request and not ({":method", ":scheme", ":path"} <= pseudo <= REQUEST_PSEUDO):
        raise HeadersInvalid("a request needs :method, :scheme and :path")
    if not request and not pseudo <= {":status"}:
        raise HeadersInvalid("only :status may be there")


STATIC_NAMES = {
    ":authority": 1, ":method": 2, ":path": 4, ":scheme": 6, ":status": 8, "content-type": 31, "user-agent": 58,
}  # fmt: skip
STATIC_FIELDS = {
    (":method", "GET"): 2, (":method", "POST"): 3, (":path", "/"): 4, (":scheme", "http"): 6,
    (":scheme", "https"): 7, (":status", "200"): 8, (":status", "204"): 9, (":status", "206"): 10,
    (":status", "304"): 11, (":status", "400"): 12, (":status", "404"): 13, (":status", "500"): 14,
}  # fmt: skip
"""Those rows of HPACK's static table (RFC 7541, appendix A) that gRPC sends."""


def write_headers(fields: Iterable[tuple[str, str]]) -> bytes:
    """A block that leaves the peer's table as it is, so that it can be made once and sent on any connection."""
    parts: list[bytes] = []
    for name, value in fields:
        whole = STATIC_FIELDS.get((name, value))
        if whole is not None:
            parts.append(bytes((0x80 | whole,)))
            continue
        index = STATIC_NAMES.get(name, 0)
        parts.append(_integer(index, 4))
        if not index:
            parts += _string(name)
        parts += _string(value)
    return b"".join(parts)


def _string(text: str) -> tuple[bytes, bytes]:
    raw = text.encode("latin-1")
    return _integer(len(raw), 7), raw


def _integer(value: int, bits: int) -> bytes:
    """An integer with a prefix of `bits` bits, those above being zero (RFC 7541, section 5.1)."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes((value,))
    parts, rest = [limit], value - limit
    while rest >= 0x80:
        parts.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes((*parts, rest))
