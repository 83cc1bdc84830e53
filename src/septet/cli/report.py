# SPDX-License-Identifier: Apache-2.0
"""``septet report``: one page from results files."""

from __future__ import annotations

from pathlib import Path

import click

from septet.errors import UsageError
from septet.harness.result import load_results
from septet.whole import write_whole


@click.command()
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RESULTS...")
@click.option("--output", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True,
              metavar="FILE")  # fmt: skip
def report(files: tuple[Path, ...], output: Path) -> None:
    """Write one self-contained HTML page from results files (or folders of a run)."""
    from septet.report.page import page

    if any(output.resolve() == _file(file).resolve() for file in files):
        raise UsageError(f"{output}: is one of the results files; name another file for the page")
    results = [result for file in files for result in load_results(_file(file))]
    write_whole(output, page(results).encode())
    click.echo(f"report: {output}")


def _file(path: Path) -> Path:
    return path / "results.json" if path.is_dir() else path
