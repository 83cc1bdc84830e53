# SPDX-License-Identifier: Apache-2.0
"""What was worked out once for a message and will be the same for the next."""

from __future__ import annotations

from typing import Any

LARGEST = 256


class Memory(dict[Any, Any]):
    """A dict of at most `largest` entries: when there would be more, it starts anew."""

    def __init__(self, largest: int = LARGEST) -> None:
        super().__init__()
        self._largest = largest

    def keep(self, key: Any, value: Any) -> None:
        """Remember `value`."""
        if len(self) >= self._largest:
            self.clear()
        self[key] = value
