# SPDX-License-Identifier: Apache-2.0
"""The pages' templates."""

from __future__ import annotations

import jinja2


def templates() -> jinja2.Environment:
    """Where templates are got from; what they print is escaped, and a name that is not there is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("septet.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
