# SPDX-License-Identifier: Apache-2.0
"""Septet: from a trained network to a fast, accuracy-checked, latency-tested, deployed service."""

__version__ = "0.1.0"
