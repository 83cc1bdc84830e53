# SPDX-License-Identifier: Apache-2.0
import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from septet.workloads.boxes import decode, overlaps
from septet.workloads.scenes import BoxScenes

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'septet[train]'")


@pytest.fixture(params=["ssd-mobilenet", "ssd-resnet34"])
def recipe(request: pytest.FixtureRequest, load_recipe: Callable[[str], ModuleType]) -> Any:
    return replace(load_recipe(request.param).RECIPE, batch=4)


@pytest.fixture
def detector(recipe: Any) -> ModuleType:
    return sys.modules["detector"]


def test_what_is_saved_is_what_was_trained(recipe: Any, detector: Any) -> None:
    weights = detector.train(recipe, steps=2, seed=1)
    assert {name: array.shape for name, array in weights.items()} == recipe.graph.shapes(recipe.network)
    images, _, _ = detector.samples(recipe, "search", 0, 2)
    tape = detector.Tape(weights)
    tape.training = False
    with torch.inference_mode():
        wanted, _ = recipe.graph.layers(tape, recipe.network, images)
    session = ort.InferenceSession(recipe.graph.build(recipe.network, weights).SerializeToString())
    codes, _ = session.run(None, {"image": images.numpy()})
    assert np.abs(codes - wanted.numpy()).max() < 1e-3
    assert "mAP on search: " in detector.score(recipe, weights, "search", 4)


def test_a_seed_gives_the_same_weights_again(recipe: Any, detector: Any) -> None:
    first, again = (detector.train(recipe, steps=2, seed=3) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_each_thing_is_matched_and_its_codes_are_its_box(recipe: Any, detector: Any) -> None:
    for index in range(5):
        scene = BoxScenes("search").scene(index)
        codes, classes = detector.match(scene, recipe)
        found = classes > 0
        boxes = decode(codes[found], recipe.net.priors[found])
        boxes = boxes if recipe.net.xy else boxes[:, [1, 0, 3, 2]]
        height, width = scene.image.shape[:2]
        wanted = np.concatenate([scene.boxes[:, :2], scene.boxes[:, :2] + scene.boxes[:, 2:]], axis=1)
        shared = overlaps(boxes * [width, height, width, height], wanted)
        assert (shared.max(axis=1) > 0.99).all()
        assert (shared.max(axis=0) > 0.99).all()
        numbers = [recipe.numbers[int(scene.categories[thing])] for thing in shared.argmax(axis=1)]
        assert classes[found].tolist() == numbers
