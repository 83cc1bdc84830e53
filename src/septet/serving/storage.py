# SPDX-License-Identifier: Apache-2.0
"""Where models lie, and paths that stay inside."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath

from septet.errors import ModelUnknown, RequestInvalid, UsageError
from septet.model_config.name import require_name


class Storage(ABC):
    """A repository: folders, one a model."""

    @abstractmethod
    def names(self) -> list[str]:
        """The models that are there now, in order."""

    @abstractmethod
    def folder(self, name: str) -> Path:
        """The folder of a model, on this machine. Raises ModelUnknown, RequestInvalid (a name that leads out)."""

    @abstractmethod
    def stamp(self, name: str) -> str:
        """A text that changes whenever a file of the model does. Raises ModelUnknown."""


class LocalStorage(Storage):
    """A folder of this machine. Raises UsageError where there is none."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UsageError(_why_none(root))
        self.root = root.resolve()

    def names(self) -> list[str]:
        return sorted(
            each.name for each in self.root.iterdir() if each.is_dir() and not each.name.startswith((".", "_"))
        )

    def folder(self, name: str) -> Path:
        require_name(name)
        folder = self.root / name
        if not folder.is_dir():
            raise ModelUnknown(f"no repository has a model '{name}'")
        return inside(folder, self.root)

    def stamp(self, name: str) -> str:
        parts = []
        for path in sorted(self.folder(name).rglob("*")):
            try:
                facts = path.stat()
            except OSError:  # gone while we looked, or a dangling link
                continue
            if path.is_file():
                parts.append(f"{path.relative_to(self.root)}:{facts.st_mtime_ns}:{facts.st_size}")
        return "\n".join(parts)


_ADDRESS = re.compile("([a-z][a-z0-9+.-]*):/(.*)", re.IGNORECASE)
"""A remote storage's address once it is a path, which has single slashes."""


def _why_none(root: Path) -> str:
    remote = _ADDRESS.fullmatch(str(root))
    if remote is None:
        return f"{root}: no such folder to serve models from"
    scheme, rest = remote.groups()
    return (
        f"{scheme}://{rest}: repositories are read from folders of this machine, not over {scheme}://; "
        "mount it as a folder, or copy it to one, and name that"
    )


def inside(path: Path, root: Path) -> Path:
    """`path` with every link followed. Raises RequestInvalid where that leads out of `root`, or nowhere."""
    try:
        found = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a name that no file can have
        raise RequestInvalid(f"'{path.name[:100]}' leads nowhere") from error
    if not found.is_relative_to(root.resolve()):
        raise RequestInvalid(f"'{path.name}' leads out of its folder")
    return found


def relative(text: str) -> PurePosixPath:
    """A path given from outside. Raises RequestInvalid where it is not plainly below where it starts."""
    path = PurePosixPath(text)
    if (
        not text
        or path.is_absolute()
        or "\\" in text
        or "%" in text
        or any(part in ("..", ".") or ord(min(part)) < 32 for part in path.parts)
        or not path.parts
    ):
        raise RequestInvalid(f"'{text[:100]}' is not a path inside the model's folder")
    return path
