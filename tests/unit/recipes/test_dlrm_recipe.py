# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from types import ModuleType

import numpy as np
import onnxruntime as ort
import pytest

from septet.workloads.recommender import DLRM_MINI, build, shapes

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'septet[train]'")


@pytest.fixture(scope="module")
def recipe(load_recipe: Callable[[str], ModuleType]) -> ModuleType:
    return load_recipe("dlrm")


def test_what_is_saved_is_what_was_trained(recipe: ModuleType) -> None:
    network = recipe.train(DLRM_MINI, steps=3, seed=1)
    saved = recipe.weights_of(network, DLRM_MINI)
    assert {name: array.shape for name, array in saved.items()} == shapes(DLRM_MINI)
    dense, indices, _, _ = recipe.samples("search", 0, 2, DLRM_MINI)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(dense), torch.from_numpy(indices)).sigmoid().numpy()
    weights = {name: array.astype(np.float32) for name, array in saved.items()}
    session = ort.InferenceSession(build(DLRM_MINI, weights).SerializeToString())
    [found] = session.run(None, {"dense": dense, "indices": indices})
    assert np.abs(found[:, 0] - wanted).max() < 5e-3  # float16 is saved


def test_a_seed_gives_the_same_weights_again(recipe: ModuleType) -> None:
    first, again = (recipe.weights_of(recipe.train(DLRM_MINI, steps=2, seed=3), DLRM_MINI) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
