# SPDX-License-Identifier: Apache-2.0
"""What a model may be called."""

from __future__ import annotations

import re

from septet.errors import RequestInvalid

_NAME = re.compile(r"[^/\\\x00-\x1f\x7f%]{1,255}")


def require_name(name: str) -> None:
    """Raise RequestInvalid unless `name` can be a model's: one folder's name that leads nowhere else."""
    if not _NAME.fullmatch(name) or name in (".", "..") or name != name.strip():
        raise RequestInvalid("a model's name is 1 to 255 characters without /, \\, % and control characters")
