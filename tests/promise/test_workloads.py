# SPDX-License-Identifier: Apache-2.0
"""What every workload keeps, run over each miniature."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import Engine, load
from septet.errors import DataError, InferenceFailed, UsageError
from septet.harness.library import Library
from septet.harness.rules import rules_of
from septet.tensor import Tensors
from septet.workloads.graph import parameters
from septet.workloads.workload import Asked, Workload, miniatures, networks, open_workload, workload_class

FEW = 5


@pytest.fixture(autouse=True)
def own_cache(session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPTET_CACHE", str(session_cache))


@pytest.fixture(params=[*miniatures(), "null"])
def mini(request: pytest.FixtureRequest, own_cache: None) -> Workload:
    return open_workload(request.param, "mini", Asked())


def engine_for(path: Path | None) -> Engine:
    return load("onnx" if path else "null", path, EngineConfig(), Cpu.detect().partition())


def answers(workload: Workload, indices: list[int], batch: int) -> list[bytes]:
    library = Library(workload)
    library.load(indices)
    found: list[bytes] = []
    with workload.predictor(engine_for) as predict:
        for begin in range(0, len(indices), batch):
            rows = predict(library.gather(indices[begin : begin + batch]))
            assert all(row.flags.c_contiguous for row in rows)
            found += [row.tobytes() for row in rows]
    return found


def test_a_miniature_is_trained_scored_and_says_what_it_is(mini: Workload) -> None:
    assert (mini.origin, mini.scored, mini.size) == ("trained", True, "mini")
    assert mini.data
    assert mini.notes == ()
    assert len(mini) >= 100


def test_samples_are_the_same_each_time(mini: Workload) -> None:
    for index in (0, len(mini) - 1):
        one, again = mini.sample(index), mini.sample(index)
        assert all(np.array_equal(one[name], again[name]) for name in one)


def test_there_is_one_answer_a_sample_whatever_the_batch(mini: Workload) -> None:
    indices = [3, 1, len(mini) - 1, 0, 2]
    assert len(answers(mini, indices, 2)) == FEW
    whole, apart = answers(mini, indices, FEW), answers(mini, indices, 1)
    assert [len(one) for one in whole] == [len(one) for one in apart]


@pytest.mark.parametrize("network", miniatures())
def test_numbers_that_are_none_do_not_become_answers(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = open_workload(network, "mini", Asked())

    def spoilt(path: Path | None) -> Engine:
        engine = engine_for(path)
        infer = engine.infer

        def last_is_none(batch: Tensors) -> Tensors:
            outputs = {name: array.copy() for name, array in infer(batch).items()}
            for array in outputs.values():
                array.flat[-1] = np.nan
            return outputs

        monkeypatch.setattr(engine, "infer", last_is_none)
        return engine

    with workload.predictor(spoilt) as predict, pytest.raises(InferenceFailed, match="is no finite number"):
        predict(workload.collate([workload.sample(index) for index in range(2)]))


@pytest.mark.parametrize("network", networks())
def test_wrong_data_is_told_before_weights_are_built(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEPTET_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="nowhere"):
        open_workload(network, "full", Asked(weights="synthetic", data=tmp_path / "nowhere"))
    assert not (tmp_path / "cache" / "built").exists()


def test_a_missing_answer_is_an_error(mini: Workload) -> None:
    with pytest.raises(DataError):
        mini.score({0: b""})


@pytest.mark.parametrize("network", miniatures())
def test_a_miniature_takes_no_weights_or_data(network: str) -> None:
    for asked in (Asked(weights="synthetic"), Asked(data=Path())):
        with pytest.raises(UsageError, match="go with --size full"):
            open_workload(network, "mini", asked)


@pytest.mark.parametrize("network", miniatures())
def test_the_card_counts_what_the_miniature_holds(network: str) -> None:
    workload = open_workload(network, "mini", Asked())
    assert workload.model is not None
    counted = parameters(onnx.load(workload.model))
    assert workload_class(network).card.mini.parameters == counted
    assert rules_of(network).title


def test_a_miniature_that_does_not_ship_is_told() -> None:
    for network in set(networks()) - set(miniatures()):
        with pytest.raises(UsageError, match="no trained miniature ships yet; --size full runs the network"):
            open_workload(network, "mini", Asked())


def test_all_shipped_weights_together_are_small() -> None:
    import septet.workloads.workload as module

    shipped = (Path(module.__file__).parent / "data").iterdir()
    assert sum(file.stat().st_size for file in shipped) < 15e6
