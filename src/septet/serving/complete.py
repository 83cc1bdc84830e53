# SPDX-License-Identifier: Apache-2.0
"""Fill in what a configuration leaves out, from the model's file, as Triton's auto-completion does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from septet.errors import ConfigInvalid
from septet.model_config.config import (
    DynamicBatching,
    Input,
    InstanceGroup,
    Latest,
    ModelConfig,
    Output,
    QueuePolicy,
    VersionPolicy,
)
from septet.model_config.platform import backend_of, platform_of
from septet.serving.signature import data_type_of
from septet.tensor import TensorSpec

MAX_BATCH = 4
"""``max_batch_size`` of a model that says none and whose file can take batches; Triton's default."""

Specs = Sequence[TensorSpec]
MaxBatches = Mapping[str, int]
"""What stands for `MAX_BATCH`, by backend; under ``""`` for those that are not named."""

NO_OTHER: MaxBatches = MappingProxyType({})


def from_file(config: ModelConfig, inputs: Specs, outputs: Specs, largest: MaxBatches) -> ModelConfig:
    """`config` with the batch size, the scheduler and the tensors of a file that has these inputs and outputs."""
    made = {name for each in config.batch_input for name in each.target_name}
    inputs = [spec for spec in inputs if spec.name not in made]
    if _takes_batches(config, (*inputs, *outputs)):
        config = _batched(config, _largest(config, largest))
    lead = 1 if config.max_batch_size else 0
    return replace(
        config,
        input=_merge_inputs(config.input, inputs, lead),
        output=_merge_outputs(config.output, outputs, lead),
    )


def _batched(config: ModelConfig, largest: int) -> ModelConfig:
    """`config`, whose file can take batches, with their size and the dynamic batcher.

    As in Triton, a configuration that says all but the scheduler means to have none.
    """
    batch = config.max_batch_size or largest
    whole = config.max_batch_size and config.input and config.output
    if batch > 1 and not whole and config.dynamic_batching is None:
        config = replace(config, dynamic_batching=DynamicBatching())
    return replace(config, max_batch_size=batch)


def _largest(config: ModelConfig, said: MaxBatches) -> int:
    """What is `said` of the model's backend, as it is called here or in Triton, or of all backends."""
    names = (backend_of(config), config.platform.partition("_")[0], "")
    return next((said[name] for name in names if name in said), MAX_BATCH)


def defaults(config: ModelConfig, file: str = "") -> ModelConfig:
    """`config` with everything said that has a default."""
    backend = backend_of(config)
    groups = config.instance_group or (InstanceGroup(),)
    batching = config.dynamic_batching
    if batching is not None and not batching.preferred_batch_size and config.max_batch_size > 0:
        batching = replace(batching, preferred_batch_size=(config.max_batch_size,))
    if batching is not None and batching.default_queue_policy is None:
        batching = replace(batching, default_queue_policy=QueuePolicy())
    return replace(
        config,
        backend=backend or config.backend,
        platform=config.platform or platform_of(backend, file),
        default_model_filename=config.default_model_filename or file,
        version_policy=config.version_policy or VersionPolicy(latest=Latest()),
        dynamic_batching=batching,
        instance_group=tuple(_group(config.name, index, group) for index, group in enumerate(groups)),
    )


def _group(model: str, index: int, group: InstanceGroup) -> InstanceGroup:
    return replace(
        group,
        name=group.name or f"{model}_{index}",
        kind="KIND_CPU" if group.kind == "KIND_AUTO" else group.kind,
        count=group.count or 1,
    )


def require_match(config: ModelConfig, inputs: Specs, outputs: Specs) -> None:
    """Raise ConfigInvalid where the configuration and the model's file do not speak of the same tensors."""
    made = {name for each in config.batch_input for name in each.target_name}
    _require("input", config.input, [spec for spec in inputs if spec.name not in made], config)
    _require("output", config.output, outputs, config)
    missing = [spec.name for spec in inputs if spec.name not in made | {each.name for each in config.input}]
    if missing:
        raise ConfigInvalid(
            f"the model's file takes {', '.join(map(repr, missing))}, which the configuration lacks"
        )


def _takes_batches(config: ModelConfig, specs: Specs) -> bool:
    """Whether all tensors begin with a free dimension that the configuration does not claim for itself."""
    said: dict[str, Input | Output] = {each.name: each for each in config.input if each.dims}
    said |= {each.name: each for each in config.output if each.dims}
    return all(
        spec.shape[:1] == (None,)
        and len(spec.shape) > 1
        and (spec.name not in said or len(said[spec.name].dims) == len(spec.shape) - 1)
        for spec in specs
    )


def _merge_inputs(said: Sequence[Input], specs: Specs, lead: int) -> tuple[Input, ...]:
    if not said:
        return tuple(Input(spec.name, data_type_of(spec.dtype), dims=_dims(spec, lead)) for spec in specs)
    by_name = {spec.name: spec for spec in specs}
    return tuple(
        replace(each, data_type=_type(each, by_name), dims=each.dims or _dims(by_name.get(each.name), lead))
        for each in said
    )


def _merge_outputs(said: Sequence[Output], specs: Specs, lead: int) -> tuple[Output, ...]:
    if not said:
        return tuple(Output(spec.name, data_type_of(spec.dtype), _dims(spec, lead)) for spec in specs)
    by_name = {spec.name: spec for spec in specs}
    return tuple(
        replace(each, data_type=_type(each, by_name), dims=each.dims or _dims(by_name.get(each.name), lead))
        for each in said
    )


def _type(tensor: Input | Output, specs: dict[str, TensorSpec]) -> str:
    if tensor.data_type == "TYPE_INVALID" and tensor.name in specs:
        return data_type_of(specs[tensor.name].dtype)
    return tensor.data_type


def _dims(spec: TensorSpec | None, lead: int) -> tuple[int, ...]:
    return tuple(-1 if dim is None else dim for dim in spec.shape[lead:]) if spec else ()


def _require(kind: str, said: Sequence[Input | Output], specs: Specs, config: ModelConfig) -> None:
    by_name = {spec.name: spec for spec in specs}
    shapeless = {each.name for each in config.input if each.allow_ragged_batch}
    shapeless.update(name for each in config.batch_output for name in each.target_name)
    for index, tensor in enumerate(said):
        spec = by_name.get(tensor.name)
        where = f"config.pbtxt: {kind}[{index}]"
        if spec is None:
            if isinstance(tensor, Input) and tensor.optional:
                continue
            have = ", ".join(map(repr, by_name))
            raise ConfigInvalid(f"{where}: the model's file has no {kind} '{tensor.name}'; it has {have}")
        if data_type_of(spec.dtype) != tensor.data_type:
            raise ConfigInvalid(
                f"{where}: '{tensor.name}' is {tensor.data_type}, in the file {data_type_of(spec.dtype)}"
            )
        if tensor.name in shapeless:
            continue
        dims = tensor.reshape.shape if tensor.reshape else tensor.dims
        full = (-1, *dims) if config.max_batch_size else dims
        if len(full) != len(spec.shape) or any(
            -1 not in (want, have) and want != have for want, have in zip(full, _dims(spec, 0), strict=True)
        ):
            raise ConfigInvalid(
                f"{where}: '{tensor.name}' has shape {list(full)}"
                f"{' with the batch' if config.max_batch_size else ''}, in the file {list(_dims(spec, 0))}"
            )
