# SPDX-License-Identifier: Apache-2.0
"""What a process is told when it starts, as a configuration says it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from septet.errors import ConfigInvalid
from septet.model_config.config import ModelConfig
from septet.model_config.convert import to_proto
from septet.model_config.text import parse_json
from septet.serving.process import engine_model
from septet.serving.process.executor import Limits
from septet.serving.process.messages import Setup
from septet.serving.process.process import Process
from septet.serving.process.questions import ALONE
from septet.serving.registry import Share
from septet.wire.configuration import config_document

ENGINE_FILE = Path(engine_model.__file__)
"""The Python model that runs an engine."""


def setup_of(config: ModelConfig, instance: str, folder: Path, file: Path, *, complete: bool = False) -> Setup:
    """The setup of one instance of the version in `folder`, whose code is `file`."""
    document = json.dumps(config_document(to_proto(config)))
    return Setup(document, config.name, folder.name, instance, str(folder), str(file), complete)


def completed(config: ModelConfig, file: Path, cores: Sequence[int]) -> ModelConfig:
    """`config` as the model's ``auto_complete_config`` completes it. Raises LoadFailed, ConfigInvalid."""
    limits = limits_of(config)
    share = Share(ALONE.registry)
    process = Process(
        cores,
        lambda asked, process: ALONE.asked(asked, process, lambda number: False, share),
        share.close,
        limits.memory,
    )
    try:
        setup = setup_of(config, f"{config.name} (auto_complete_config)", file.parent, file, complete=True)
        return parse_json(process.set_up(setup, limits.start).config, f"'{config.name}': auto_complete_config")
    finally:
        process.close()


def limits_of(config: ModelConfig) -> Limits:
    """The limits that the parameters ``execution_timeout_seconds`` and ``memory_limit_mib`` set. Raises
    ConfigInvalid."""
    if config.parameter("EXECUTION_ENV_PATH"):
        raise ConfigInvalid("config.pbtxt: parameters: EXECUTION_ENV_PATH: models run in the server's environment")
    seconds = _positive(config, "execution_timeout_seconds", "seconds")
    mebibytes = _positive(config, "memory_limit_mib", "MiB")
    return Limits(
        execute=Limits.execute if seconds is None else seconds,
        memory=None if mebibytes is None else int(mebibytes * 2**20),
    )


def _positive(config: ModelConfig, name: str, unit: str) -> float | None:
    """The number in a parameter, where there is one. Raises ConfigInvalid."""
    text = config.parameter(name)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < 1e6:
        raise ConfigInvalid(f"config.pbtxt: parameters: {name}: {text!r} is not a number of {unit}")
    return number


def isolated(config: ModelConfig) -> bool:
    """Whether the parameter ``isolation`` asks for a process an instance. Raises ConfigInvalid."""
    asked = config.parameter("isolation") or "thread"
    if asked not in ("thread", "process"):
        raise ConfigInvalid(f"config.pbtxt: parameters: isolation: must be 'thread' or 'process', not {asked!r}")
    return asked == "process"
