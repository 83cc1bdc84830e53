# SPDX-License-Identifier: Apache-2.0
"""What tests share: an environment that touches neither the user's cache nor the network."""

import os
import re
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for the whole session, so that large built files are built once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def septet_environment(session_cache: Path) -> dict[str, str]:
    """The environment in which a test runs the command ``septet``."""
    return dict(os.environ) | {"SEPTET_CACHE": str(session_cache), "PYTHONWARNINGS": "default"}


def pytest_make_parametrize_id(val: object) -> str | None:
    """Names of shared memory have this process's number; a test is called the same in all of pytest-xdist's."""
    mine = str(os.getpid())
    if not isinstance(val, str) or (named := re.sub(rf"(?<=[a-z]-){mine}(?!\d)", "PID", val)) == val:
        return None
    return repr(named)
