# SPDX-License-Identifier: Apache-2.0
"""What a repository says of a model: Triton's ``config.pbtxt``."""
