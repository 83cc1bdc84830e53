# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import numpy as np
import onnxruntime as ort
import pytest

from septet.pipelines.text import WordPieces
from septet.workloads.tales import Tales, vocabulary
from septet.workloads.transformer import BERT_MINI, INPUTS, build, shapes

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'septet[train]'")

SMALL = replace(BERT_MINI, hidden=32, layers=2, between=64)


@pytest.fixture(scope="module")
def recipe(load_recipe: Callable[[str], ModuleType]) -> ModuleType:
    return load_recipe("bert")


def test_what_is_saved_is_what_was_trained(recipe: ModuleType) -> None:
    network = recipe.train(SMALL, steps=3, seed=1)
    saved = recipe.weights_of(network, SMALL)
    assert {name: array.shape for name, array in saved.items()} == shapes(SMALL)
    ids, mask, segments, *_ = next(iter(recipe.batches(1)))
    with torch.inference_mode():
        wanted = network(ids, mask, segments).numpy()
    weights = {name: array.astype(np.float32) for name, array in saved.items()}
    session = ort.InferenceSession(build(SMALL, weights).SerializeToString())
    tensors = (tensor.numpy() for tensor in (ids, mask, segments))
    found = session.run(None, dict(zip(INPUTS, tensors, strict=True)))
    assert np.abs(np.stack(found, -1) - wanted).max() < 0.02  # float16 is saved


def test_a_seed_gives_the_same_weights_again(recipe: ModuleType) -> None:
    first, again = (recipe.weights_of(recipe.train(SMALL, steps=2, seed=3), SMALL) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_the_places_of_an_answer_spell_it(recipe: ModuleType) -> None:
    pieces = WordPieces(vocabulary())
    spellings = list(vocabulary())
    for index in range(60):
        found = recipe._examples(range(index, index + 1), 1.0, pieces)
        answer = Tales("train").paragraph(index).qas[0].answers[0].text
        for window, (first, last), _ in found:
            ids = window.tensors(pieces)[0][first : last + 1]
            spelt = " ".join(spellings[number] for number in ids).replace(" ##", "")
            assert spelt == answer.lower()
