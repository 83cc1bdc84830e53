# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from types import ModuleType

import numpy as np
import onnxruntime as ort
import pytest

from septet.workloads.unet import UNet, build, shapes

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'septet[train]'")

SMALL = UNet(channels=4, widths=(4, 6), classes=4, volume=(32, 32, 32))


@pytest.fixture(scope="module")
def recipe(load_recipe: Callable[[str], ModuleType]) -> ModuleType:
    return load_recipe("3d-unet")


def test_what_is_saved_is_what_was_trained(recipe: ModuleType) -> None:
    network = recipe.train(SMALL, steps=2, seed=1)
    saved = recipe.weights_of(network, SMALL)
    assert {name: array.shape for name, array in saved.items()} == shapes(SMALL)
    volumes, _ = recipe.samples("search", 0, 1, SMALL)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(volumes)).numpy()
    weights = {name: array.astype(np.float32) for name, array in saved.items()}
    session = ort.InferenceSession(build(SMALL, weights).SerializeToString())
    assert np.abs(session.run(None, {"volume": volumes})[0] - wanted).max() < 0.02  # float16 is saved


def test_a_seed_gives_the_same_weights_again(recipe: ModuleType) -> None:
    first, again = (recipe.weights_of(recipe.train(SMALL, steps=2, seed=3), SMALL) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
