# SPDX-License-Identifier: Apache-2.0
"""``septet bench --url`` takes addresses of servers and of their models, and nothing else."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from septet.cli.bench import bench
from septet.errors import UsageError


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "http://[::1", "http://x?a=b", "http://x/m#y", "ftp://x", "http://", "http://x:123456"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"address|--url is http://HOST:PORT|no host or port"):
        CliRunner().invoke(bench, ["resnet50", "--url", url], catch_exceptions=False)
