# SPDX-License-Identifier: Apache-2.0
"""``septet serve`` takes every flag of Triton's: as Triton does, without effect and with a word, or not at all."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from septet.cli import main
from septet.cli.flags import IDLE, OFF, REFUSED
from septet.serving.server import Address

HONOURED = {
    "allow-client-shm": "true",
    "allow-cpu-metrics": "OFF",
    "allow-grpc": "0",
    "allow-http": "False",
    "allow-metrics": "on",
    "backend-config": "onnxruntime,default-max-batch-size=8",
    "exit-on-error": "false",
    "exit-timeout-secs": "-1",
    "grpc-address": "127.0.0.1",
    "grpc-infer-response-compression-level": "High",
    "grpc-port": "9001",
    "http-address": "127.0.0.1",
    "http-max-input-size": "1000",
    "http-port": "9000",
    "id": "mine",
    "load-model": "*",
    "log-error": "true",
    "log-file": "",
    "log-format": "ISO8601",
    "log-info": "1",
    "log-verbose": "True",
    "log-warning": "on",
    "metrics-address": "127.0.0.1",
    "metrics-port": "9002",
    "model-control-mode": "EXPLICIT",
    "model-load-retry-count": "2",
    "model-load-thread-count": "0",
    "model-repository": ".",
    "model-store": ".",
    "repository-poll-secs": "0",
    "reuse-grpc-port": "true",
    "reuse-http-port": "true",
    "strict-model-config": "true",
    "strict-readiness": "false",
}
"""Flags that do what they do in Triton, with a value as Triton takes it; disable-auto-complete-config has none."""

IN_TRITON = (
    "help id exit-timeout-secs log-verbose log-info log-warning log-error log-format log-file model-store "
    "model-repository exit-on-error disable-auto-complete-config strict-readiness model-control-mode "
    "repository-poll-secs load-model model-config-name model-load-thread-count model-load-retry-count "
    "model-namespacing enable-peer-access allow-http http-address http-port reuse-http-port "
    "http-header-forward-pattern http-thread-count http-restricted-api allow-grpc grpc-address grpc-port "
    "reuse-grpc-port grpc-header-forward-pattern grpc-infer-allocation-pool-size grpc-use-ssl "
    "grpc-use-ssl-mutual grpc-server-cert grpc-server-key grpc-root-cert grpc-infer-response-compression-level "
    "grpc-keepalive-time grpc-keepalive-timeout grpc-keepalive-permit-without-calls "
    "grpc-http2-max-pings-without-data grpc-http2-min-recv-ping-interval-without-data "
    "grpc-http2-max-ping-strikes grpc-max-connection-age grpc-max-connection-age-grace "
    "grpc-restricted-protocol allow-sagemaker sagemaker-port sagemaker-safe-port-range sagemaker-thread-count "
    "allow-vertex-ai vertex-ai-port vertex-ai-thread-count vertex-ai-default-model allow-metrics "
    "allow-gpu-metrics allow-cpu-metrics metrics-address metrics-port metrics-interval-ms metrics-config "
    "trace-config backend-directory backend-config repoagent-directory cache-config cache-directory rate-limit "
    "rate-limit-resource pinned-memory-pool-byte-size cuda-memory-pool-byte-size cuda-virtual-address-size "
    "min-supported-compute-capability buffer-manager-thread-count host-policy model-load-gpu-limit "
    "strict-model-config response-cache-byte-size trace-file trace-level trace-rate trace-count "
    "trace-log-frequency"
)
"""What ``tritonserver --help`` lists in 2.51."""


class Started:
    """What a server was started with; it is over at once."""

    core: dict[str, Any]
    settings: Any

    def __init__(self, plane: object, settings: object) -> None:
        Started.settings = settings

    def run(self) -> bool:
        return True


class FakeCore:
    """Notes what it was made with."""

    at_work = False

    def __init__(self, repositories: tuple[Path, ...], **settings: object) -> None:
        Started.core = {"repositories": repositories, **settings}

    def start(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _nothing_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("septet.serving.server.Server", Started)
    monkeypatch.setattr("septet.serving.core.Core", FakeCore)
    monkeypatch.setattr(logging, "basicConfig", lambda **settings: None)


def serve(*words: str) -> Result:
    return CliRunner().invoke(main, ["serve", *words])


def test_no_flag_of_tritons_is_unknown() -> None:
    assert set(IN_TRITON.split()) - {"help", "disable-auto-complete-config"} <= {*HONOURED, *IDLE, *REFUSED}
    assert not {*IDLE} & {*REFUSED}
    assert not {*HONOURED} & {*IDLE, *REFUSED}


@pytest.mark.parametrize("joined", [True, False], ids=["flag=value", "flag value"])
def test_what_is_done_as_in_triton(joined: bool) -> None:
    words = [
        word
        for name, value in HONOURED.items()
        for word in ([f"--{name}={value}"] if joined else [f"--{name}", value])
    ]
    result = serve(*words, "--disable-auto-complete-config")
    assert result.exit_code == 0, result.output
    core, settings = Started.core, Started.settings
    assert core["repositories"] == (Path(),), "given twice, it is one"
    assert (core["name"], core["startup"], core["control"]) == ("mine", ("*",), "explicit")
    assert (core["auto_complete"], core["exit_on_error"], core["strict_readiness"]) == (False, False, False)
    assert core["largest"] == {"onnxruntime": 8}
    assert (core["cpu_metrics"], core["load_threads"], core["load_retries"]) == (False, 1, 2)
    assert core["log"].change()["log_verbose_level"] == 1
    assert (settings.http, settings.grpc, settings.metrics) == (None, None, Address("127.0.0.1", 9002))
    assert (settings.exit_seconds, settings.reuse_http, settings.reuse_grpc) == (0, True, True)
    assert settings.grpc_limits.compression == "high"


@pytest.mark.parametrize("name", IDLE)
def test_what_has_no_effect_is_said_in_one_line(name: str, caplog: pytest.LogCaptureFixture) -> None:
    for words in ([f"--{name}=x,y=1", f"--{name}=2"], [f"--{name}", "x:1:2", f"--{name}", "2"]):
        caplog.clear()
        result = serve("--model-repository=.", *words)
        assert result.exit_code == 0, result.output
        assert [record.getMessage() for record in caplog.records] == [f"--{name} has no effect here: {IDLE[name]}"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_unsafe_to_pass_over_is_refused_by_name(name: str) -> None:
    result = serve("--model-repository=.", f"--{name}=model-repository:key=true")
    assert result.exit_code == 2
    assert f"--{name} is refused: {REFUSED[name]}" in result.output


def test_what_is_not_there_may_be_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    words = [f"--{name}={value}" for name in (*IDLE, *REFUSED) for value in OFF]
    result = serve("--model-repository=.", *words)
    assert result.exit_code == 0, result.output
    assert not caplog.records


def test_the_help_is_of_what_has_an_effect() -> None:
    assert not any(f"--{name}" in serve("--help").output.split() for name in (*IDLE, *REFUSED))


def test_memory_of_clients_may_be_shut_out() -> None:
    assert serve("--model-repository=.", "--allow-client-shm=false").exit_code == 0
    assert Started.core["regions"]._most == 0


def test_batches_of_backends_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    size = "default-max-batch-size"
    settings = [f"{size}=16", f"onnxruntime,{size}=8", f"openvino,{size}=-1", "python,shm-default-byte-size=1"]
    assert serve("--model-repository=.", *[f"--backend-config={each}" for each in settings]).exit_code == 0
    assert Started.core["largest"] == {"": 16, "onnxruntime": 8, "openvino": 0}
    assert [record.getMessage() for record in caplog.records] == [
        f"--backend-config={settings[3]} has no effect here: backends are configured by their models' parameters"
    ]


def test_flags_may_be_cut_short() -> None:
    words = ["--model-repo=.", "--http-po", "9000", "--disable-auto", "--pinned=1", "--grpc-port=9001"]
    assert serve(*words).exit_code == 0
    assert Started.settings.http.port == 9000
    assert Started.settings.grpc.port == 9001
    assert not Started.core["auto_complete"]
    assert "No such option" in serve("--model-repository=.", "--http-=1").output


def test_repositories_may_be_polled_never() -> None:
    assert serve("--model-repository=.", "--model-control-mode=poll", "--repository-poll-secs=0").exit_code == 0
    assert Started.core["control"] == "none"


@pytest.mark.parametrize(
    ("word", "text"),
    [("--load-model=x", "explicit"), ("--log-info=maybe", "maybe"), ("--no-such-flag=1", "no-such-flag"),
     ("--backend-config=onnxruntime", "SETTING=VALUE"), ("--backend-config=,a=b", "SETTING=VALUE"),
     ("--backend-config=default-max-batch-size=x", "'x' is not a valid integer"),
     ("--log-file=/nowhere/log", "/nowhere/log"), ("--log-format=xml", "xml")],
)  # fmt: skip
def test_what_cannot_be_is_told(word: str, text: str) -> None:
    result = serve("--model-repository=.", word)
    assert result.exit_code == 2
    assert text in result.output


def test_every_model_is_named_alone() -> None:
    words = ["--model-control-mode=explicit", "--load-model=*", "--load-model=x"]
    assert "without another" in serve("--model-repository=.", *words).output
