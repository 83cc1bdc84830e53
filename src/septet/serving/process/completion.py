# SPDX-License-Identifier: Apache-2.0
"""What a Python model's ``auto_complete_config`` is given to fill in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ModelConfig:
    """A configuration as a dict; what it says already is never said differently, only added to.

    Raises ValueError where a model contradicts its ``config.pbtxt``.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def as_dict(self) -> dict[str, Any]:
        """The configuration so far."""
        return self._config

    def set_max_batch_size(self, size: int) -> None:
        """Set the batch size where none is set; a smaller one that is set stays."""
        if self._config.get("max_batch_size", 0) > size:
            raise ValueError(
                f"max_batch_size is {self._config['max_batch_size']} in config.pbtxt, {size} in model.py"
            )
        self._config.setdefault("max_batch_size", size)
        if not self._config["max_batch_size"]:
            self._config["max_batch_size"] = size

    def set_dynamic_batching(self) -> None:
        """Batch dynamically, unless another scheduler is chosen."""
        if not any(name in self._config for name in ("sequence_batching", "ensemble_scheduling")):
            self._config.setdefault("dynamic_batching", {})

    def set_model_transaction_policy(self, policy: Mapping[str, bool]) -> None:
        """Say whether the model is decoupled."""
        if unknown := set(policy) - {"decoupled"}:
            raise ValueError(f"a transaction policy has no {', '.join(sorted(unknown))}")
        have = self._config.setdefault("model_transaction_policy", dict(policy))
        if have.get("decoupled", False) != policy.get("decoupled", False):
            raise ValueError("config.pbtxt and model.py do not agree whether the model is decoupled")

    def add_input(self, tensor: Mapping[str, Any]) -> None:
        """Describe an input by ``name``, ``data_type``, ``dims``, ``optional``, ``allow_ragged_batch``."""
        self._add("input", tensor, {"optional", "allow_ragged_batch", "format", "is_shape_tensor", "reshape"})

    def add_output(self, tensor: Mapping[str, Any]) -> None:
        """Describe an output by ``name``, ``data_type``, ``dims``."""
        self._add("output", tensor, {"label_filename", "is_shape_tensor", "reshape"})

    def _add(self, kind: str, tensor: Mapping[str, Any], more: set[str]) -> None:
        if unknown := set(tensor) - {"name", "data_type", "dims", *more}:
            raise ValueError(f"an {kind} has no {', '.join(sorted(unknown))}")
        if missing := {"name", "data_type", "dims"} - set(tensor):
            raise ValueError(f"an {kind} needs {', '.join(sorted(missing))}")
        tensors = self._config.setdefault(kind, [])
        have = next((each for each in tensors if each["name"] == tensor["name"]), None)
        if have is None:
            tensors.append(dict(tensor))
            return
        for field, value in tensor.items():
            if have.get(field) in (None, "TYPE_INVALID", []):
                have[field] = value
            elif field in ("data_type", "dims") and have[field] != value:
                raise ValueError(
                    f"{kind} '{tensor['name']}': {field} is {have[field]} in config.pbtxt, {value} here"
                )
