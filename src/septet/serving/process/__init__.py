# SPDX-License-Identifier: Apache-2.0
"""Models that run in a process of their own: Python models, and engines that are to be isolated."""
