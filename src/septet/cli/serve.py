# SPDX-License-Identifier: Apache-2.0
"""``septet serve``: a Triton model repository behind HTTP and gRPC, by the flags of Triton's own server."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Any

import click

from septet.cli.flags import Getopt, largest_batches, tritons, without_effect
from septet.errors import UsageError
from septet.workloads.entry import repository_of, served_name
from septet.workloads.workload import Asked, Size, workload_class

log = logging.getLogger("septet.cli")


class Seconds(click.FloatRange):
    """A time: 0 or more, and what is longer than eleven days is eleven days."""

    def __init__(self) -> None:
        super().__init__(0, 1_000_000, clamp=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value} is no time", param, ctx)
        return seconds


class Level(click.ParamType[int]):
    """How Triton's ``--log-verbose`` is written: a number of 0 or more, true, or false."""

    name = "level"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number = {"true": 1, "false": 0}.get(str(value).lower(), value)
        return int(click.IntRange(0, clamp=True).convert(number, param, ctx))


def _switch(default: bool) -> dict[str, Any]:
    """How Triton's boolean flags are written: ``--flag``, ``--flag=true``, ``--flag=0``."""
    return {"type": click.BOOL, "default": default, "is_flag": False, "flag_value": True, "show_default": True}


def _repository_of(network: str, size: Size) -> tuple[Path, ...]:
    workload_class(network)  # an unknown one is refused before anything is built
    return (repository_of(network, size, Asked()),)


@click.command(cls=Getopt)
@click.argument("network", required=False)
@click.option("--size", type=click.Choice(["mini", "full"]), default="mini", show_default=True,
              help="Of NETWORK.")  # fmt: skip
@click.option("--model-repository", "--model-store", "repositories", multiple=True, metavar="DIR",
              type=click.Path(path_type=Path),
              help="A model repository; may be given again.")  # fmt: skip
@click.option("--model-control-mode", "control", default="none", show_default=True,
              type=click.Choice(["none", "poll", "explicit"], case_sensitive=False),
              help="Whether models are loaded at start, as files change, or on request.")  # fmt: skip
@click.option("--load-model", "startup", multiple=True, metavar="NAME",
              help="Load at start in mode explicit; may be given again; * is every model.")  # fmt: skip
@click.option("--repository-poll-secs", "poll_seconds", type=Seconds(), default=15.0,
              show_default=True, help="How often files are looked at in mode poll; 0 is never.")  # fmt: skip
@click.option("--disable-auto-complete-config", is_flag=True,
              help="Take configurations as they are, without filling gaps from the model.")  # fmt: skip
@click.option("--backend-config", "largest", multiple=True, metavar="[BACKEND,]SETTING=VALUE",
              callback=largest_batches,
              help="default-max-batch-size: of models that can batch and say nothing.  [default: 4]")  # fmt: skip
@click.option("--strict-model-config", **_switch(False), hidden=True)
@click.option("--strict-readiness", **_switch(True), help="Ready only when every model is.")
@click.option("--exit-on-error", **_switch(True), help="End when a model cannot be loaded at start.")
@click.option("--exit-timeout-secs", type=Seconds(), default=30.0, show_default=True,
              help="How long requests under way may take to finish at the end.")  # fmt: skip
@click.option("--model-load-thread-count", type=click.IntRange(1, clamp=True), default=4, show_default=True,
              help="Models loaded side by side.")  # fmt: skip
@click.option("--model-load-retry-count", type=click.IntRange(0, clamp=True), default=0, show_default=True,
              help="How often a load that failed is tried again.")  # fmt: skip
@click.option("--allow-http", **_switch(True), help="Serve HTTP.")
@click.option("--http-address", default="0.0.0.0", show_default=True)
@click.option("--http-port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--http-max-input-size", type=click.IntRange(1), default=64 << 20, show_default=True,
              help="Largest request in bytes, over HTTP and gRPC.")  # fmt: skip
@click.option("--reuse-http-port", **_switch(False), help="Let several servers share the HTTP port.")
@click.option("--allow-grpc", **_switch(True), help="Serve gRPC.")
@click.option("--grpc-address", default="0.0.0.0", show_default=True)
@click.option("--grpc-port", type=click.IntRange(0, 65535), default=8001, show_default=True)
@click.option("--reuse-grpc-port", **_switch(False), help="Let several servers share the gRPC port.")
@click.option("--grpc-infer-response-compression-level", "compression", default="none", show_default=True,
              type=click.Choice(["none", "low", "medium", "high"], case_sensitive=False),
              help="Of answers to clients that take gzip.")  # fmt: skip
@click.option("--grpc-transport", type=click.Choice(["septet", "grpcio"]), default="septet", show_default=True,
              help="What carries gRPC; grpcio's server costs several times as much.")  # fmt: skip
@click.option("--allow-metrics", **_switch(True), help="Serve Prometheus metrics.")
@click.option("--metrics-address", default="", metavar="ADDRESS", help="[default: as --http-address]")
@click.option("--metrics-port", type=click.IntRange(0, 65535), default=8002, show_default=True)
@click.option("--allow-cpu-metrics", **_switch(True), hidden=True)
@click.option("--allow-client-shm", **_switch(True), hidden=True)
@click.option("--id", "name", default="septet", hidden=True)
@click.option("--log-verbose", type=Level(), default=0, show_default=True, metavar="LEVEL",
              help="Above 0: tell of everything.")  # fmt: skip
@click.option("--log-info", **_switch(True), help="Tell of what happens.")
@click.option("--log-warning", **_switch(True), hidden=True)
@click.option("--log-error", **_switch(True), hidden=True)
@click.option("--log-format", type=click.Choice(["default", "ISO8601"]), default="default", hidden=True)
@click.option("--log-file", default="", metavar="FILE", help="Where the log goes.  [default: the terminal]")
@tritons
@click.pass_context
def serve(
    context: click.Context,
    network: str | None,
    size: Size,
    repositories: tuple[Path, ...],
    control: str,
    startup: tuple[str, ...],
    poll_seconds: float,
    disable_auto_complete_config: bool,
    largest: dict[str, int],
    strict_model_config: bool,
    strict_readiness: bool,
    exit_on_error: bool,
    exit_timeout_secs: float,
    model_load_thread_count: int,
    model_load_retry_count: int,
    allow_http: bool,
    http_address: str,
    http_port: int,
    http_max_input_size: int,
    reuse_http_port: bool,
    allow_grpc: bool,
    grpc_address: str,
    grpc_port: int,
    reuse_grpc_port: bool,
    compression: str,
    grpc_transport: str,
    allow_metrics: bool,
    metrics_address: str,
    metrics_port: int,
    allow_cpu_metrics: bool,
    allow_client_shm: bool,
    name: str,
    log_verbose: int,
    log_info: bool,
    log_warning: bool,
    log_error: bool,
    log_format: str,
    log_file: str,
) -> None:
    """Serve a Triton model repository to Triton's clients, or one of the seven networks as NETWORK-SIZE.

    All flags of Triton's are taken, so that replacing the binary's name is the whole migration. Those here mean
    what they mean there; others have no effect, which the log says, or are refused by name. SIGTERM ends it:
    readiness says no, what is under way finishes, then it exits with 0.
    """
    from septet.serving.core import Core
    from septet.serving.grpc import GrpcLimits
    from septet.serving.http import HttpLimits
    from septet.serving.server import Address, Server, Settings
    from septet.serving.settings import LogSettings
    from septet.wire.shm import MOST, Regions

    logs = LogSettings(
        log_file=log_file,
        log_info=log_info,
        log_warning=log_warning,
        log_error=log_error,
        log_verbose_level=log_verbose,
        log_format=log_format,
    )
    logs.begin()
    for line in without_effect(context):
        log.warning(line)
    if network is not None:
        if repositories or startup:
            raise UsageError("a NETWORK is served alone: without --model-repository and --load-model")
        repositories, control, startup = _repository_of(network, size), "explicit", (served_name(network, size),)
    if not repositories:
        raise UsageError("--model-repository or a NETWORK must be given")
    if startup and control != "explicit":
        raise UsageError("--load-model goes with --model-control-mode=explicit")
    if len(startup) > 1 and "*" in startup:
        raise UsageError("--load-model=* goes without another --load-model")
    if not poll_seconds and control == "poll":
        control = "none"
    settings = Settings(
        http=Address(http_address, http_port) if allow_http else None,
        grpc=Address(grpc_address, grpc_port) if allow_grpc else None,
        metrics=Address(metrics_address or http_address, metrics_port) if allow_metrics else None,
        exit_seconds=exit_timeout_secs,
        reuse_http=reuse_http_port,
        reuse_grpc=reuse_grpc_port,
        grpcio=grpc_transport == "grpcio",
        http_limits=HttpLimits(body=http_max_input_size),
        grpc_limits=GrpcLimits(message=http_max_input_size, compression=compression),
    )
    core = Core(
        tuple(dict.fromkeys(repositories)),
        regions=Regions(most=MOST if allow_client_shm else 0),
        control=control,
        startup=startup,
        poll_seconds=poll_seconds,
        strict_readiness=strict_readiness,
        auto_complete=not (disable_auto_complete_config or strict_model_config),
        largest=largest,
        exit_on_error=exit_on_error,
        load_threads=model_load_thread_count,
        load_retries=model_load_retry_count,
        name=name,
        log=logs,
        cpu_metrics=allow_cpu_metrics,
    )
    server = Server(core, settings)  # takes the ports, so that one in use is told before models are loaded
    try:
        core.start()
    except KeyboardInterrupt:  # a signal, before anything could be asked
        core.close(0)
        finished = True
    else:
        finished = server.run()
    if core.at_work or not finished:  # Python would wait for threads that load or answer, which may take minutes
        logging.shutdown()
        os._exit(0 if finished else 1)
