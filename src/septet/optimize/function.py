# SPDX-License-Identifier: Apache-2.0
"""Functions of the user's: found by name, called so that what they raise is told, and told apart by their text."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from septet.errors import SeptetError, UsageError


def function_named(name: str) -> Callable[..., Any]:
    """The function that ``module:function`` names; modules of the working folder count. Raises UsageError."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    with told(name, UsageError, "cannot be imported"):
        try:
            found = resolve_name(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise UsageError(f"{name}: not module:function: {error}") from error
    if not callable(found):
        raise UsageError(f"{name}: is no function")
    function: Callable[..., Any] = found
    return function


@contextmanager
def told(name: str, kind: type[SeptetError], what: str = "failed") -> Iterator[None]:
    """Raise whatever the user's code raises inside as `kind`, with the line that raised it."""
    try:
        yield
    except SeptetError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise kind(f"{name}: {what}: {type(error).__name__}: {error} ({last.filename}:{last.lineno})") from error


def text_of(function: Callable[..., Any]) -> str:
    """Name and own text of a function, or of an object's class, by which two are told apart."""
    named = function if hasattr(function, "__qualname__") else type(function)
    try:
        text = inspect.getsource(named)
    except (OSError, TypeError):  # typed at a prompt, or built in
        text = ""
    return f"{named.__module__}:{named.__qualname__}\n{text}"
