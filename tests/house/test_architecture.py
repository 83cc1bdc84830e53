# SPDX-License-Identifier: Apache-2.0
"""ARCHITECTURE.md is true: every name on it exists, and every room is on it."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import septet

HOUSE = Path(__file__).parents[2]
PAGE = (HOUSE / "ARCHITECTURE.md").read_text()
NAMES = sorted(set(re.findall(r"`(septet(?:\.\w+)*)`", PAGE)))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_exists(name: str) -> None:
    parts = name.split(".")
    for depth in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:depth]))
        except ModuleNotFoundError:
            continue
        for part in parts[depth:]:
            found = getattr(found, part)
        return


def test_every_room_is_on_the_page() -> None:
    package = Path(septet.__file__).parent
    rooms = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    assert rooms <= {name.split(".")[1] for name in NAMES if "." in name}


def test_no_room_is_empty() -> None:
    for init in Path(septet.__file__).parent.rglob("__init__.py"):
        assert len(list(init.parent.glob("*.py"))) > 1, f"{init.parent} holds no working file"
