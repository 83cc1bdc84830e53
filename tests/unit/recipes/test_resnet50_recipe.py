# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from types import ModuleType

import numpy as np
import onnxruntime as ort
import pytest

from septet.workloads.resnet import ResNet, build, shapes

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'septet[train]'")

SMALL = ResNet(blocks=(1, 1, 1, 1), width=4, classes=100, image=64)


@pytest.fixture(scope="module")
def recipe(load_recipe: Callable[[str], ModuleType]) -> ModuleType:
    return load_recipe("resnet50")


def test_what_is_saved_is_what_was_trained(recipe: ModuleType) -> None:
    network = recipe.train(SMALL, steps=3, seed=1)
    weights = recipe.weights_of(network, SMALL)
    assert {name: array.shape for name, array in weights.items()} == shapes(SMALL)
    images, _ = recipe.samples("search", 0, 8, SMALL.image)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(images) / recipe.PIXEL_SCALE).numpy()
    session = ort.InferenceSession(build(SMALL, weights).SerializeToString())
    assert np.abs(session.run(None, {"image": images})[0] - wanted).max() < 1e-3


def test_a_seed_gives_the_same_weights_again(recipe: ModuleType) -> None:
    first, again = (recipe.weights_of(recipe.train(SMALL, steps=2, seed=3), SMALL) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
