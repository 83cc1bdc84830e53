# SPDX-License-Identifier: Apache-2.0
"""From a model's folder to a `Served`: configuration, file, engines, warm-up."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from septet.devices.cpu import Cpu
from septet.devices.device import Partition
from septet.engines.model import read_onnx
from septet.errors import ConfigInvalid, LoadFailed, RequestInvalid, SeptetError
from septet.model_config.config import Ensembling, Latest, ModelConfig, Step, VersionPolicy
from septet.model_config.ensemble import misfits
from septet.model_config.fault import Fault
from septet.model_config.name import require_name
from septet.model_config.platform import backend_of
from septet.model_config.rules import faults, located, notes, require
from septet.model_config.text import read
from septet.serving.backends import find_file, guess_backend, has_batches, open_engine
from septet.serving.complete import NO_OTHER, MaxBatches, defaults, from_file, require_match
from septet.serving.ensemble import Ensemble, version_of
from septet.serving.executor import EngineExecutor, Executor
from septet.serving.expiry import Expiry
from septet.serving.gather import Gather
from septet.serving.instance import Instance, Open
from septet.serving.process.executor import ProcessExecutor
from septet.serving.process.questions import Server
from septet.serving.process.setup import ENGINE_FILE, completed, isolated, limits_of, setup_of
from septet.serving.served import Served
from septet.serving.signature import Signature
from septet.serving.storage import inside, relative
from septet.serving.warmup import warm_up

_LOG = logging.getLogger("septet.serving")

CONFIG = "config.pbtxt"


@dataclass(frozen=True)
class Source:
    """What is loaded: a model's folder, and a configuration that stands for the one in it."""

    name: str
    folder: Path
    override: ModelConfig | None = None

    def beside(self, name: str) -> Source:
        """Another model of the same repository."""
        return Source(name, self.folder.parent / name)

    def config(self) -> tuple[ModelConfig, str]:
        """What is said of the model, and the text it was read from. Raises ConfigInvalid."""
        path = self.folder / CONFIG
        if self.override is not None:
            config, text = self.override, ""
        elif path.is_file():
            config, text = read(inside(path, self.folder)), path.read_text(encoding="utf-8")
        elif os.path.lexists(path):
            raise ConfigInvalid(f"{CONFIG} is no file")
        else:
            config, text = ModelConfig(), ""
        if config.name not in ("", self.name):
            raise ConfigInvalid(f"{CONFIG}: name: '{config.name}' is not the folder's name, '{self.name}'")
        return replace(config, name=self.name), text

    def described(self, version: str = "", largest: MaxBatches = NO_OTHER) -> ModelConfig | None:
        """The configuration as loading `version`, or the highest, completes it; ``None`` where only that tells."""
        try:
            require_name(self.name)
            config, _ = self.config()
            folder = inside(self.folder / (version or str(self.versions(config)[-1])), self.folder)
            if not (config.backend or config.platform):
                config = replace(config, backend=guess_backend(folder))
            path = find_file(config, folder, self.folder)
            if path is not None:
                config = _completed(config, path, largest)
        except (SeptetError, OSError):
            return None
        if config.ensemble_scheduling is None:
            config = defaults(config)
        return None if any(faults(config)) else config

    def versions(self, config: ModelConfig) -> list[int]:
        """The versions to be served, in ascending order. Raises LoadFailed where there is none."""
        there = [int(name) for name in self._folders() if _is_version(name)]
        chosen = (config.version_policy or VersionPolicy()).choose(there)
        if not chosen:
            raise LoadFailed(
                f"'{self.name}' has no version to serve; folders of versions have numbers for names, "
                "from 1 on, of at most 18 digits and without leading zeros"
            )
        return chosen

    def passed_over(self, config: ModelConfig) -> list[str]:
        """Sentences on folders that only look like versions, and on versions that are asked for and not there."""
        names = self._folders()
        policy = config.version_policy
        asked = policy.specific.versions if policy is not None and policy.specific is not None else ()
        return [
            f"'{name}' is no version: their folders have numbers from 1 on, of at most 18 digits, without leading "
            "zeros, for names"
            for name in names
            if name.isdecimal() and not _is_version(name)
        ] + [f"version {version} is asked for and not there" for version in asked if str(version) not in names]

    def _folders(self) -> list[str]:
        return sorted(each.name for each in self.folder.iterdir() if each.is_dir())


def _completed(config: ModelConfig, path: Path, largest: MaxBatches) -> ModelConfig:
    """`config` with what the model's file says; without anything, where that would have to be loaded."""
    if path.suffix == ".onnx":
        file = read_onnx(path)
        return from_file(config, file.inputs, file.outputs, largest)
    silent = path.suffix == ".py" and b"auto_complete_config" not in path.read_bytes()
    return config if silent or config.max_batch_size else replace(config, input=(), output=())


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 19 and name == str(int(name)) and int(name) > 0


class Loader:
    """Loads versions of models onto the cores of this machine; `server` is what Python models may ask.

    Models that say nothing of batches are completed with those that are `largest` for their backends. What does
    not load is tried up to `retries` times more.
    """

    def __init__(
        self,
        expiry: Expiry,
        server: Server,
        partition: Partition | None = None,
        *,
        auto_complete: bool = True,
        largest: MaxBatches = NO_OTHER,
        retries: int = 0,
    ) -> None:
        self._expiry, self._server = expiry, server
        self._auto_complete = auto_complete
        self._largest = largest
        self._retries = retries
        self._partition = partition or Cpu.detect().partition()

    def load(self, source: Source, version: int) -> Served:
        """A version, warmed up and not yet started. Raises SeptetError."""
        for _ in range(self._retries):
            try:
                return self._load(source, version)
            except SeptetError as error:
                _LOG.warning("'%s', version %d, is tried again: %s", source.name, version, error)
        return self._load(source, version)

    def _load(self, source: Source, version: int) -> Served:
        began = time.monotonic()
        config, text = source.config()
        folder = inside(source.folder / str(version), source.folder)
        if not (config.backend or config.platform):
            config = replace(config, backend=guess_backend(folder))
        if not backend_of(config):
            require(config, text)
        for note in notes(config):
            _LOG.warning("'%s': %s", source.name, located(note, text, CONFIG))
        for remark in source.passed_over(config):
            _LOG.warning("'%s': %s", source.name, remark)
        makers = {"python": self._python, "ensemble": self._ensemble}
        served = makers.get(backend_of(config), self._engines)(source, config, text, folder)
        try:
            served.labels = labels_of(served.config, source.folder, text)
        except BaseException:
            served.close()
            raise
        served.load_seconds = time.monotonic() - began
        return served

    def _engines(self, source: Source, config: ModelConfig, text: str, folder: Path) -> Served:
        """A version whose instances are engines: the first one's file completes the configuration."""
        path = find_file(config, folder, source.folder)
        shares = self._shares(config)
        engine = open_engine(config, path, shares[0])
        try:
            if self._auto_complete and engine.names_tensors:
                config = from_file(config, engine.inputs, engine.outputs, self._largest)
            config = defaults(config, path.name if path else "")
            require(config, text)
            if engine.names_tensors:
                require_match(config, engine.inputs, engine.outputs)
        except BaseException:
            engine.close()
            raise
        if isolated(config):
            engine.close()
            return self._processes(source, config, folder, ENGINE_FILE)
        first = iter([engine])
        served = Served(config, folder.name, Signature(config), self._expiry)
        served.fetches = True
        gather = Gather(config, served.signature)

        def opener(share: Partition) -> Open:
            def opened() -> Executor:
                engine = next(first, None) or open_engine(config, path, share)
                engine.batched = has_batches(config)
                return EngineExecutor(engine, gather)

            return opened

        return self._staff(source, served, [opener(share) for share in shares])

    def _ensemble(self, source: Source, config: ModelConfig, text: str, folder: Path) -> Served:
        """A version that is made of other models."""
        require(config, text)
        self._require_fit(source, config, text)
        config = replace(config, version_policy=config.version_policy or VersionPolicy(latest=Latest()))
        return Ensemble(config, folder.name, Signature(config), self._expiry, self._server)

    def _require_fit(self, source: Source, config: ModelConfig, text: str) -> None:
        """Raise ConfigInvalid where an ensemble fits its models neither as they lie there nor as they are served.

        Of what is changed together, one is loaded first: whether all fits then, the ensemble looks itself.
        """

        def lying(step: Step) -> ModelConfig | None:
            return source.beside(step.model_name).described(version_of(step), self._largest)

        def served(step: Step) -> ModelConfig | None:
            try:
                return self._server.find(step.model_name, version_of(step)).config
            except SeptetError:
                return lying(step)

        ensemble = config.ensemble_scheduling or Ensembling()
        wrong = [next(misfits(config, ensemble, find), None) for find in (lying, served)]
        if wrong[0] is not None and wrong[1] is not None:
            raise ConfigInvalid(located(wrong[0], text, CONFIG))

    def _python(self, source: Source, config: ModelConfig, text: str, folder: Path) -> Served:
        """A version whose instances are processes with the model's own code."""
        path = find_file(config, folder, source.folder)
        assert path is not None
        file = path.resolve()
        if self._auto_complete and b"auto_complete_config" in file.read_bytes():
            config = completed(config, file, self._partition.cores)
        config = defaults(config, path.name)
        require(config, text)
        return self._processes(source, config, folder, file)

    def _processes(self, source: Source, config: ModelConfig, folder: Path, file: Path) -> Served:
        served = Served(config, folder.name, Signature(config), self._expiry)

        def opener(index: int, share: Partition) -> Open:
            setup = setup_of(config, f"{config.name}_{index}", folder, file)
            return lambda: ProcessExecutor(
                setup, share.cores, served.signature, self._server, limits_of(config), decoupled=config.decoupled
            )

        return self._staff(source, served, [opener(*each) for each in enumerate(self._shares(config))])

    def _staff(self, source: Source, served: Served, opens: Sequence[Open]) -> Served:
        """`served` with its instances, each warmed up."""
        config = served.config

        def warmed(open_: Open) -> Open:
            def opened() -> Executor:
                executor = open_()
                try:
                    warm_up(executor, config, served.signature, source.folder)
                except BaseException:
                    executor.close()
                    raise
                return executor

            return opened

        instances: list[Instance] = []
        try:
            for index, open_ in enumerate(opens):
                name = f"{config.name}_{index}"
                instances.append(
                    Instance(name, warmed(open_), served.scheduler, served.statistics, served.instance_failed)
                )
        except BaseException:
            for instance in instances:
                instance.close()
            raise
        served.instances = instances
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


def labels_of(config: ModelConfig, folder: Path, text: str) -> dict[str, tuple[str, ...]]:
    """The labels of every output that has some. Raises ConfigInvalid, at the line of `text`."""
    found = {}
    for index, output in enumerate(config.output):
        if output.label_filename:
            try:
                path = inside(folder / relative(output.label_filename), folder)
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError, RequestInvalid) as error:
                wrong = (
                    error if isinstance(error, RequestInvalid) else f"'{output.label_filename}' is not readable"
                )
                fault = Fault(f"output[{index}].label_filename", str(wrong))
                raise ConfigInvalid(located(fault, text, CONFIG)) from error
            found[output.name] = tuple(line.strip() for line in lines if line.strip())
    return found
