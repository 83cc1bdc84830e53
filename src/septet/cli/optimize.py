# SPDX-License-Identifier: Apache-2.0
"""``septet optimize``: the fastest form of a network that keeps its accuracy."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

import septet
from septet.cli.console import stdout
from septet.cli.progress import Display
from septet.harness.job import Progress
from septet.report.ledger import print_ledger
from septet.workloads.optimizing import KEEP, REPOSITORY
from septet.workloads.workload import Size


@click.command()
@click.argument("model", metavar="NETWORK|MODEL.onnx")
@click.option("--keep", type=click.Choice(list(KEEP)), default="99", show_default=True,
              help="Accuracy to keep, in % of FP32.")  # fmt: skip
@click.option("--size", type=click.Choice(["mini", "full"]), default="mini", show_default=True,
              help="Of a network: the trained miniature, or full size.")  # fmt: skip
@click.option("--weights", default="auto", metavar="auto|official|synthetic|FILE",
              help="Weights of a full-size network.", show_default=True)  # fmt: skip
@click.option("--data", metavar="FILE.npz|FOLDER|MODULE:FUNCTION",
              help="Samples for an ONNX file, by input name; or a full-size network's data set.")  # fmt: skip
@click.option("--score", metavar="MODULE:FUNCTION",
              help="Of an ONNX file: a function (outputs, indices) -> a number 0…1 for each sample. Without it, "
              "agreement of outputs with FP32 is judged. Sequences come without padding.")  # fmt: skip
@click.option("--pixels", metavar="MEAN,MEAN,MEAN[/DEVIATION,…]",
              help="Let an ONNX file take images' bytes, uint8 [H, W, 3], which --data then has, in the place of "
              "normalised floats.")  # fmt: skip
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="How long it may take, about.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where the search and its ledger lie; it goes on where it stopped.  [default: optimized/NAME]"
              )  # fmt: skip
@click.option("--repository", type=click.Path(path_type=Path), metavar="FOLDER", default=REPOSITORY,
              show_default=True, help="Where the product goes, as an entry that can be served.")  # fmt: skip
def optimize(
    model: str,
    keep: str,
    size: Size,
    weights: str,
    data: str | None,
    score: str | None,
    pixels: str | None,
    minutes: float | None,
    output: Path | None,
    repository: Path,
) -> None:
    """Find the fastest form of a network that keeps its accuracy.

    Candidates (engine, precision, file) are judged sample by sample against FP32 in ONNX Runtime; those that hold
    are timed in turn on this machine; the fastest that keeps accuracy on samples not seen before is the product.
    """
    with Display(Console(stderr=True)) as display:

        def tell(words: str, done: float) -> None:
            display.step(words, Progress("running", done, 0.0))

        found = septet.optimize(model, keep=float(keep), size=size, weights=weights, data=data, score=score,
                                pixels=pixels, minutes=minutes, output=output, repository=repository,
                                tell=tell)  # fmt: skip
    print_ledger(found.ledger, stdout())
    click.echo(f"product: {found.entry}")
    click.echo(f"ledger:  {found.folder / 'ledger.json'}")
    click.echo(f"report:  {found.folder / 'report.html'}")
