# SPDX-License-Identifier: Apache-2.0
"""Addresses of servers."""

from __future__ import annotations

import pytest

from septet.client.target import Target
from septet.errors import UsageError


@pytest.mark.parametrize(
    ("url", "address"),
    [("http://x", "x:8000"), ("grpc://x", "x:8001"), ("http://x:1/", "x:1"), ("grpc://[::1]:2", "[::1]:2")],
)
def test_addresses(url: str, address: str) -> None:
    assert Target(url).address == address


@pytest.mark.parametrize(
    "wrong",
    ["localhost:8000", "ftp://x", "http://", "http://x:99999999", "http://x/v2", "http://x?a=b", "http://me:pw@x",
     "http://x#y", "http://[::1", "http://" + "x" * 64, "http://x..y"],
)  # fmt: skip
def test_addresses_that_are_none(wrong: str) -> None:
    with pytest.raises(UsageError):
        Target(wrong)
