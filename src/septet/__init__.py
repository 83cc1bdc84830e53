# SPDX-License-Identifier: Apache-2.0
"""Septet: from a trained network to a fast, accuracy-checked, latency-tested, deployed service."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from septet.workloads.optimizing import optimize as optimize
else:
    from septet import optimize  # noqa: F401

__version__ = "0.1.0"
