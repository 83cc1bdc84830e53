# SPDX-License-Identifier: Apache-2.0
"""What was worked out once for a message and will be the same for the next."""

from __future__ import annotations

from typing import Any

LARGEST = 256


class Memory(dict[Any, Any]):
    """A dict of at most `LARGEST` entries: when there would be more, it starts anew."""

    def keep(self, key: Any, value: Any) -> None:
        """Remember `value`."""
        if len(self) >= LARGEST:
            self.clear()
        self[key] = value
