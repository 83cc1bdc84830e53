# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from septet.devices.cpu import Cpu
from septet.errors import UsageError
from septet.model_config.text import read
from septet.optimize import product
from septet.serving.core import Core
from septet.wire.shm import Regions
from septet.workloads.entry import repository_of, served_name
from septet.workloads.workload import Asked, miniatures


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPTET_CACHE", str(tmp_path / "cache"))


FREE = {"bert", "rnnt", "dlrm"}
"""Their lengths are free, which cannot be warmed up; and the rows of a sample of DLRM are a batch already."""


@pytest.mark.parametrize("network", miniatures())
def test_a_server_loads_a_networks_own_file_laid_out_for_this_machine(network: str, tmp_path: Path) -> None:
    repository = repository_of(network, "mini", Asked(), tmp_path / "nothing")
    name = served_name(network, "mini")
    said = read(repository / name / "config.pbtxt")
    assert said.instance_group[0].count in (1, len(Cpu.detect().cores))
    assert said.dynamic_batching is not None
    formed = said.dynamic_batching.preferred_batch_size or (said.max_batch_size,)
    assert max(formed) <= said.max_batch_size
    warmed = [warmup.batch_size for warmup in said.model_warmup]
    assert warmed == ([] if network in FREE else list(range(1, max(formed) + 1)))
    core = Core([repository], regions=Regions())
    try:
        core.start()
        assert core.model_ready(name)
    finally:
        core.close(5.0)


def test_it_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = repository_of("resnet50", "mini", Asked(), tmp_path)

    def unwanted(*given: object) -> str:
        raise AssertionError("made again")

    monkeypatch.setattr(product, "config", unwanted)
    assert repository_of("resnet50", "mini", Asked(), tmp_path) == made


def test_a_network_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no model to be served"):
        repository_of("null", "mini", Asked(), tmp_path)
