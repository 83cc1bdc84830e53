# SPDX-License-Identifier: Apache-2.0
"""Which models there are, how far each version is, and which of them answers."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from septet.errors import (
    LoadFailed,
    ModelNotReady,
    ModelUnknown,
    RequestInvalid,
    SeptetError,
    Stopping,
    VersionUnknown,
)
from septet.model_config.name import require_name
from septet.serving.life import TRANSITIONS, Event, State
from septet.serving.loader import Loader, Source
from septet.serving.memory import give_back
from septet.serving.override import Override
from septet.serving.served import Served
from septet.serving.storage import Storage

_LOG = logging.getLogger("septet.serving")
_NUMBER = re.compile("[0-9]{1,18}")


@dataclass
class Record:
    """A version: its state, why it is in it, and what answers."""

    state: State | None = None
    reason: str = ""
    served: Served | None = None

    def happens(self, event: Event, reason: str = "") -> None:
        """Go to the state that `event` leads to."""
        self.state = TRANSITIONS[self.state, event]
        self.reason = reason


@dataclass(frozen=True)
class Listed:
    """One line of the index: a model, or one version of it that was ever asked for."""

    name: str
    version: str = ""
    state: str = ""
    reason: str = ""


class Repository:
    """The models of several storages; where two have the same name, neither is served."""

    def __init__(self, storages: Sequence[Storage], loader: Loader) -> None:
        self._storages = storages
        self._loader = loader
        self._records: dict[str, dict[int, Record]] = {}
        self._answering: dict[tuple[str, str], Served] = {}
        self._overrides: dict[str, Override] = {}
        self._stamps: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._table = threading.RLock()
        self._loading: WeakValueDictionary[str, threading.RLock] = WeakValueDictionary()
        self._ending: list[threading.Thread] = []
        self._loads = 0
        self._closed = False

    def find(self, name: str, version: str = "") -> Served:
        """What answers for a version, or for the highest that is ready.

        Raises ModelUnknown, VersionUnknown, ModelNotReady, RequestInvalid (impossible name or version).
        """
        found = self._answering.get((name, version))
        if found is None and version and _NUMBER.fullmatch(version):
            version = str(int(version))
            found = self._answering.get((name, version))
        if found is None:
            raise self._why_not(name, version)
        return found

    def names(self) -> list[str]:
        """All models in the storages. Raises nothing for a name that is there twice: loading it does."""
        return self._found()[0]

    def _found(self) -> tuple[list[str], list[OSError]]:
        """All models in the storages that can be read, and why others cannot. Raises OSError where none can."""
        names: set[str] = set()
        away: list[OSError] = []
        for storage in self._storages:
            try:
                names.update(storage.names())
            except OSError as error:
                away.append(error)
        if len(away) == len(self._storages) and away:
            raise away[0]
        return sorted(names), away

    def versions(self, name: str) -> list[Served]:
        """What answers for `name`, in ascending order of versions."""
        with self._table:
            records = self._records.get(name, {})
            return [record.served for _, record in sorted(records.items()) if record.served is not None]

    def every(self) -> list[Served]:
        """Everything that answers."""
        with self._table:
            return [served for name in sorted(self._records) for served in self.versions(name)]

    def index(self, ready: bool = False) -> list[Listed]:
        """Every model that is there, with every version that was ever asked for; `ready` keeps only those."""
        lines: list[Listed] = []
        try:
            there = self.names()
        except OSError:  # the storage is away: what is served is still known
            there = []
        with self._table:
            for name in sorted({*there, *self._records}):
                records = self._records.get(name, {})
                if not records and not ready:
                    reason = self._refused.get(name, "")
                    lines.append(Listed(name, "", State.UNAVAILABLE.value if reason else "", reason))
                for version, record in sorted(records.items()):
                    line = _listed(name, version, record)
                    if line.state == "READY" or not ready:
                        lines.append(line)
        return lines

    def ready(self) -> bool:
        """Whether every model that was asked for can answer."""
        with self._table:
            records = [record for each in self._records.values() for record in each.values()]
        return not self._refused and all(
            record.served.ready
            if record.served is not None
            else record.state is not State.UNAVAILABLE or record.reason == _UNLOADED
            for record in records
        )

    def load(self, name: str, override: Override | None = None) -> None:
        """Load a model, or load it anew; what served before serves until the new one is ready, and if that fails.

        Raises LoadFailed, RequestInvalid, Stopping (after `close`).
        """
        require_name(name)
        with self._counted(), self._lock(name):
            self._require_open()
            try:
                source = self.source(name, override)
                config, _ = source.config()
                versions = source.versions(config)
                stamp = "" if override else self._stamp(name)
            except SeptetError as error:
                if not isinstance(error, ModelUnknown):  # asking for what is not there makes nothing unready
                    self._refuse(name, error)
                raise LoadFailed(f"failed to load '{name}': {error}") from error
            self._refused.pop(name, None)
            self._load(source, versions)
            self._stamps[name] = stamp
            self._keep(name, override)

    def ensure(self, name: str) -> None:
        """Load a model unless it is served. Raises LoadFailed, RequestInvalid."""
        require_name(name)
        with self._lock(name):
            if not self.versions(name):
                self.load(name)

    def source(self, name: str, override: Override | None = None) -> Source:
        """What `load` loads. Raises ModelUnknown, LoadFailed."""
        return override.source(name, self._folder) if override else Source(name, self._folder(name))

    def unload(self, name: str) -> None:
        """Let a model end: nothing new is taken, what waits is still run. Unknown names are left alone."""
        require_name(name)
        with self._lock(name):
            self._let_end(name)

    def poll(self) -> None:
        """Load what is new or changed, unload what is gone. Raises Stopping, where it is closed meanwhile."""
        there, away = self._found()
        for error in away:
            _LOG.error("a repository cannot be looked at: %s", error)
        for name in [] if away else [name for name in self._stamps if name not in there]:
            self.unload(name)
        for name in there:
            try:
                stamp = self._stamp(name)
            except (SeptetError, OSError) as error:
                stamp = f"unreadable: {error}"
            if self._stamps.get(name) != stamp:
                self._stamps[name] = stamp  # a model that does not load is not tried again until it changes
                try:
                    self.load(name)
                except Stopping:
                    raise
                except (SeptetError, OSError) as error:
                    _LOG.error("%s", error)

    def close(self, timeout: float | None = None) -> None:
        """Let everything end; returns when it has, or after `timeout` seconds.

        What is being loaded is not waited for: that may take minutes, and nobody will ask for it.
        """
        end = None if timeout is None else time.monotonic() + timeout
        with self._table:
            self._closed = True  # what is loaded from here on is put away at once
        for name in list(self._records):
            self._let_end(name)
        for thread in list(self._ending):
            thread.join(None if end is None else max(0.0, end - time.monotonic()))

    @property
    def at_work(self) -> bool:
        """Whether a model is being loaded, or put away."""
        return self._loads > 0 or bool(self._ending)

    def _let_end(self, name: str) -> None:
        self._stamps.pop(name, None)
        self._refused.pop(name, None)
        with self._table:
            records = self._records.get(name, {})
            ended = {version: record.served for version, record in records.items()}
            for version in ended:
                records[version].happens(Event.UNLOAD)
                records[version].served = None
            self._rebuild()
        for version, served in ended.items():
            self._end(name, version, served)
        self._keep(name, None)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a load for as long as it takes."""
        with self._table:
            self._loads += 1
        try:
            yield
        finally:
            with self._table:
                self._loads -= 1

    def _require_open(self) -> None:
        if self._closed:
            raise Stopping("no model is loaded any more: the server ends")

    def _lock(self, name: str) -> threading.RLock:
        """What whoever loads or unloads a model holds meanwhile; nothing of it stays."""
        with self._table:
            return self._loading.setdefault(name, threading.RLock())

    def _load(self, source: Source, versions: list[int]) -> None:
        name = source.name
        with self._table:
            self._require_open()
            self._all(name, versions, Event.LOAD)
        loaded: dict[int, Served] = {}
        failed: dict[int, SeptetError] = {}
        for version in versions:
            try:
                loaded[version] = self._loader.load(source, version)
            except SeptetError as error:
                failed[version] = LoadFailed(str(error).replace(str(source.folder.resolve()), name))
            except Exception:
                _LOG.exception("'%s', version %d, did not load", name, version)
                failed[version] = LoadFailed("internal error")
        if failed and self.versions(name):
            for served in loaded.values():
                served.close()
            loaded = {}
        if not self._swap(name, versions, loaded, failed):
            for served in loaded.values():
                served.close()
            self._require_open()
        if failed:
            first = min(failed)
            raise LoadFailed(f"failed to load '{name}', version {first}: {failed[first]}") from failed[first]

    def _swap(
        self, name: str, versions: list[int], loaded: dict[int, Served], failed: dict[int, SeptetError]
    ) -> bool:
        """Let what was `loaded` answer, and what answered before it end; false where all has ended meanwhile."""
        for served in loaded.values():
            served.start()
        old: list[tuple[int, Served | None]] = []
        with self._table:
            if self._closed:
                return False
            records = self._records[name]
            for version in versions:
                record = records[version]
                if version in loaded:
                    old.append((version, record.served))
                    record.served = loaded[version]
                    record.happens(Event.LOADED)
                elif version in failed:
                    record.happens(Event.FAILED, str(failed[version]))
                else:
                    record.happens(Event.FAILED, "another version did not load")
            if loaded:
                for version in [each for each in records if each not in versions]:
                    old.append((version, records[version].served))
                    records[version].happens(Event.UNLOAD)
                    records[version].served = None
            self._rebuild()
        for version, ended in old:
            self._end(name, version, ended)
        return True

    def _end(self, name: str, version: int, served: Served | None) -> None:
        """Close `served` on a thread of its own: requests that it took are still run."""

        def end() -> None:
            if served is not None:
                served.close()
                give_back()
            with self._table:
                record = self._records[name][version]
                record.happens(Event.UNLOADED, _UNLOADED if record.served is None else "")
                self._ending.remove(thread)

        thread = threading.Thread(target=end, name=f"septet-end-{name}", daemon=True)
        with self._table:
            self._ending.append(thread)
        thread.start()

    def _all(self, name: str, versions: list[int], event: Event) -> None:
        with self._table:
            records = self._records.setdefault(name, {})
            for version in versions:
                records.setdefault(version, Record()).happens(event)

    def _rebuild(self) -> None:
        """Make the table that requests look into; it is replaced, never changed."""
        table: dict[tuple[str, str], Served] = {}
        for name, records in self._records.items():
            for version, record in sorted(records.items()):
                if record.served is not None:
                    table[name, str(version)] = table[name, ""] = record.served
        self._answering = table

    def _refuse(self, name: str, error: SeptetError) -> None:
        """Note why a model is not there, of which not even the versions are known."""
        with self._table:
            if not self.versions(name):
                self._refused[name] = str(error)

    def _keep(self, name: str, override: Override | None) -> None:
        """Hold on to the files that a model was loaded from."""
        before = self._overrides.pop(name, None)
        if override is not None:
            self._overrides[name] = override
        if before is not None and before is not override:
            before.close()

    def _storage(self, name: str) -> Storage:
        having: list[Storage] = []
        away: OSError | None = None
        for storage in self._storages:
            try:
                if name in storage.names():
                    having.append(storage)
            except OSError as error:
                away = error
        if away is not None and not having:
            raise LoadFailed(f"a repository cannot be read: {away}")
        if not having:
            raise ModelUnknown(f"no repository has a model '{name}'")
        if len(having) > 1:
            raise LoadFailed(f"{len(having)} repositories have a model '{name}'")
        return having[0]

    def _folder(self, name: str) -> Path:
        return self._storage(name).folder(name)

    def _stamp(self, name: str) -> str:
        return self._storage(name).stamp(name)

    def _why_not(self, name: str, version: str) -> SeptetError:
        try:
            require_name(name)
        except RequestInvalid as error:
            return error
        if version and not _NUMBER.fullmatch(version):
            return RequestInvalid(f"a version is a number, not '{version[:40]}'")
        with self._table:
            records = self._records.get(name)
            if records is None and name in self._refused:
                return ModelNotReady(f"'{name}' is UNAVAILABLE: {self._refused[name]}")
            if records is None:
                return ModelUnknown(f"Request for unknown model: '{name}' is not found")
            if version and int(version) not in records:
                return VersionUnknown(f"Request for unknown model: '{name}' version {version} is not found")
            record = records[int(version)] if version else next((each for each in records.values()), Record())
            state = record.state.value if record.state else "UNAVAILABLE"
            return ModelNotReady(f"'{name}'{f' version {version}' if version else ''} is {state}: {record.reason}")


def _listed(name: str, version: int, record: Record) -> Listed:
    reason = record.reason or (record.served.reason if record.served is not None else "")
    state = record.state.value if record.state is not None else ""
    if record.served is not None and not record.served.ready:
        state = State.UNAVAILABLE.value
    return Listed(name, str(version), state, reason)


_UNLOADED = "unloaded"
