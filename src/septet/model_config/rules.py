# SPDX-License-Identifier: Apache-2.0
"""Triton's rules for a configuration, each told with its field.

They are those of ``model_config_utils.cc`` in Triton's core, and what Septet does not serve.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from septet.errors import ConfigInvalid
from septet.model_config.config import DynamicBatching, Input, ModelConfig, Output, QueuePolicy
from septet.model_config.ensemble import ensemble_faults
from septet.model_config.fault import Fault
from septet.model_config.platform import backend_of
from septet.model_config.text import line_of
from septet.stubs import model_config_pb2

MOST_LEVELS, MOST_INSTANCES = 1_000, 1_000
"""Priorities, each with a queue, and instances, each with a thread or a process: more are a slip of the hand."""


def require(config: ModelConfig, text: str = "", source: str = "config.pbtxt") -> None:
    """Raise ConfigInvalid with the first fault, at its line of `text`."""
    for fault in faults(config):
        raise ConfigInvalid(located(fault, text, source))


def located(fault: Fault, text: str, source: str) -> str:
    """The fault as one line: file, line, field, what is wrong."""
    line = line_of(text, fault.field)
    return f"{source}{f', line {line}' if line else ''}: {fault.field}: {fault.text}"


def faults(config: ModelConfig) -> Iterator[Fault]:
    """Everything that is wrong with a configuration that is complete."""
    yield from _model(config)
    for index, tensor in enumerate(config.input):
        yield from _tensor(f"input[{index}]", tensor, config)
        yield from _input(f"input[{index}]", tensor, config)
    for index, output in enumerate(config.output):
        yield from _tensor(f"output[{index}]", output, config)
    yield from _twice("input", [each.name for each in config.input])
    yield from _twice("output", [each.name for each in config.output])
    yield from _ragged(config)
    if config.dynamic_batching is not None:
        yield from _batching(config.dynamic_batching, config)
    if config.ensemble_scheduling is not None:
        yield from ensemble_faults(config, config.ensemble_scheduling)
    yield from _instances(config)
    yield from _warmup(config)


def notes(config: ModelConfig) -> Iterator[Fault]:
    """What is said and has no effect here: it is kept and shown, because Triton's users have it in their files."""
    for field, descriptor in _without_effect(config):
        yield Fault(field, f"has no effect here{descriptor}")
    for index, group in enumerate(config.instance_group):
        if group.rate_limiter is not None:
            yield Fault(f"instance_group[{index}].rate_limiter", "has no effect here: nothing limits rates")
        if group.host_policy:
            yield Fault(
                f"instance_group[{index}].host_policy", "has no effect here: instances share out the cores"
            )


def _without_effect(config: ModelConfig) -> Iterator[tuple[str, str]]:
    rest = model_config_pb2.ModelConfig.FromString(config.rest)
    for field in ("optimization", "model_metrics"):
        if rest.HasField(field):
            yield field, ""
    if rest.runtime:
        yield "runtime", ""
    if rest.cc_model_filenames:
        yield "cc_model_filenames", ": there is no GPU"


def _model(config: ModelConfig) -> Iterator[Fault]:
    if not config.name:
        yield Fault("name", "a model needs a name")
    if not backend_of(config):
        said = config.backend or config.platform
        yield Fault(
            "backend" if config.backend or not config.platform else "platform",
            f"no backend is called {said!r}" if said else "neither backend nor platform is said",
        )
    if config.max_batch_size < 0:
        yield Fault("max_batch_size", f"{config.max_batch_size} is less than 0")
    if not config.input:
        yield Fault("input", "a model needs at least one input")
    if not config.output:
        yield Fault("output", "a model needs at least one output")
    policy = config.version_policy
    if policy and policy.latest and policy.latest.num_versions < 1:
        yield Fault("version_policy.latest.num_versions", "must be 1 or more")
    if policy and policy.specific and not policy.specific.versions:
        yield Fault("version_policy.specific.versions", "no version is said")
    rest = model_config_pb2.ModelConfig.FromString(config.rest)
    if rest.HasField("sequence_batching"):
        yield Fault("sequence_batching", "Septet does not serve sequences")
    if (backend_of(config) == "ensemble") != (config.ensemble_scheduling is not None):
        yield Fault("ensemble_scheduling", 'belongs to platform "ensemble", and platform "ensemble" needs it')
    if rest.response_cache.enable:
        yield Fault("response_cache", "Septet has no response cache")
    if rest.model_operations.op_library_filename:
        yield Fault("model_operations", "Septet loads no operator libraries")
    if rest.model_repository_agents.agents:
        yield Fault("model_repository_agents", "Septet has no repository agents")


def _tensor(field: str, tensor: Input | Output, config: ModelConfig) -> Iterator[Fault]:
    if not tensor.name:
        yield Fault(f"{field}.name", "a tensor needs a name")
    if tensor.data_type == "TYPE_INVALID":
        yield Fault(f"{field}.data_type", f"the data type of {tensor.name!r} is not said")
    if not tensor.dims:
        yield Fault(f"{field}.dims", f"{tensor.name!r} needs dims; a scalar has dims [1] and an empty reshape")
    yield from (
        Fault(f"{field}.dims", f"{dim} is neither -1 nor 1 or more")
        for dim in tensor.dims
        if dim < 1 and dim != -1
    )
    if tensor.is_shape_tensor or tensor.is_non_linear_format_io:
        yield Fault(field, "shape tensors and non-linear formats belong to TensorRT, which is not here")
    if tensor.reshape is not None:
        yield from _reshape(f"{field}.reshape", tensor.dims, tensor.reshape.shape, config)


def _reshape(field: str, dims: tuple[int, ...], shape: tuple[int, ...], config: ModelConfig) -> Iterator[Fault]:
    if not shape and not config.max_batch_size:
        yield Fault(field, "an empty shape needs a batch dimension: set max_batch_size")
    yield from (Fault(field, f"{dim} is neither -1 nor 1 or more") for dim in shape if dim < 1 and dim != -1)
    if dims.count(-1) != shape.count(-1):
        yield Fault(field, f"{list(shape)} has not as many free dimensions as dims {list(dims)}")
    elif _between(dims) != _between(shape):
        yield Fault(field, f"{list(shape)} has not as many elements as dims {list(dims)}")


def _between(dims: tuple[int, ...]) -> list[int]:
    """Products of the fixed dimensions between free ones: both shapes must have the same."""
    groups: list[list[int]] = [[]]
    for dim in dims:
        groups.append([]) if dim == -1 else groups[-1].append(dim)
    return [prod(group) for group in groups]


def _input(field: str, tensor: Input, config: ModelConfig) -> Iterator[Fault]:
    rank = 3 if config.max_batch_size else 4
    if tensor.format != "FORMAT_NONE" and len(tensor.dims) != rank:
        yield Fault(f"{field}.format", f"{tensor.format} needs {rank} dims, not {len(tensor.dims)}")
    if tensor.allow_ragged_batch and not config.max_batch_size:
        yield Fault(f"{field}.allow_ragged_batch", "needs max_batch_size above 0")


def _twice(field: str, names: list[str]) -> Iterator[Fault]:
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Fault(f"{field}[{index}].name", f"{name!r} is said twice")


def _ragged(config: ModelConfig) -> Iterator[Fault]:
    names = {each.name for each in config.input}
    outputs = {each.name for each in config.output}
    for index, made in enumerate(config.batch_input):
        field = f"batch_input[{index}]"
        if made.data_type not in ("TYPE_INT32", "TYPE_FP32"):
            yield Fault(f"{field}.data_type", f"must be TYPE_INT32 or TYPE_FP32, not {made.data_type}")
        if len(made.source_input) != 1 or not names.issuperset(made.source_input):
            yield Fault(f"{field}.source_input", "must name exactly one input of the model")
        if len(made.target_name) != 1:
            yield Fault(f"{field}.target_name", "must name exactly one input of the file")
    for index, cut in enumerate(config.batch_output):
        if not outputs.issuperset(cut.target_name):
            yield Fault(f"batch_output[{index}].target_name", "names an output that the model has not")
        if len(cut.source_input) != 1 or not names.issuperset(cut.source_input):
            yield Fault(f"batch_output[{index}].source_input", "must name exactly one input of the model")


def _batching(batching: DynamicBatching, config: ModelConfig) -> Iterator[Fault]:
    if not config.max_batch_size:
        yield Fault("dynamic_batching", "needs max_batch_size above 0")
    for size in batching.preferred_batch_size:
        if size < 1:
            yield Fault("dynamic_batching.preferred_batch_size", f"{size} is less than 1")
        elif config.max_batch_size and size > config.max_batch_size:
            yield Fault(
                "dynamic_batching.preferred_batch_size", f"{size} exceeds max_batch_size {config.max_batch_size}"
            )
    levels = batching.priority_levels
    if levels > MOST_LEVELS:
        yield Fault("dynamic_batching.priority_levels", f"{levels} are more than {MOST_LEVELS}")
    if levels and not 1 <= batching.default_priority_level <= levels:
        yield Fault("dynamic_batching.default_priority_level", f"must be between 1 and {levels}")
    if levels > 1 and batching.preserve_ordering:
        yield Fault("dynamic_batching.preserve_ordering", "allows one level of priority")
    for level, policy in batching.priority_queue_policy.items():
        if not 1 <= level <= levels:
            yield Fault("dynamic_batching.priority_queue_policy", f"level {level} is not between 1 and {levels}")
        yield from _policy("dynamic_batching.priority_queue_policy", policy)
    if batching.default_queue_policy is not None:
        yield from _policy("dynamic_batching.default_queue_policy", batching.default_queue_policy)


def _policy(field: str, policy: QueuePolicy) -> Iterator[Fault]:
    if policy.default_timeout_microseconds > _CENTURY:
        yield Fault(f"{field}.default_timeout_microseconds", "is longer than a hundred years")


def _instances(config: ModelConfig) -> Iterator[Fault]:
    for index, group in enumerate(config.instance_group):
        field = f"instance_group[{index}]"
        if group.count < 1:
            yield Fault(f"{field}.count", f"{group.count} is less than 1")
        if group.count > MOST_INSTANCES:
            yield Fault(f"{field}.count", f"{group.count} are more than {MOST_INSTANCES}")
        if group.kind == "KIND_GPU" or group.gpus:
            yield Fault(f"{field}.kind", "no engine here runs on a GPU: say KIND_CPU or KIND_AUTO")
        if group.profile or group.secondary_devices:
            yield Fault(field, "profiles and secondary devices belong to TensorRT, which is not here")
    if config.instance_group and all(group.passive for group in config.instance_group):
        yield Fault("instance_group", "every instance is passive: none would run a request")


def _warmup(config: ModelConfig) -> Iterator[Fault]:
    needed = {each.name for each in config.input if not each.optional}
    known = {each.name: each for each in config.input}
    for index, sample in enumerate(config.model_warmup):
        field = f"model_warmup[{index}]"
        if config.max_batch_size and not 1 <= sample.batch_size <= config.max_batch_size:
            yield Fault(f"{field}.batch_size", f"must be between 1 and {config.max_batch_size}")
        if not config.max_batch_size and sample.batch_size > 1:
            yield Fault(f"{field}.batch_size", "the model has no batch dimension")
        for name in needed.difference(sample.inputs):
            yield Fault(f"{field}.inputs", f"input {name!r} is missing")
        for name, made in sample.inputs.items():
            if name not in known:
                yield Fault(f"{field}.inputs", f"the model has no input {name!r}")
            elif made.data_type != known[name].data_type:
                yield Fault(f"{field}.inputs", f"{name!r} is {known[name].data_type}, not {made.data_type}")
            if any(dim < 1 for dim in made.dims):
                yield Fault(f"{field}.inputs", f"every dimension of {name!r} must be 1 or more")


_CENTURY = 100 * 365 * 86_400 * 1_000_000
