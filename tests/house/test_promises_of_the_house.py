# SPDX-License-Identifier: Apache-2.0
"""What must be true of all source files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]
SOURCES = sorted((HOUSE / "src").rglob("*.py"))
ALL = sorted(path for part in ("src", "tests", "bench", "recipes") for path in (HOUSE / part).rglob("*.py"))


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(HOUSE)))
def test_the_licence_is_named_first(path: Path) -> None:
    assert path.read_text().startswith("# SPDX-License-Identifier: Apache-2.0\n")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_no_pickle_anywhere(path: Path) -> None:
    assert _imports(path).isdisjoint({"pickle", "cloudpickle", "dill", "shelve", "marshal", "multiprocessing"})


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_loadgen_is_imported_in_one_file_only(path: Path) -> None:
    assert ("mlperf_loadgen" in _imports(path)) == (path.name == "loadgen.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_tritons_client_is_imported_in_one_file_only(path: Path) -> None:
    assert ("tritonclient" in _imports(path)) == (path.name == "stubs.py")


def test_the_command_starts_without_engines() -> None:
    code = (
        "import sys, septet.cli; "
        "heavy = {'openvino', 'onnxruntime', 'cv2', 'sklearn', 'mlperf_loadgen', 'torch', 'grpc', 'uvloop'}; "
        "heavy &= set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found
