# SPDX-License-Identifier: Apache-2.0
"""A model's configuration, field for field as Triton's ``model_config.proto`` names them.

An enum is the name of its value (``TYPE_FP32``), a repeated field a tuple, a map a dict. A dimension of -1 is
free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Latest:
    """Serve the `num_versions` highest versions."""

    num_versions: int = 1


@dataclass(frozen=True)
class All:
    """Serve every version."""


@dataclass(frozen=True)
class Specific:
    """Serve these versions."""

    versions: tuple[int, ...] = ()


@dataclass(frozen=True)
class VersionPolicy:
    """Which of a model's versions are served; one of the three is set."""

    latest: Latest | None = None
    all: All | None = None
    specific: Specific | None = None

    def choose(self, versions: list[int]) -> list[int]:
        """Those of `versions` that are served, in ascending order."""
        if self.all is not None:
            return sorted(versions)
        if self.specific is not None:
            return sorted(set(versions).intersection(self.specific.versions))
        return sorted(versions)[-(self.latest or Latest()).num_versions :]


@dataclass(frozen=True)
class Reshape:
    """The shape, without the batch's dimension, that the model's file has for a tensor."""

    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Input:
    """An input as clients see it; `dims` has no batch dimension where the model has a ``max_batch_size``."""

    name: str = ""
    data_type: str = "TYPE_INVALID"
    format: str = "FORMAT_NONE"
    dims: tuple[int, ...] = ()
    reshape: Reshape | None = None
    is_shape_tensor: bool = False
    allow_ragged_batch: bool = False
    optional: bool = False
    is_non_linear_format_io: bool = False


@dataclass(frozen=True)
class Output:
    """An output as clients see it; `label_filename` lies in the model's folder and has a label a line."""

    name: str = ""
    data_type: str = "TYPE_INVALID"
    dims: tuple[int, ...] = ()
    reshape: Reshape | None = None
    label_filename: str = ""
    is_shape_tensor: bool = False
    is_non_linear_format_io: bool = False


@dataclass(frozen=True)
class BatchInput:
    """An input that the server makes for each batch out of the shapes in it."""

    kind: str = "BATCH_ELEMENT_COUNT"
    target_name: tuple[str, ...] = ()
    data_type: str = "TYPE_INVALID"
    source_input: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchOutput:
    """Outputs that are cut into requests by the shapes of an input."""

    target_name: tuple[str, ...] = ()
    kind: str = "BATCH_SCATTER_WITH_INPUT_SHAPE"
    source_input: tuple[str, ...] = ()


@dataclass(frozen=True)
class QueuePolicy:
    """How long requests may wait, in µs, and how many may; 0 is without limit."""

    timeout_action: str = "REJECT"
    default_timeout_microseconds: int = 0
    allow_timeout_override: bool = False
    max_queue_size: int = 0


@dataclass(frozen=True)
class DynamicBatching:
    """How requests are joined into batches; priorities run from 1, the highest, to `priority_levels`."""

    preferred_batch_size: tuple[int, ...] = ()
    max_queue_delay_microseconds: int = 0
    preserve_ordering: bool = False
    priority_levels: int = 0
    default_priority_level: int = 0
    default_queue_policy: QueuePolicy | None = None
    priority_queue_policy: Mapping[int, QueuePolicy] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """A model of an ensemble: its inputs and outputs, each with the ensemble's name of the tensor."""

    model_name: str = ""
    model_version: int = 0
    input_map: Mapping[str, str] = field(default_factory=dict)
    output_map: Mapping[str, str] = field(default_factory=dict)
    model_namespace: str = ""


@dataclass(frozen=True)
class Ensembling:
    """Models that hand tensors on to one another; each runs as soon as all its inputs are there."""

    step: tuple[Step, ...] = ()
    max_inflight_requests: int = 0


@dataclass(frozen=True)
class RateLimiterResource:
    name: str = ""
    global_: bool = False
    count: int = 0


@dataclass(frozen=True)
class RateLimiter:
    """What an instance needs to run; kept and shown, without effect."""

    resources: tuple[RateLimiterResource, ...] = ()
    priority: int = 0


@dataclass(frozen=True)
class SecondaryDevice:
    kind: str = "KIND_NVDLA"
    device_id: int = 0


@dataclass(frozen=True)
class InstanceGroup:
    """`count` instances of one kind."""

    name: str = ""
    kind: str = "KIND_AUTO"
    count: int = 0
    rate_limiter: RateLimiter | None = None
    gpus: tuple[int, ...] = ()
    secondary_devices: tuple[SecondaryDevice, ...] = ()
    profile: tuple[str, ...] = ()
    passive: bool = False
    host_policy: str = ""


@dataclass(frozen=True)
class WarmupInput:
    """The data of one warm-up input: zeros, random, or a file in the model's folder ``warmup``."""

    data_type: str = "TYPE_INVALID"
    dims: tuple[int, ...] = ()
    zero_data: bool = False
    random_data: bool = False
    input_data_file: str = ""


@dataclass(frozen=True)
class Warmup:
    """A request that every instance answers `count` times before the model is ready."""

    name: str = ""
    batch_size: int = 0
    inputs: Mapping[str, WarmupInput] = field(default_factory=dict)
    count: int = 0


@dataclass(frozen=True)
class TransactionPolicy:
    """Whether a request may have any number of responses."""

    decoupled: bool = False


@dataclass(frozen=True)
class ModelParameter:
    string_value: str = ""


@dataclass(frozen=True)
class ModelConfig:
    """Everything that is said of a model.

    `rest` holds, as serialised protobuf, the fields that Septet keeps and shows and does not act on.
    """

    name: str = ""
    platform: str = ""
    backend: str = ""
    version_policy: VersionPolicy | None = None
    max_batch_size: int = 0
    input: tuple[Input, ...] = ()
    output: tuple[Output, ...] = ()
    batch_input: tuple[BatchInput, ...] = ()
    batch_output: tuple[BatchOutput, ...] = ()
    dynamic_batching: DynamicBatching | None = None
    ensemble_scheduling: Ensembling | None = None
    instance_group: tuple[InstanceGroup, ...] = ()
    default_model_filename: str = ""
    metric_tags: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, ModelParameter] = field(default_factory=dict)
    model_warmup: tuple[Warmup, ...] = ()
    model_transaction_policy: TransactionPolicy | None = None
    rest: bytes = b""

    @property
    def decoupled(self) -> bool:
        """Whether a request may have any number of responses."""
        return self.model_transaction_policy is not None and self.model_transaction_policy.decoupled

    def parameter(self, name: str) -> str | None:
        """The text of a model parameter, or ``None`` where it is not set."""
        found = self.parameters.get(name)
        return None if found is None else found.string_value
