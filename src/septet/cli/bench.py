# SPDX-License-Identifier: Apache-2.0
"""``septet bench``: run networks under the official LoadGen."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from click.core import ParameterSource
from rich.console import Console

from septet.cli.console import stdout
from septet.cli.progress import Display
from septet.client.target import Target
from septet.config import PRECISIONS
from septet.devices.cpu import Cpu
from septet.engines.engine import ENGINES
from septet.engines.remote import SHARED
from septet.errors import UsageError
from septet.harness.ask import Ask
from septet.harness.folder import ResultsFolder
from septet.harness.result import Result, save_results
from septet.harness.rules import CATEGORIES, NETWORK_RULES, SCENARIOS, Category, Run, Scenario, runs_of
from septet.harness.run import Session
from septet.report.page import page
from septet.report.table import figure, print_table
from septet.whole import require_writable, write_whole
from septet.workloads.entry import served_name
from septet.workloads.optimizing import REPOSITORY, optimized_form
from septet.workloads.workload import Asked, miniatures, workload_class

MAIN_OPTIONS = {"category", "target", "threads", "mode", "official", "output", "json_file"}
"""The options that the main job takes."""

TARGETS = {"99": 0.99, "99.9": 0.999}

Work = tuple[Ask, tuple[Run, ...]]
"""One network on one engine, and what to run of it."""


@click.command()
@click.argument("network", required=False)
@click.option("--size", type=click.Choice(["mini", "full"]), default="mini", show_default=True,
              help="The trained miniature, or the network at full size.")  # fmt: skip
@click.option("--scenario", "scenarios", type=click.Choice(SCENARIOS, case_sensitive=False), multiple=True,
              help="Run only this scenario; may be given again.")  # fmt: skip
@click.option("--category", type=click.Choice(CATEGORIES), help="Run what this category has.")
@click.option("--target", type=click.Choice(list(TARGETS)), help="Accuracy to hold, in % of FP32.")
@click.option("--engine", type=click.Choice(list(ENGINES)), default="openvino", show_default=True)
@click.option("--precision", type=click.Choice(PRECISIONS), default="f32", show_default=True)
@click.option("--url", metavar="URL", help="Run it on a server that speaks KServe v2 instead: http://HOST:PORT "
              "or grpc://HOST:PORT, with /MODEL where it is not called NETWORK-SIZE there.")  # fmt: skip
@click.option("--shared-memory", is_flag=True, help="Tensors go to the server through shared memory.")
@click.option("--optimized", is_flag=True, help="Run what septet optimize made of the network, on its own engine.")
@click.option("--repository", type=click.Path(path_type=Path), metavar="FOLDER", default=REPOSITORY,
              show_default=True, help="Where optimised networks lie.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), help="Cores to use.  [default: all]")
@click.option("--streams", type=click.IntRange(1),
              help="Calls side by side.  [default: 1 for latency, one a core for throughput]")  # fmt: skip
@click.option("--batch", type=click.IntRange(1), help="Largest batch.  [default: the best one measured]")
@click.option("--weights", default="auto", metavar="auto|official|synthetic|FILE|sparse", show_default=True,
              help="Weights of a full-size network; sparse: BERT's miniature, pruned.")  # fmt: skip
@click.option("--data", type=click.Path(path_type=Path), metavar="FOLDER", help="The data set.")
@click.option("--padded", is_flag=True,
              help="Pad sequences to the longest, instead of running each at its own length.")  # fmt: skip
@click.option("--mode", type=click.Choice(["both", "performance", "accuracy"]), default="both",
              show_default=True)  # fmt: skip
@click.option("--official", is_flag=True, help="v0.7's durations and query counts instead of a quick run.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where logs and results go.  [default: results/TIME]")  # fmt: skip
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the results there too.")  # fmt: skip
def bench(
    network: str | None,
    scenarios: tuple[Scenario, ...],
    target: str | None,
    url: str | None,
    shared_memory: bool,
    output: Path | None,
    json_file: Path | None,
    optimized: bool,
    repository: Path,
    **settings: Any,
) -> None:
    """Run NETWORK under the official MLPerf LoadGen, with the accuracy run.

    Without NETWORK: the miniatures of all networks in every scenario that v0.7 requires of them, in the
    lowest precision that this CPU computes in. Exits with 1 if a result is INVALID.
    """
    if json_file:
        require_writable(json_file)
    folder = output or _new_folder()
    command = shlex.join(["septet", *sys.argv[1:]])
    fixed: dict[str, Any] = {"folder": folder, "command": command}
    ratio = TARGETS.get(target or "")
    if network is None:
        _refuse_options()
        work = _main_job(fixed, settings, ratio)
    else:
        workload_class(network)  # an unknown one is refused before anything else is looked at
        settings |= _remote(served_name(network, settings["size"]), url, shared_memory)
        ask = Ask(network, **fixed, **settings)
        if optimized:
            ask = _of_product(ask, repository)
        work = [(ask, runs_of(network, ask.category, ratio, scenarios))]
    _finish(_run(work, folder), folder, json_file)


def _remote(model: str, url: str | None, shared_memory: bool) -> dict[str, str]:
    """The engine that a server is, or nothing. Raises UsageError."""
    if url is None:
        if shared_memory:
            raise UsageError("--shared-memory goes with --url")
        return {}
    for option in ("engine", "precision", "threads", "optimized"):
        if _given(option):
            raise UsageError(f"--{option} is the server's affair where --url names one")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"--url: {url!r} is no address: {error}") from None
    if parts.query or parts.fragment:
        raise UsageError(f"--url is http://HOST:PORT or grpc://HOST:PORT, and perhaps /MODEL, not {url!r}")
    Target(f"{parts.scheme}://{parts.netloc}")  # or it is no address of a server
    scheme = f"{parts.scheme}{SHARED}" if shared_memory else parts.scheme
    return {"engine": f"{scheme}://{parts.netloc}/{parts.path.strip('/') or model}", "precision": "served"}


def _given(option: str) -> bool:
    """Whether an option stands on the command line."""
    return click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE


def _of_product(ask: Ask, repository: Path) -> Ask:
    """The same on the product of `septet optimize`, whose engine and precision are its own."""
    for option in ("engine", "precision"):
        if _given(option):
            raise UsageError(f"--{option} does not go with --optimized: the product has its own")
    product, file = optimized_form(ask.network, ask.size, Asked(ask.weights, ask.data), repository)
    candidate = product.candidate
    note = f"optimised: {candidate.words}, {product.row.verdict} at {100 * product.keep:g} % ({product.judged})"
    return replace(ask, engine=candidate.engine, precision=candidate.precision, file=file, notes=(note,))


def _refuse_options() -> None:
    """The main job chooses networks, engines and scenarios itself: asking for one of them needs a network."""
    for option in click.get_current_context().command.params:
        if _given(option.name or "") and option.name not in MAIN_OPTIONS:
            raise UsageError(f"{option.opts[0]} goes with a network: septet bench NETWORK {option.opts[0]} …")


def _main_job(fixed: dict[str, Any], settings: dict[str, Any], ratio: float | None) -> list[Work]:
    low = "bf16" if Cpu.detect().bf16 else "f32"
    shared = fixed | {key: settings[key] for key in ("category", "official", "threads", "mode")}
    return [
        (Ask(network, size="mini", precision=low, **shared), runs)
        for network in miniatures()
        if (runs := _required(network, settings["category"], ratio))
    ]


def _required(network: str, category: Category | None, ratio: float | None) -> tuple[Run, ...]:
    """What v0.7 requires of `network`; nothing where it is not in the category or has not that target."""
    rules = NETWORK_RULES[network]
    asked = [
        scenarios
        for (where, of), scenarios in rules.targets.items()
        if category in (None, where) and ratio in (None, of)
    ]
    return runs_of(network, category, ratio, required=True) if asked else ()


def _run(work: list[Work], folder: Path) -> list[Result]:
    with ResultsFolder(folder) as kept, Display(Console(stderr=True)) as display:
        start, total = time.monotonic(), sum(len(runs) for _, runs in work)
        for done, result in enumerate(_results(work, display), 1):
            kept.add(result)
            display.note(f"{done} of {total}: {_line(result)}{_left(time.monotonic() - start, done, total)}")
        return kept.results


def _results(work: list[Work], display: Display) -> Iterator[Result]:
    for ask, runs in work:
        session = Session(ask, display.step)
        for run in runs:
            yield session.run(run)


def _left(spent: float, done: int, total: int) -> str:
    minutes = spent / done * (total - done) / 60
    return f" (about {max(minutes, 1):.0f} min left)" if done < total else ""


def _line(result: Result) -> str:
    why = f": {'; '.join(result.why)}" if result.why else ""
    at = f" at {100 * result.accuracy.target:g} %" if result.accuracy else ""
    name = f"{result.network} {result.size} {result.scenario}{at} {result.engine} {result.precision}"
    return f"{name}: {figure(result)}, {result.verdict}{why}"


def _finish(results: list[Result], folder: Path, json_file: Path | None) -> None:
    print_table(results, stdout())
    write_whole(folder / "report.html", page(results).encode())
    click.echo(f"results: {folder / 'results.json'}")
    click.echo(f"report:  {folder / 'report.html'}")
    if json_file:
        save_results(json_file, results)
    if any(result.verdict == "INVALID" for result in results):
        sys.exit(1)


def _new_folder() -> Path:
    return Path("results") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
