# SPDX-License-Identifier: Apache-2.0
"""``python -m septet`` is the command ``septet``."""

from septet.cli import main

if __name__ == "__main__":
    main()
