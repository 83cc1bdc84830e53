# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from itertools import combinations
from types import ModuleType

import numpy as np
import onnxruntime as ort
import pytest

from septet.workloads.speech import Utterances
from septet.workloads.transducer import BLANK, Transducer, build, shapes

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'septet[train]'")

SMALL = Transducer(hidden=8, predict=6, joint=7)


@pytest.fixture(scope="module")
def recipe(load_recipe: Callable[[str], ModuleType]) -> ModuleType:
    return load_recipe("rnnt")


def test_the_loss_is_the_sum_over_all_alignments(recipe: ModuleType) -> None:
    draw = torch.Generator().manual_seed(0)
    frames, length = 4, 2
    chances = torch.randn((1, frames, length + 1, BLANK + 1), generator=draw, dtype=torch.float64).log_softmax(3)
    symbols = torch.tensor([[5, 3]])
    total = 0.0
    # an alignment is where, of frames + length steps, the symbols stand; the last step is a blank
    for places in combinations(range(frames + length - 1), length):
        frame = said = 0
        chance = 0.0
        for step in range(frames + length):
            if step in places:
                chance += chances[0, frame, said, symbols[0, said]].item()
                said += 1
            else:
                chance += chances[0, frame, said, BLANK].item()
                frame += 1
        total += np.exp(chance)
    loss = recipe.transducer_loss(chances, symbols, torch.tensor([frames]), torch.tensor([length]))
    assert loss.item() == pytest.approx(-np.log(total) / (length + 1))


def test_what_is_saved_is_what_was_trained(recipe: ModuleType) -> None:
    network = recipe.train(SMALL, Utterances("train"), steps=2, seed=1)
    saved = recipe.weights_of(network, SMALL)
    assert {name: array.shape for name, array in saved.items()} == shapes(SMALL)
    frames, _, _, _, _ = recipe.collated([Utterances("search").spoken(index) for index in range(2)])
    with torch.inference_mode():
        wanted = network.joint_encoder(network.encode(frames)).numpy()
    weights = {name: array.astype(np.float32) for name, array in saved.items()}
    session = ort.InferenceSession(build(SMALL, weights).SerializeToString())
    lengths = np.full(2, frames.shape[1], np.int32)
    [found] = session.run(None, {"features": frames.numpy(), "lengths": lengths})
    assert np.abs(found - wanted).max() < 5e-3  # float16 is saved


def test_a_seed_gives_the_same_weights_again(recipe: ModuleType) -> None:
    first, again = (
        recipe.weights_of(recipe.train(SMALL, Utterances("train"), steps=2, seed=3), SMALL) for _ in range(2)
    )
    assert all(np.array_equal(first[name], again[name]) for name in first)
