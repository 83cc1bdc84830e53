# SPDX-License-Identifier: Apache-2.0
"""Requests that every instance answers before its model is ready, as ``model_warmup`` describes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from septet.errors import ConfigInvalid, LoadFailed
from septet.model_config.config import ModelConfig, Warmup, WarmupInput
from septet.request import Request, Response
from septet.serving.executor import Executor
from septet.serving.pending import Pending
from septet.serving.signature import Signature, dtype_of
from septet.serving.statistics import Statistics
from septet.serving.storage import inside, relative
from septet.tensor import Array, from_raw

FOLDER = "warmup"


def warm_up(executor: Executor, config: ModelConfig, signature: Signature, folder: Path) -> None:
    """Run all of a model's warm-ups. Raises LoadFailed, ConfigInvalid."""
    scratch = Statistics()
    for sample in config.model_warmup:
        inputs = {name: _tensor(made, folder) for name, made in sample.inputs.items()}
        for _ in range(max(1, sample.count)):
            answers: list[Response] = []
            executor.execute(_batch(sample, inputs, config, signature, answers), scratch)
            for answer in answers:
                if answer.error is not None:
                    raise LoadFailed(f"warm-up '{sample.name}' failed: {answer.error}")


def require_files(config: ModelConfig, folder: Path) -> None:
    """Raise ConfigInvalid, RequestInvalid where a file of a warm-up is not there, or not what it is said to be."""
    for sample in config.model_warmup:
        for made in sample.inputs.values():
            if made.input_data_file and made.data_type != "TYPE_INVALID":
                _tensor(made, folder)


def _batch(
    sample: Warmup, inputs: dict[str, Array], config: ModelConfig, signature: Signature, answers: list[Response]
) -> list[Pending]:
    """As many requests as the sample's batch is large."""
    if config.max_batch_size:
        inputs = {name: array[np.newaxis] for name, array in inputs.items()}
    requests = [Request(config.name, dict(inputs)) for _ in range(max(1, sample.batch_size))]
    return [Pending(each, answers.append, "", signature.check(each)) for each in requests]


def _tensor(made: WarmupInput, folder: Path) -> Array:
    dtype = dtype_of(made.data_type)
    if made.input_data_file:
        path = inside(folder / FOLDER / relative(made.input_data_file), folder)
        try:
            return from_raw(path.read_bytes(), dtype, made.dims)
        except (OSError, ValueError) as error:
            raise ConfigInvalid(f"warm-up file '{made.input_data_file}' is not usable: {error}") from error
    if dtype == np.object_:
        return np.full(made.dims, b"", np.object_)
    if made.random_data:
        draw = np.random.default_rng(0)
        kind = np.dtype(dtype).kind
        return (draw.standard_normal(made.dims) if kind not in "iub" else draw.integers(0, 2, made.dims)).astype(
            dtype
        )
    return np.zeros(made.dims, dtype)
