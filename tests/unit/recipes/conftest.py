# SPDX-License-Identifier: Apache-2.0
"""What tests of recipes share: a recipe is a script, loaded by its path."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Load = Callable[[str], ModuleType]


@pytest.fixture(scope="session")
def load_recipe() -> Load:
    """Gives the module ``recipes/NETWORK.py``."""

    def load(network: str) -> ModuleType:
        path = Path(__file__).parents[3] / "recipes" / f"{network}.py"
        spec = importlib.util.spec_from_file_location(f"recipe_{network.replace('-', '_')}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
