# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from types import ModuleType

import numpy as np
import onnxruntime as ort
import pytest

from septet.tensor import Array
from septet.workloads.transformer import BERT_MINI, INPUTS, build, shapes

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'septet[train]'")


@pytest.fixture(scope="module")
def dense(load_recipe: Callable[[str], ModuleType]) -> ModuleType:
    return load_recipe("bert")


@pytest.fixture(scope="module")
def pruned(load_recipe: Callable[[str], ModuleType]) -> ModuleType:
    return load_recipe("bert-sparse")


@pytest.fixture(scope="module")
def masked(load_recipe: Callable[[str], ModuleType]) -> ModuleType:
    return load_recipe("bert-2of4")


@pytest.fixture(scope="module")
def sparsity(load_recipe: Callable[[str], ModuleType]) -> ModuleType:
    return load_recipe("sparsity")


def onnx_answers(dense: ModuleType, network: object, batch: tuple[Array, ...]) -> Array:
    weights = {name: array.astype(np.float32) for name, array in dense.weights_of(network, BERT_MINI).items()}
    session = ort.InferenceSession(build(BERT_MINI, weights).SerializeToString())
    return np.stack(session.run(None, dict(zip(INPUTS, batch, strict=True))), -1)


def test_pruned_matrices_are_smaller_and_the_graph_is_what_was_trained(
    dense: ModuleType, pruned: ModuleType
) -> None:
    network = pruned.train(BERT_MINI, steps=1, seed=1, stages=((1.0, 3, 96),))
    saved = dense.weights_of(network, BERT_MINI)
    assert set(saved) == set(shapes(BERT_MINI))
    layer = "bert.encoder.layer.1"
    assert saved[f"{layer}.attention.self.query.weight"].shape == (96, 128)
    assert saved[f"{layer}.attention.output.dense.weight"].shape == (128, 96)
    assert saved[f"{layer}.intermediate.dense.weight"].shape == (96, 128)
    assert saved[f"{layer}.output.dense.weight"].shape == (128, 96)
    ids, mask, segments, *_ = next(iter(pruned.batches(1)))
    with torch.inference_mode():
        wanted = network(ids, mask, segments).numpy()
    found = onnx_answers(dense, network, tuple(tensor.numpy() for tensor in (ids, mask, segments)))
    assert np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()  # float16 is saved


def test_what_ships_is_where_training_begins(dense: ModuleType, pruned: ModuleType) -> None:
    ids, mask, segments, *_ = next(iter(pruned.batches(1)))
    network = pruned.resumed(BERT_MINI).eval()
    with torch.inference_mode():
        wanted = network(ids, mask, segments).numpy()
    found = onnx_answers(dense, network, tuple(tensor.numpy() for tensor in (ids, mask, segments)))
    assert np.abs(found - wanted).max() < 0.02


def test_masks_hold_through_training(dense: ModuleType, masked: ModuleType) -> None:
    network = masked.train(BERT_MINI, steps=2, seed=1)
    for name, array in dense.weights_of(network, BERT_MINI).items():
        if name.endswith("dense.weight") or (".self." in name and name.endswith("weight")):
            assert ((array.reshape(-1, 4) == 0).sum(axis=1) >= 2).all()


def test_the_two_largest_of_four_stay(sparsity: ModuleType) -> None:
    weight = torch.tensor([[1.0, -3.0, 2.0, 0.5, -1.0, -1.5, 0.0, 9.0]])
    assert sparsity.two_of_four(weight).tolist() == [[False, True, True, False, False, True, False, True]]


def test_what_matters_is_found_by_its_share_of_the_loss(sparsity: ModuleType) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 3)
    layer.weight.data[:, 2] = 0
    inputs = torch.randn(50, 6)
    inputs[:, 4] = 0
    seen = sparsity.importance(layer, [layer], [lambda: layer(inputs).square().mean()] * 2)[0]
    assert (seen[2], seen[4]) == (0, 0)
    kept = sparsity.best(seen, 4)
    assert kept.tolist() == [0, 1, 3, 5]
    with torch.inference_mode():
        whole = layer(inputs)
        assert torch.allclose(sparsity.inputs_kept(layer, kept)(inputs[:, kept]), whole, atol=1e-6)
        assert torch.allclose(sparsity.outputs_kept(layer, torch.tensor([2]))(inputs), whole[:, 2:], atol=1e-6)


def test_groups_are_kept_whole(sparsity: ModuleType) -> None:
    assert sparsity.best(torch.tensor([9.0, 0, 1, 1, 5, 5]), 2, 2).tolist() == [0, 1, 4, 5]
