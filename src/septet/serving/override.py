# SPDX-License-Identifier: Apache-2.0
"""A model given with the request that loads it: its configuration, and perhaps its files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from septet.errors import RequestInvalid
from septet.model_config.config import ModelConfig
from septet.model_config.text import parse_json
from septet.request import Parameter
from septet.serving.loader import Source
from septet.serving.storage import relative

_FILE = "file:"


class Override:
    """The `config` and ``file:PATH`` parameters of a load, as Triton's model repository extension has them.

    Raises ConfigInvalid, RequestInvalid (a path that leads out of the model's folder, files without `config`).
    """

    def __init__(self, parameters: Mapping[str, Parameter | bytes]) -> None:
        files = {name: _bytes(name, value) for name, value in parameters.items() if name.startswith(_FILE)}
        config = parameters.get("config")
        self._config = parse_json(_text(config)) if config is not None else None
        if files and self._config is None:
            raise RequestInvalid("files are given without the parameter 'config' that says what they are")
        self._folder = tempfile.TemporaryDirectory(prefix="septet-") if files else None
        try:
            for name, content in files.items():
                self._write(relative(name.removeprefix(_FILE)).as_posix(), content)
        except BaseException:
            self.close()
            raise

    @property
    def empty(self) -> bool:
        """Whether nothing is overridden."""
        return self._config is None

    def source(self, name: str, folder: Callable[[str], Path]) -> Source:
        """What to load: the files given, or those in the repository."""
        config: ModelConfig | None = self._config
        return Source(name, Path(self._folder.name) if self._folder is not None else folder(name), config)

    def close(self) -> None:
        """Remove the files."""
        if self._folder is not None:
            self._folder.cleanup()

    def _write(self, path: str, content: bytes) -> None:
        assert self._folder is not None
        target = Path(self._folder.name) / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        except OSError as error:
            raise RequestInvalid(f"'{path[:100]}' cannot be a file in the model's folder") from error


def _text(value: Parameter | bytes) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if not isinstance(value, str):
        raise RequestInvalid("the parameter 'config' is not text")
    return value


def _bytes(name: str, value: Parameter | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise RequestInvalid(f"'{name[:100]}' is not a file's content")
    return value
