# SPDX-License-Identifier: Apache-2.0
"""The command ``septet`` as a person runs it: real processes, real engines, and what goes wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from septet.harness.result import Result, load_results

Environment = dict[str, str]

OFFICIAL_MD5 = "a638cf028b5870da29e09ccc2f7182e7"


def septet(
    *words: str | Path, env: Environment, cwd: Path, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "septet", *map(str, words)]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout)


def by_scenario(results: list[Result]) -> dict[str, Result]:
    return {result.scenario: result for result in results}


@pytest.fixture(scope="module")
def quick_run(
    tmp_path_factory: pytest.TempPathFactory, session_cache: Path
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """One whole run of the miniature, in all scenarios."""
    folder = tmp_path_factory.mktemp("run")
    env = dict(os.environ) | {"SEPTET_CACHE": str(session_cache)}
    return septet("bench", "resnet50", "--size", "mini", "--json", "out.json", env=env, cwd=folder), folder


def test_the_miniature_runs_in_all_scenarios(quick_run: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, folder = quick_run
    assert "Traceback" not in done.stderr
    results = by_scenario(load_results(folder / "out.json"))
    assert list(results) == ["SingleStream", "MultiStream", "Server", "Offline"]
    invalid = [result for result in results.values() if result.verdict != "VALID"]
    assert done.returncode == bool(invalid), done.stdout + done.stderr
    for result in invalid:  # a busy machine may keep no latency, and nothing else may go wrong
        assert result.scenario in ("MultiStream", "Server")
        assert all("latency" in why for why in result.why)
    for result in results.values():
        if result.verdict == "VALID":
            assert result.metric is not None
            assert result.metric.value > 0
            assert result.loadgen.settings
        assert result.accuracy is not None
        assert result.accuracy.samples == 5_000
        assert 70 < result.accuracy.value < 99
        assert result.accuracy.verdict == "met"
        assert not result.official
        assert result.commit
        assert result.command.endswith("bench resnet50 --size mini --json out.json")
    streams = results["MultiStream"]
    assert streams.verdict == "INVALID" or "not in LoadGen" in streams.loadgen.issuer
    served = results["Server"]
    assert served.verdict == "INVALID" or (served.latency and served.latency.percentiles["99.00"] <= 15.0)


def test_a_run_says_what_it_is_and_where_its_report_stands(
    quick_run: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, folder = quick_run
    assert "unofficial" in done.stdout
    assert "top-1" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    [report] = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("report:")]
    page = (folder / report).read_text()
    assert "unofficial quick run" in page
    assert page.count("<details>") == 4


def test_the_report_of_several_files(
    quick_run: tuple[subprocess.CompletedProcess[str], Path], septet_environment: Environment, tmp_path: Path
) -> None:
    file = quick_run[1] / "out.json"
    done = septet("report", file, file, "--output", "both.html", env=septet_environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "both.html").read_text().count("<details>") == 8


def test_full_size_runs_and_is_labelled(septet_environment: Environment, tmp_path: Path) -> None:
    words = "bench resnet50 --size full --scenario Offline --engine openvino --precision f32 --weights synthetic"
    done = septet(*words.split(), "--output", "run", env=septet_environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "synthetic weights: speed only" in done.stdout
    [result] = load_results(tmp_path / "run" / "results.json")
    assert (result.weights, result.accuracy, result.verdict, result.official) == (
        "synthetic",
        None,
        "VALID",
        False,
    )
    assert "synthetic weights: speed only" in (tmp_path / "run" / "report.html").read_text()


def test_rules_and_doctor_print(septet_environment: Environment, tmp_path: Path) -> None:
    rules = septet("rules", env=septet_environment, cwd=tmp_path)
    assert rules.returncode == 0
    assert all(name in rules.stdout for name in ("resnet50", "3d-unet", "dlrm", "12786827339337101903", "r0.7"))
    doctor = septet("doctor", env=septet_environment, cwd=tmp_path)
    assert doctor.returncode == 0
    assert all(word in doctor.stdout for word in ("cores", "memory", "onnx", "openvino", "GPUs"))


BENCH_NULL = ("bench", "null", "--engine", "null", "--threads", "1", "--mode", "performance")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("bench resnet", "no network is called 'resnet'; there are: resnet50"),
        ("rules nothing", "no network is called 'nothing'"),
        ("bench resnet50 --category edge --scenario Server", "does not have resnet50 Server in the edge category"),
        ("bench resnet50 --target 99.9", "no 99.9 % target for resnet50"),
        ("bench resnet50 --size full --weights none.onnx", "none.onnx: no such model file"),
        ("bench resnet50 --size full --weights broken.onnx", "broken.onnx: not a readable ONNX file"),
        ("bench resnet50 --size full --weights cut.onnx", "cut.onnx"),
        ("bench resnet50 --size full --weights synthetic --data nowhere", "nowhere: no such folder"),
        ("bench resnet50 --size full --weights synthetic --data photos --scenario Offline", "cut.jpg"),
        ("bench resnet50 --engine onnx --precision bf16", "it runs: f32, int8"),
        ("bench resnet50 --precision int8", "not a quantised file"),
        ("bench resnet50 --threads 1 --streams 4 --scenario Offline", "4 streams do not fit on 1 threads"),
        ("bench --size full", "--size goes with a network"),
        ("report none.json", "none.json: No such file"),
        ("report broken.onnx", "not a Septet results file"),
        ("report newer.json", "newer.json: follows results schema 99"),
        ("bench null --engine null --scenario SingleStream --output earlier", "earlier: holds the results"),
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_results_alone(
    words: str, says: str, septet_environment: Environment, tmp_path: Path
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\x00\x01 this is no model")
    (tmp_path / "cut.onnx").write_bytes(_some_onnx()[:-20])
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    (tmp_path / "newer.json").write_text(json.dumps({"schema": 99, "results": []}))
    (tmp_path / "earlier").mkdir()
    earlier = tmp_path / "earlier" / "results.json"
    earlier.write_text('{"results": [], "schema": 1}')
    done = septet(*words.split(), env=septet_environment, cwd=tmp_path)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, done.stderr
    assert says in errors[0]
    assert "Traceback" not in done.stderr
    assert earlier.read_text() == '{"results": [], "schema": 1}'


def _some_onnx() -> bytes:
    from septet.workloads.resnet import RESNET_MINI, build, synthetic

    return bytes(build(RESNET_MINI, synthetic(RESNET_MINI, 0)).SerializeToString())


def test_an_unreachable_address_and_a_wrong_checksum(septet_environment: Environment, tmp_path: Path) -> None:
    code = (
        "import sys; from septet.workloads import resnet50; from septet.workloads.weights import Official;"
        "resnet50.OFFICIAL = Official(sys.argv.pop(1), '0' * 32); from septet.cli import main; main()"
    )
    words = ["bench", "resnet50", "--size", "full", "--weights", "official"]
    done = subprocess.run(
        [sys.executable, "-c", code, "http://127.0.0.1:9/resnet50_v1.onnx", *words],
        env=septet_environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Error: http://127.0.0.1:9/resnet50_v1.onnx:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_told(septet_environment: Environment, tmp_path: Path) -> None:
    done = septet(
        *BENCH_NULL, "--scenario", "SingleStream", "--json", "/dev/full", env=septet_environment, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "Error: /dev/full: not written: No space left on device" in done.stderr
    [kept] = (tmp_path / "results").glob("*/results.json")
    assert len(load_results(kept)) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupt_leaves_no_process_and_whole_results(
    number: signal.Signals, septet_environment: Environment, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "septet", *BENCH_NULL, "--official", "--scenario", "SingleStream"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # «nohup … &» has it ignored, children too
    try:
        running = subprocess.Popen(
            [*command, "--json", "out.json", "--output", "run"],
            env=septet_environment,
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    log = tmp_path / "run" / "null-mini-null-f32" / "SingleStream" / "performance" / "mlperf_log_detail.txt"
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    children = psutil.Process(running.pid).children(recursive=True)
    assert children
    running.send_signal(number)
    _, errors = running.communicate(timeout=20)
    assert running.returncode not in (0, None)
    assert "Traceback" not in errors
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    assert not (tmp_path / "out.json").exists()
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_second_run_on_a_folder_in_use_is_refused(septet_environment: Environment, tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-m", "septet", *BENCH_NULL, "--scenario", "SingleStream", "--output", "run"],
        env=septet_environment,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (tmp_path / "run" / ".lock").exists():
        time.sleep(0.02)
    words = (*BENCH_NULL, "--scenario", "SingleStream", "--output", "run")
    second = septet(*words, env=septet_environment, cwd=tmp_path)
    assert second.returncode == 1
    assert "Error: run: another run is writing its results there" in second.stderr
    assert first.wait(timeout=60) == 0
    assert len(load_results(tmp_path / "run" / "results.json")) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("bench resnet50 --engine nothing", "Invalid value for '--engine'"),
        ("bench resnet50 --threads 0", "Invalid value for '--threads'"),
        ("bench resnet50 --size full --weights synthetic --mode accuracy", "no accuracy with synthetic weights"),
        ("bench resnet50 --json nowhere/out.json", "there is no folder nowhere"),
        ("bench resnet50 --size full --weights synthetic --data super --scenario Offline", "not «file class»"),
        ("bench resnet50 --size full --weights synthetic --data bytes --scenario Offline", "not text in UTF-8"),
        ("bench resnet50 --size full --weights synthetic --data folder --scenario Offline", "Is a directory"),
        ("bench null --engine null --scenario SingleStream --output taken", "not written: Not a directory"),
        ("bench null --engine null --scenario SingleStream --output zero.json", "zero.json: is not a folder"),
        ("bench rnnt --size full --weights official", "rnnt: the official weights are published as a torch file"),
        ("bench dlrm --size full --weights official", "dlrm: the official weights are published as a torch file"),
        ("report deep.json", "deep.json: not a Septet results file"),
        ("report bytes.json", "bytes.json: not a Septet results file"),
        ("report zero.json", "there is no schema 0"),
        ("report zero.json --output zero.json", "is one of the results files"),
        ("fetch nothing", "no network is called 'nothing'"),
    ],
)
def test_more_bad_input_is_one_clear_line(
    words: str, says: str, septet_environment: Environment, tmp_path: Path
) -> None:
    for name in ("super", "bytes", "folder"):
        (tmp_path / name).mkdir()
    (tmp_path / "super" / "val_map.txt").write_text("a.jpg ²\n")
    (tmp_path / "bytes" / "val_map.txt").write_bytes(b"a.jpg \xff\xfe\n")
    (tmp_path / "folder" / "val_map.txt").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "null-mini-null-f32").write_text("in the way")
    (tmp_path / "deep.json").write_text('{"schema": 1, "results": ' + "[" * 100_000)
    (tmp_path / "bytes.json").write_bytes(b'{"schema": 1, "results": ["\xff"]}')
    (tmp_path / "zero.json").write_text('{"schema": 0, "results": []}')
    done = septet(*words.split(), env=septet_environment, cwd=tmp_path)
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if line.startswith("Error: ")] == [
        done.stderr.splitlines()[-1]
    ]
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "Usage" not in done.stderr


def test_an_accuracy_run_alone_has_no_verdict(septet_environment: Environment, tmp_path: Path) -> None:
    done = septet(
        *["bench", "null", "--engine", "null", "--mode", "accuracy", "--scenario", "Offline", "--output", "run"],
        env=septet_environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    [result] = load_results(tmp_path / "run" / "results.json")
    assert (result.verdict, result.metric) == ("NOT RUN", None)
    assert result.accuracy is not None
    assert result.accuracy.value == 100


def test_networks_and_fetch_say_what_is_here_and_what_to_bring(
    septet_environment: Environment, tmp_path: Path
) -> None:
    networks = septet("networks", env=septet_environment, cwd=tmp_path)
    assert networks.returncode == 0
    assert all(words in networks.stdout for words in ("resnet50", "25.6 M parameters", "8.18 GFLOP", "not here"))
    assert networks.stdout.count("published without a checksum: bring") == 3
    unchecked = septet("fetch", "3d-unet", env=septet_environment, cwd=tmp_path)
    assert unchecked.returncode == 0
    assert "weights: published without a checksum: bring https://zenodo.org/record/3928973" in unchecked.stdout
    code = (
        "import sys; from dataclasses import replace; from septet.workloads import resnet50;"
        "from septet.workloads.weights import Official; kind = resnet50.ResNet50;"
        "kind.card = replace(kind.card, official=(Official('http://127.0.0.1:9/a.onnx', '0' * 32),));"
        "from septet.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "fetch", "resnet50"]
    fetched = subprocess.run(
        command, env=septet_environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert fetched.returncode == 1
    assert "val_map.txt" in fetched.stdout
    assert "Error: http://127.0.0.1:9/a.onnx:" in fetched.stderr
    assert "Traceback" not in fetched.stderr
