# SPDX-License-Identifier: Apache-2.0
"""What tests of recipes share: a recipe is a script beside others, loaded by its path."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

Load = Callable[[str], ModuleType]


RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.fixture(scope="session")
def load_recipe() -> Iterator[Load]:
    """Gives the module ``recipes/NETWORK.py``."""

    def load(network: str) -> ModuleType:
        path = RECIPES / f"{network}.py"
        spec = importlib.util.spec_from_file_location(f"recipe_{network.replace('-', '_')}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPES))
        yield load
