# SPDX-License-Identifier: Apache-2.0
"""`ModelConfig` from Triton's protobuf message, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

from google.protobuf.descriptor import FieldDescriptor

from septet.model_config import config as parts
from septet.model_config.config import ModelConfig
from septet.stubs import model_config_pb2

_KINDS: dict[str, type] = {
    "Latest": parts.Latest,
    "All": parts.All,
    "Specific": parts.Specific,
    "ModelVersionPolicy": parts.VersionPolicy,
    "ModelTensorReshape": parts.Reshape,
    "ModelInput": parts.Input,
    "ModelOutput": parts.Output,
    "BatchInput": parts.BatchInput,
    "BatchOutput": parts.BatchOutput,
    "ModelQueuePolicy": parts.QueuePolicy,
    "ModelDynamicBatching": parts.DynamicBatching,
    "Step": parts.Step,
    "ModelEnsembling": parts.Ensembling,
    "Resource": parts.RateLimiterResource,
    "ModelRateLimiter": parts.RateLimiter,
    "SecondaryDevice": parts.SecondaryDevice,
    "ModelInstanceGroup": parts.InstanceGroup,
    "Input": parts.WarmupInput,
    "ModelWarmup": parts.Warmup,
    "ModelTransactionPolicy": parts.TransactionPolicy,
    "ModelParameter": parts.ModelParameter,
    "ModelConfig": ModelConfig,
}
"""Message -> the dataclass that mirrors it."""


def from_proto(message: Any) -> ModelConfig:
    """The configuration in a ``model_config_pb2.ModelConfig``."""
    rest = type(message)()
    rest.CopyFrom(message)
    for each in fields(ModelConfig):
        if each.name != "rest":
            rest.ClearField(each.name)
    return cast(ModelConfig, _mirror(message, rest=rest.SerializeToString()))


def to_proto(config: ModelConfig) -> Any:
    """The ``model_config_pb2.ModelConfig`` of a configuration."""
    message = model_config_pb2.ModelConfig.FromString(config.rest)
    _fill(message, config)
    return message


def with_defaults(message: Any) -> Any:
    """`message` with those defaults that Triton fills in when it shows a configuration."""
    optimization = message.optimization
    for name in ("input_pinned_memory", "output_pinned_memory"):
        if not optimization.HasField(name):
            getattr(optimization, name).enable = True
    return message


def _mirror(message: Any, **extra: object) -> object:
    kind = _KINDS[message.DESCRIPTOR.name]
    found = {
        each.name: _value(message, message.DESCRIPTOR.fields_by_name[each.name.rstrip("_")])
        for each in fields(kind)
        if each.name not in extra
    }
    return kind(**found, **extra)


def _value(message: Any, described: FieldDescriptor) -> object:
    value = getattr(message, described.name)
    if _is_map(described):
        nested = described.message_type.fields_by_name["value"].message_type
        return {key: _mirror(each) if nested else each for key, each in value.items()}
    if described.is_repeated:
        return tuple(_plain(each, described) for each in value)
    if described.message_type is not None and not message.HasField(described.name):
        return None
    return _plain(value, described)


def _plain(value: Any, described: FieldDescriptor) -> object:
    if described.message_type is not None:
        return _mirror(value)
    if described.enum_type is not None:
        return described.enum_type.values_by_number[value].name
    return cast(object, value)


def _fill(message: Any, source: Any) -> None:
    for each in fields(source):
        if each.name != "rest":
            _set(message, message.DESCRIPTOR.fields_by_name[each.name.rstrip("_")], getattr(source, each.name))


def _set(message: Any, described: FieldDescriptor, value: Any) -> None:
    name = described.name
    if isinstance(value, Mapping):
        for key, each in value.items():
            if is_dataclass(each):
                getattr(message, name)[key].SetInParent()
                _fill(getattr(message, name)[key], each)
            else:
                getattr(message, name)[key] = each
    elif isinstance(value, tuple):
        for each in value:
            if is_dataclass(each):
                _fill(getattr(message, name).add(), each)
            else:
                getattr(message, name).append(_number(each, described))
    elif is_dataclass(value):
        getattr(message, name).SetInParent()
        _fill(getattr(message, name), value)
    elif value is not None and (value or described.containing_oneof is None):
        setattr(message, name, _number(value, described))


def _number(value: Any, described: FieldDescriptor) -> Any:
    return described.enum_type.values_by_name[value].number if described.enum_type is not None else value


def _is_map(described: FieldDescriptor) -> bool:
    return described.message_type is not None and described.message_type.GetOptions().map_entry
