# SPDX-License-Identifier: Apache-2.0
"""Picture: a drawing on a page, and the words around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Picture:
    """A picture with its heading and what to read from it."""

    title: str
    caption: str
    svg: Markup
    kinds: Sequence[tuple[int, str]] = ()
