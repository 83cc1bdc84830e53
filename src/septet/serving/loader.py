# SPDX-License-Identifier: Apache-2.0
"""From a model's folder to a `Served`: configuration, file, engines, warm-up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from septet.devices.cpu import Cpu
from septet.devices.device import Partition
from septet.engines.engine import Engine
from septet.errors import ConfigInvalid, LoadFailed
from septet.model_config.config import ModelConfig, VersionPolicy
from septet.model_config.platform import backend_of
from septet.model_config.rules import require
from septet.model_config.text import read
from septet.serving.backends import find_file, guess_backend, open_engine
from septet.serving.complete import defaults, from_file, require_match
from septet.serving.executor import EngineExecutor, Executor
from septet.serving.expiry import Expiry
from septet.serving.gather import Gather
from septet.serving.instance import Instance
from septet.serving.served import Served
from septet.serving.signature import Signature
from septet.serving.storage import inside, relative
from septet.serving.warmup import warm_up

CONFIG = "config.pbtxt"


@dataclass(frozen=True)
class Source:
    """What is loaded: a model's folder, and a configuration that stands for the one in it."""

    name: str
    folder: Path
    override: ModelConfig | None = None

    def config(self) -> tuple[ModelConfig, str]:
        """What is said of the model, and the text it was read from. Raises ConfigInvalid."""
        path = self.folder / CONFIG
        if self.override is not None:
            config, text = self.override, ""
        elif path.is_file():
            config, text = read(inside(path, self.folder)), path.read_text(encoding="utf-8")
        else:
            config, text = ModelConfig(), ""
        if config.name not in ("", self.name):
            raise ConfigInvalid(f"{CONFIG}: name: '{config.name}' is not the folder's name, '{self.name}'")
        return replace(config, name=self.name), text

    def versions(self, config: ModelConfig) -> list[int]:
        """The versions to be served, in ascending order. Raises LoadFailed where there is none."""
        there = [int(each.name) for each in self.folder.iterdir() if each.is_dir() and _is_version(each.name)]
        chosen = (config.version_policy or VersionPolicy()).choose(there)
        if not chosen:
            raise LoadFailed(f"'{self.name}' has no version to serve; folders of versions have numbers for names")
        return chosen


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and name == str(int(name)) and int(name) > 0


class Loader:
    """Loads versions of models onto the cores of this machine."""

    def __init__(self, expiry: Expiry, partition: Partition | None = None, *, auto_complete: bool = True) -> None:
        self._expiry = expiry
        self._auto_complete = auto_complete
        self._partition = partition or Cpu.detect().partition()

    def load(self, source: Source, version: int) -> Served:
        """A version, warmed up and not yet started. Raises SeptetError."""
        began = time.monotonic()
        config, text = source.config()
        folder = inside(source.folder / str(version), source.folder)
        if not (config.backend or config.platform):
            config = replace(config, backend=guess_backend(folder))
        if not backend_of(config):
            require(config, text)
        served = self._engines(source, config, text, folder)
        served.load_seconds = time.monotonic() - began
        return served

    def _engines(self, source: Source, config: ModelConfig, text: str, folder: Path) -> Served:
        """A version whose instances are engines: the first one's file completes the configuration."""
        path = find_file(config, folder)
        if path is not None:
            inside(path, source.folder)
        shares = self._shares(config)
        engines = [open_engine(config, path, shares[0])]
        try:
            first = engines[0]
            if self._auto_complete:
                config = from_file(config, first.inputs, first.outputs)
            config = defaults(config, path.name if path else "")
            require(config, text)
            require_match(config, first.inputs, first.outputs)
            engines += [open_engine(config, path, share) for share in shares[1:]]
        except BaseException:
            for engine in engines:
                engine.close()
            raise
        return self._assemble(source, config, folder, [_once(engine) for engine in engines])

    def _assemble(
        self, source: Source, config: ModelConfig, folder: Path, opens: list[Callable[[], Engine]]
    ) -> Served:
        served = Served(config, folder.name, signature := Signature(config), self._expiry)
        served.labels = _labels(config, source.folder)
        gather = Gather(config, signature)

        def opener(open_: Callable[[], Engine]) -> Callable[[], Executor]:
            def opened() -> Executor:
                executor = EngineExecutor(open_(), gather)
                warm_up(executor, config, signature, source.folder)
                return executor

            return opened

        served.instances = [
            Instance(f"{config.name}_{index}", opener(open_), served.scheduler, served.statistics)
            for index, open_ in enumerate(opens)
        ]
        return served

    def _shares(self, config: ModelConfig) -> list[Partition]:
        """The cores of each instance: all of them for one, an equal part of them each for several."""
        count = sum(max(1, group.count) for group in config.instance_group if not group.passive) or 1
        cores, part = self._partition.cores, max(1, len(self._partition.cores) // count)
        return [
            Partition(
                f"{config.name}_{index}", tuple(cores[(index * part + at) % len(cores)] for at in range(part))
            )
            for index in range(count)
        ]


def _once(engine: Engine) -> Callable[[], Engine]:
    return lambda: engine


def _labels(config: ModelConfig, folder: Path) -> dict[str, tuple[str, ...]]:
    found = {}
    for output in config.output:
        if output.label_filename:
            path = inside(folder / relative(output.label_filename), folder)
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigInvalid(f"label file '{output.label_filename}' is not readable") from error
            found[output.name] = tuple(line.strip() for line in lines if line.strip())
    return found
