# SPDX-License-Identifier: Apache-2.0
"""A network as an entry of a model repository, for a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from septet.config import EngineConfig
from septet.devices.cpu import Cpu
from septet.engines.engine import load
from septet.errors import NotOptimized, UsageError
from septet.optimize import graph, product
from septet.optimize.candidate import Candidate
from septet.optimize.folder import whole_folder
from septet.optimize.recorder import Recording
from septet.tensor import Tensors
from septet.workloads.fetch import cache_dir
from septet.workloads.optimizing import REPOSITORY, optimized_form
from septet.workloads.workload import Asked, Size, Workload, open_workload


def served_name(network: str, size: Size) -> str:
    """What a server calls it."""
    return f"{network}-{size}"


def repository_of(network: str, size: Size, asked: Asked, repository: Path = REPOSITORY) -> Path:
    """A model repository that holds `network` under its `served_name`: what `septet optimize` made of it, or else
    its own file, in the lowest precision that this CPU computes in.

    Raises what opening the network raises.
    """
    try:
        optimized_form(network, size, asked, repository)
    except NotOptimized:
        return _plain(network, size, asked)
    return repository


def _plain(network: str, size: Size, asked: Asked) -> Path:
    workload, candidate = open_workload(network, size, asked), plain_form()
    if workload.model is None:
        raise UsageError(f"{network}: has no model to be served")
    name = served_name(network, size)
    return repository_with(name, candidate, workload.model, lambda: _feed(workload, candidate))


def plain_form() -> Candidate:
    """How a network's own file is served."""
    return Candidate("openvino", "bf16" if Cpu.detect().bf16 else "f32")


def _feed(workload: Workload, candidate: Candidate) -> Tensors:
    """What the engine gets for one sample."""
    config, partition = EngineConfig(candidate.precision), Cpu.detect().partition()
    recording = Recording(lambda path: load(candidate.engine, path, config, partition))
    with workload.predictor(recording) as predict:
        predict(workload.collate([workload.sample(0)]))
    return recording.recorder.feeds[0]


def repository_with(name: str, candidate: Candidate, model: Path, feed: Callable[[], Tensors]) -> Path:
    """A model repository whose only entry, called `name`, is the file `model` run as `candidate` says.

    It is made once for so many cores; `feed` tells what the engine gets for one sample.
    """
    form = f"{candidate.precision}-{len(Cpu.detect().cores)}"
    repository = cache_dir() / "served" / f"{name}-{graph.digest(model)[:12]}-{form}"
    if not repository.exists():
        with whole_folder(repository) as beside:
            for part in graph.files(model):
                graph.link(part, beside / name / product.VERSION / part.relative_to(model.parent))
            (beside / name / "config.pbtxt").write_text(product.config(name, candidate, model, feed()))
    return repository
