# SPDX-License-Identifier: Apache-2.0
"""Compression both ways, classes, and gRPC's messages."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from septet.errors import RequestInvalid, TooLarge, Unsupported
from septet.wire.classes import top_classes
from septet.wire.encoding import accepted, compress, decompress
from septet.wire.messages import MessageReader, enveloped, error_tail, error_text, timeout_ns


@given(st.lists(st.binary(max_size=50), max_size=4), st.sampled_from(["gzip", "deflate"]))
def test_bodies_cross_whole(chunks: list[bytes], encoding: str) -> None:
    assert decompress(compress(chunks, encoding), encoding, 1000) == b"".join(chunks)


def test_others_read_and_write_it() -> None:
    assert gzip.decompress(compress([b"abc"], "gzip")) == b"abc"
    assert zlib.decompress(compress([b"abc"], "deflate")) == b"abc"
    assert decompress(gzip.compress(b"abc"), "gzip", 3) == b"abc"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_goes_no_further_than_the_limit(encoding: str) -> None:
    bomb = compress([bytes(50_000_000)], encoding, 9)
    assert len(bomb) < 100_000
    tracemalloc.start()
    with pytest.raises(TooLarge):
        decompress(bomb, encoding, 1_000_000)
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_what_is_cut_off_or_goes_on_is_refused() -> None:
    whole = gzip.compress(b"abc" * 100)
    for wrong in (whole[:-1], whole + b"x", b"", b"abc"):
        with pytest.raises(RequestInvalid):
            decompress(wrong, "gzip", 1000)
    with pytest.raises(Unsupported):
        decompress(whole, "br", 1000)


@pytest.mark.parametrize(
    ("header", "encoding"),
    [("", None), ("gzip", "gzip"), ("deflate", "deflate"), ("br, deflate;q=0.5, gzip;q=0", "deflate"),
     ("identity", None), ("*", None), ("GZIP", "gzip")],
)  # fmt: skip
def test_what_a_client_takes(header: str, encoding: str | None) -> None:
    assert accepted(header) == encoding


def test_classes_of_each_row_the_highest_first() -> None:
    scores = np.array([[1, 5, 3], [9, 9, 0]], np.int32)
    got = top_classes(scores, 2, ("a", "b"), "y")
    assert got.tolist() == [[b"5:1:b", b"3:2"], [b"9:0:a", b"9:1:b"]]
    assert top_classes(np.array([0.5], np.float32), 3, (), "y").tolist() == [b"0.500000:0"]
    assert top_classes(np.zeros((0, 3), np.float32), 2, (), "y").shape == (0, 2)
    with pytest.raises(RequestInvalid):
        top_classes(np.array([b"x"], object), 1, (), "y")


@given(st.lists(st.binary(max_size=30), max_size=5), st.integers(1, 9))
def test_messages_come_out_as_they_went_in(messages: list[bytes], step: int) -> None:
    wire = b"".join(b"".join(enveloped([message])) for message in messages)
    reader, seen = MessageReader(100), []
    for start in range(0, len(wire), step):
        seen += [bytes(message) for _, message in reader.feed(memoryview(wire[start : start + step]))]
    assert seen == messages
    assert reader.empty


def test_large_chunks_are_not_copied() -> None:
    chunks = enveloped([b"head", memoryview(bytes(100_000))])
    assert chunks[0] == b"\x00\x00\x01\x86\xa4head"
    assert isinstance(chunks[1], memoryview)


def test_too_long_a_message_is_refused_when_it_is_announced() -> None:
    with pytest.raises(TooLarge):
        MessageReader(100).feed(memoryview(b"\x00\x00\x00\x00\x65"))
    with pytest.raises(RequestInvalid):
        MessageReader(100).feed(memoryview(b"\x02\x00\x00\x00\x01x"))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_error_texts_cross_whole(text: str) -> None:
    block = error_tail(3, text, begun=True)
    value = block[block.index(b"grpc-message") + len("grpc-message") :]
    start = 1 if value[0] < 127 else 2 if value[1] < 128 else 3
    assert error_text(value[start:].decode()) == text


@pytest.mark.parametrize(
    ("text", "ns"), [("1S", 10**9), ("250m", 250_000_000), ("7u", 7000), ("3n", 3), ("2M", 120 * 10**9)]
)
def test_timeouts(text: str, ns: int) -> None:
    assert timeout_ns(text) == ns


@pytest.mark.parametrize("text", ["", "S", "1", "1s", "-1S", "123456789S", "1.5S"])
def test_timeouts_that_are_none(text: str) -> None:
    with pytest.raises(RequestInvalid):
        timeout_ns(text)
