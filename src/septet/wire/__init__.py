# SPDX-License-Identifier: Apache-2.0
"""Bytes ↔ `septet.request`: the same code for server and client, and no socket anywhere."""
