# SPDX-License-Identifier: Apache-2.0
"""The one data plane behind all doors: what HTTP and gRPC ask of the core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from septet.request import Answer, Parameter, Request
from septet.tensor import TensorSpec
from septet.wire.shm import Regions

Document = dict[str, Any]
"""A JSON document by Triton's own field names, which are those of its protobuf messages too."""


class Plane(Protocol):
    """What serves models. All but `submit`, `submit_all` and `admit` may block; all but `submit` and `submit_all`
    raise leaves of `septet.errors.SeptetError`."""

    regions: Regions

    def admit(self, request: Request) -> None:
        """Raise what `submit` would answer `request` with for its model, its tensors' names, dtypes and shapes.

        Looks at no element of a tensor, so a request can be refused before they are read.
        """

    def submit(self, request: Request, answer: Answer) -> None:
        """Take `request`; never blocks or raises. `answer` is called from any thread, its last call ``final``."""

    def submit_all(self, asked: Sequence[tuple[Request, Answer]]) -> None:
        """Take several requests that came together, as `submit` does each, and see to them together.

        May run them at once, where that is a matter of microseconds.
        """

    def live(self) -> bool:
        """Whether the server runs at all."""

    def ready(self) -> bool:
        """Whether the server and (if strict) all its models can answer."""

    def retire(self) -> None:
        """Have `ready` say no from now on; requests are still taken."""

    def model_ready(self, model: str, version: str = "") -> bool:
        """Whether that model can answer."""

    def server_metadata(self) -> Document:
        """``name``, ``version``, ``extensions``."""

    def model_metadata(self, model: str, version: str = "") -> Document:
        """``name``, ``versions``, ``platform``, ``inputs``, ``outputs``."""

    def model_config(self, model: str, version: str = "") -> Any:
        """The filled ``ModelConfig`` message."""

    def statistics(self, model: str = "", version: str = "") -> list[Document]:
        """Triton's ModelStatistics of one version, one model or all."""

    def index(self, ready_only: bool) -> list[Document]:
        """``name``, ``version``, ``state``, ``reason`` of what the repositories hold."""

    def load(self, model: str, parameters: Mapping[str, Parameter | bytes]) -> None:
        """Load or reload a model."""

    def unload(self, model: str, dependents: bool) -> None:
        """Unload a model."""

    def trace_settings(self, model: str = "", updates: Mapping[str, list[str] | None] | None = None) -> Document:
        """The trace settings, after `updates`."""

    def log_settings(self, updates: Mapping[str, Parameter] | None = None) -> Document:
        """The log settings, after `updates`."""

    def labels(self, model: str, version: str, output: str) -> tuple[str, ...]:
        """The labels of an output's classes; empty where it has none."""

    def raw_input(self, model: str, version: str) -> TensorSpec:
        """The single input of a model; raises `RequestInvalid` where it has another number of them."""

    def metrics_text(self) -> str:
        """Metrics in Prometheus' text format."""

    def close(self, seconds: float) -> None:
        """Take no more work, finish what is queued within `seconds`, put the instances away."""
