# SPDX-License-Identifier: Apache-2.0
"""Triton's flags that name nothing of Septet's: taken with a word, or refused where taking them would be unsafe.

The list is that of ``tritonserver --help`` in 2.51 and of the releases since; what Septet does as Triton does it
stands in `septet.cli.serve`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import click

from septet.errors import UsageError

GPU = "no GPU is used"
LOADED = "engines come with Septet; nothing is loaded from there"
POOL = "requests are not kept in a pool"
PINGS = "clients may ping, and are hung up on by limits of Septet's own"
AGE = "connections do not end by age"
TLS = "gRPC has no TLS; let a proxy in front have the certificates"
CACHE = "there is no response cache"
TRACE = "requests are not traced; latencies are on the metrics' page"
RATES = "nothing limits rates; max_queue_size bounds what waits"
SAGEMAKER = "there is no endpoint for SageMaker"
VERTEX = "there is no endpoint for Vertex AI"
HEADERS = "models do not see headers; send what they need as parameters of the request"
KEYS = "nothing is restricted by a key; let a proxy in front decide who may ask what"
LOOP = "one event loop serves all connections"

IDLE = {
    "allow-gpu-metrics": GPU,
    "backend-directory": LOADED,
    "buffer-manager-thread-count": "tensors are copied by the thread that needs them",
    "cache-config": CACHE,
    "cache-directory": CACHE,
    "cuda-memory-pool-byte-size": GPU,
    "cuda-virtual-address-size": GPU,
    "enable-peer-access": GPU,
    "grpc-http2-max-ping-strikes": PINGS,
    "grpc-http2-max-pings-without-data": PINGS,
    "grpc-http2-min-recv-ping-interval-without-data": PINGS,
    "grpc-infer-allocation-pool-size": POOL,
    "grpc-infer-thread-count": LOOP,
    "grpc-keepalive-permit-without-calls": PINGS,
    "grpc-keepalive-time": PINGS,
    "grpc-keepalive-timeout": PINGS,
    "grpc-max-connection-age": AGE,
    "grpc-max-connection-age-grace": AGE,
    "grpc-max-response-pool-size": POOL,
    "grpc-root-cert": TLS,
    "grpc-server-cert": TLS,
    "grpc-server-key": TLS,
    "host-policy": "instances share out the cores that the process may use",
    "http-thread-count": LOOP,
    "metrics-config": "counters and histograms are always there, summaries never",
    "metrics-interval-ms": "metrics are read when they are asked for",
    "min-supported-compute-capability": GPU,
    "model-load-gpu-limit": GPU,
    "model-namespacing": "models of all repositories have names of their own",
    "pinned-memory-pool-byte-size": GPU,
    "rate-limit": RATES,
    "rate-limit-resource": RATES,
    "repoagent-directory": LOADED,
    "response-cache-byte-size": CACHE,
    "sagemaker-port": SAGEMAKER,
    "sagemaker-safe-port-range": SAGEMAKER,
    "sagemaker-thread-count": SAGEMAKER,
    "trace-config": TRACE,
    "trace-count": TRACE,
    "trace-file": TRACE,
    "trace-level": TRACE,
    "trace-log-frequency": TRACE,
    "trace-rate": TRACE,
    "vertex-ai-default-model": VERTEX,
    "vertex-ai-port": VERTEX,
    "vertex-ai-thread-count": VERTEX,
}
"""Flags that are taken and have no effect, and why they have none."""

REFUSED = {
    "allow-sagemaker": SAGEMAKER,
    "allow-vertex-ai": VERTEX,
    "grpc-header-forward-pattern": HEADERS,
    "grpc-restricted-protocol": KEYS,
    "grpc-use-ssl": TLS,
    "grpc-use-ssl-mutual": TLS,
    "http-header-forward-pattern": HEADERS,
    "http-restricted-api": KEYS,
    "model-config-name": "a model has one configuration; let config.pbtxt be the one that is meant",
}
"""Flags that would leave their owner less safe, or served otherwise, if they were passed over; and what to do."""

OFF = ("", "0", "false", "off", "level=off")
"""Values that ask for nothing: what is not there is already off."""

_IDLE = "septet.cli.flags.idle"


class Getopt(click.Command):
    """Takes its flags cut short too, wherever only one begins so: Triton parses with ``getopt_long``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = [name for option in self.params for name in option.opts]
        return super().parse_args(ctx, [_whole(word, flags) for word in args])


def _whole(word: str, flags: list[str]) -> str:
    name, equals, value = word.partition("=")
    found = [flag for flag in flags if flag.startswith(name)] if name.startswith("--") and name != "--" else []
    return f"{found[0]}{equals}{value}" if len(found) == 1 else word


def tritons(command: Callable[..., Any]) -> Callable[..., Any]:
    """Have `command` take the flags in `IDLE` and `REFUSED`, without a word of them in its help."""
    for name in (*IDLE, *REFUSED):
        option = click.option(f"--{name}", multiple=True, hidden=True, expose_value=False, callback=_take)
        command = option(command)
    return command


def without_effect(context: click.Context) -> list[str]:
    """Of the flags given, those that have no effect: a line each that says why."""
    found: list[str] = context.meta.get(_IDLE, [])
    return found


def _take(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> None:
    if all(value.lower() in OFF for value in values):
        return
    flag = option.opts[0]
    name = flag.removeprefix("--")
    if name in REFUSED:
        raise UsageError(f"{flag} is refused: {REFUSED[name]}")
    _pass_over(context, flag, IDLE[name])


def _pass_over(context: click.Context, words: str, why: str) -> None:
    context.meta.setdefault(_IDLE, []).append(f"{words} has no effect here: {why}")


def largest_batches(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """Of ``--backend-config``: the ``default-max-batch-size`` of each backend, of all under ``""``.

    Other settings have no effect. Raises UsageError for what is none.
    """
    found: dict[str, int] = {}
    for words in values:
        backend, comma, setting = words.partition(",") if "," in words else ("", "", words)
        name, _, value = setting.partition("=")
        if not name or not value or (comma and not backend):
            raise UsageError(f"--backend-config is written BACKEND,SETTING=VALUE or SETTING=VALUE, not {words!r}")
        if name == "default-max-batch-size":
            found[backend] = int(
                click.IntRange(0, 2**31 - 1, clamp=True).convert(cast(Any, value), option, context)
            )
        else:
            _pass_over(context, f"--backend-config={words}", "backends are configured by their models' parameters")
    return found
