# SPDX-License-Identifier: Apache-2.0
"""Ensembles and the models that they are made of, loaded and unloaded together where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator

from septet.errors import LoadFailed, SeptetError
from septet.model_config.config import ModelConfig
from septet.serving.override import Override
from septet.serving.repository import Repository


class Composition:
    """Loads and unloads models of a repository with those that they are made of, in any depth, as Triton does."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def load(self, name: str, override: Override | None = None) -> None:
        """Load a model, or load it anew, after what it is made of and what is not served.

        Raises LoadFailed (where a model is in no repository, before anything is loaded), RequestInvalid.
        """
        self._ensure_composing(name, override)
        self._repository.load(name, override)

    def ensure(self, name: str) -> None:
        """The same, unless the model is served. Raises LoadFailed, RequestInvalid."""
        self._ensure_composing(name, None)
        self._repository.ensure(name)

    def unload(self, name: str) -> None:
        """Let a model end, then what it was made of, but for what is part of another ensemble that is served."""
        composing = {step for served in self._repository.versions(name) for step in _composing(served.config)}
        self._repository.unload(name)
        for each in sorted(composing):
            if each not in self._in_use():
                self.unload(each)

    def _ensure_composing(self, name: str, override: Override | None) -> None:
        needed = list(self._needed(name, override, {name}))
        there = self._repository.names() if needed else []
        if unknown := [each for each in needed if each not in there]:
            raise LoadFailed(f"failed to load '{name}': no repository has {', '.join(map(repr, unknown))}")
        for each in needed:
            try:
                self._repository.ensure(each)
            except SeptetError as error:
                raise LoadFailed(f"failed to load '{name}', which is made of '{each}': {error}") from error

    def _needed(self, name: str, override: Override | None, seen: set[str]) -> Iterator[str]:
        """What a model is made of and what is not served, in an order in which it can be loaded."""
        try:
            config, _ = self._repository.source(name, override).config()
        except SeptetError:  # which loading it tells
            return
        for each in _composing(config):
            if each not in seen:
                seen.add(each)
                yield from self._needed(each, None, seen)
                if not self._repository.versions(each):
                    yield each

    def _in_use(self) -> set[str]:
        return {step for served in self._repository.every() for step in _composing(served.config)}


def _composing(config: ModelConfig) -> list[str]:
    """The models that an ensemble is made of; none for any other."""
    ensemble = config.ensemble_scheduling
    return sorted({step.model_name for step in ensemble.step}) if ensemble is not None else []
