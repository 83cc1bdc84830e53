# SPDX-License-Identifier: Apache-2.0
"""The null engine with the tensors that a configuration describes."""

from __future__ import annotations

from collections.abc import Sequence

from septet.engines.null import NullEngine
from septet.model_config.config import Input, ModelConfig, Output
from septet.serving.signature import dtype_of
from septet.tensor import TensorSpec


def echo_engine(config: ModelConfig) -> NullEngine:
    """Hands each input back as the output of the same place and shape, zeros where there is none."""
    return NullEngine(specs_of(config, config.input), specs_of(config, config.output), echo=True)


def specs_of(config: ModelConfig, tensors: Sequence[Input | Output]) -> tuple[TensorSpec, ...]:
    """What a model's file takes or gives, by what is configured."""
    lead = (None,) if config.max_batch_size else ()
    return tuple(
        TensorSpec(
            each.name,
            dtype_of(each.data_type),
            (*lead, *(None if dim == -1 else dim for dim in (each.reshape.shape if each.reshape else each.dims))),
        )
        for each in tensors
    )
