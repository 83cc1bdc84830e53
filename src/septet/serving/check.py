# SPDX-License-Identifier: Apache-2.0
"""Everything that is wrong with a repository, found without serving it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from septet.errors import SeptetError
from septet.model_config.config import Ensembling, ModelConfig, Step
from septet.model_config.ensemble import misfits
from septet.model_config.fault import Fault
from septet.model_config.platform import backend_of
from septet.model_config.rules import faults, located, notes
from septet.serving.backends import find_file, guess_backend, require_engine
from septet.serving.complete import defaults
from septet.serving.ensemble import version_of
from septet.serving.expiry import Expiry
from septet.serving.loader import CONFIG, Loader, Source, labels_of
from septet.serving.process.questions import ALONE
from septet.serving.process.setup import isolated, limits_of
from septet.serving.storage import LocalStorage, Storage, inside
from septet.serving.warmup import require_files

_COMPLETED = ("input", "output")
"""Fields that the model's file completes: their absence is no fault by itself."""


@dataclass(frozen=True)
class Checked:
    """A model: the versions that would be served, what is wrong, and what has no effect, each a line."""

    name: str
    backend: str
    versions: tuple[int, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()


def check(folder: Path, *, load: bool) -> Iterator[Checked]:
    """Look at every model in `folder`; with `load`, load each, which finds whatever only an engine finds."""
    storage = LocalStorage(folder)
    for name in storage.names():
        try:
            source = Source(name, storage.folder(name))
            config, text = source.config()
            versions = source.versions(config)
        except SeptetError as error:
            yield Checked(name, "", (), (_named(name, str(error)),))
            continue
        yield _check(storage, source, config, text, versions, load=load)


def _check(
    storage: Storage, source: Source, config: ModelConfig, text: str, versions: list[int], *, load: bool
) -> Checked:
    found: list[str] = []
    for version in versions:
        try:
            where = inside(source.folder / str(version), source.folder)
            if not (config.backend or config.platform):
                config = replace(config, backend=guess_backend(where))
            find_file(config, where, source.folder)
        except SeptetError as error:
            found.append(str(error))
    found += [_named(source.name, located(fault, text, CONFIG)) for fault in _faults(storage, config)]
    found += [_named(source.name, error) for error in _errors(source, config, text)]
    if load and not found:
        found += _load(source, versions)
    remarks = [_named(source.name, located(note, text, CONFIG)) for note in notes(config)]
    remarks += [f"{source.name}: {remark}" for remark in source.passed_over(config)]
    return Checked(source.name, backend_of(config), tuple(versions), tuple(found), tuple(remarks))


def _faults(storage: Storage, config: ModelConfig) -> Iterator[Fault]:
    """What is wrong with a configuration, but for what the model's file completes."""
    if config.ensemble_scheduling is not None:
        yield from faults(config)
        yield from _ensemble_faults(storage, config, config.ensemble_scheduling)
        return
    for fault in faults(defaults(config)):
        completed = fault.field in _COMPLETED and not getattr(config, fault.field)
        unsaid = fault.field.endswith("data_type") and "not said" in fault.text
        if not (completed or unsaid or (fault.field.endswith("dims") and "needs dims" in fault.text)):
            yield fault


def _ensemble_faults(storage: Storage, config: ModelConfig, ensemble: Ensembling) -> Iterator[Fault]:
    """Steps whose models are not there, or do not fit."""

    def described(step: Step) -> ModelConfig | None:
        try:
            return Source(step.model_name, storage.folder(step.model_name)).described(version_of(step))
        except SeptetError:
            return None

    for index, step in enumerate(ensemble.step):
        try:
            storage.folder(step.model_name)
        except SeptetError as error:
            if step.model_name:
                yield Fault(f"ensemble_scheduling.step[{index}].model_name", str(error))
    yield from misfits(config, ensemble, described)


def _errors(source: Source, config: ModelConfig, text: str) -> Iterator[str]:
    """What loading would raise before it opens the model."""
    for look in (
        lambda: labels_of(config, source.folder, text),
        lambda: limits_of(config),
        lambda: isolated(config),
        lambda: require_files(config, source.folder),
        lambda: require_engine(config),
    ):
        try:
            look()
        except SeptetError as error:
            yield str(error)


def _load(source: Source, versions: list[int]) -> list[str]:
    expiry = Expiry()
    loader = Loader(expiry, ALONE)
    found = []
    for version in versions:
        try:
            loader.load(source, version).close()
        except SeptetError as error:
            found.append(_named(source.name, str(error)))
    expiry.close()
    return found


def _named(name: str, text: str) -> str:
    return f"{name}/{text}" if text.startswith(CONFIG) else text
