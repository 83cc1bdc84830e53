# SPDX-License-Identifier: Apache-2.0
"""The code blocks of README.md run: shell blocks marked ``sh`` in one folder, ``python`` blocks by themselves.

A block of lines that set up the machine (``make``, ``git clone``, ``apt``) is marked ``console`` and is run by
continuous integration itself.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", (HOUSE / "README.md").read_text(), re.M | re.S)


@pytest.mark.parametrize(("language", "block"), BLOCKS, ids=[block.split("\n")[0] for _, block in BLOCKS])
def test_block_runs(language: str, block: str, tmp_path: Path, septet_environment: dict[str, str]) -> None:
    if language == "python":
        command = [sys.executable, "-c", block]
    else:
        command = ["bash", "-e", "-o", "pipefail", "-c", block]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=septet_environment | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 2
