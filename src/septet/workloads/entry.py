# SPDX-License-Identifier: Apache-2.0
"""A network as an entry of a model repository, for a server."""

from __future__ import annotations

from pathlib import Path

from septet.devices.cpu import Cpu
from septet.errors import NotOptimized, UsageError
from septet.optimize import graph, product
from septet.optimize.candidate import Candidate
from septet.optimize.folder import whole_folder
from septet.workloads.fetch import cache_dir
from septet.workloads.optimizing import REPOSITORY, optimized_form
from septet.workloads.workload import Asked, Size, open_workload


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
    model = open_workload(network, size, asked).model
    if model is None:
        raise UsageError(f"{network}: has no model to be served")
    name = served_name(network, size)
    candidate = Candidate("openvino", "bf16" if Cpu.detect().bf16 else "f32")
    repository = cache_dir() / "served" / f"{name}-{graph.digest(model)[:12]}-{candidate.precision}"
    if not repository.exists():
        with whole_folder(repository) as beside:
            for part in graph.files(model):
                graph.link(part, beside / name / product.VERSION / part.name)
            (beside / name / "config.pbtxt").write_text(product.config(name, candidate, model))
    return repository
