# SPDX-License-Identifier: Apache-2.0
"""``septet optimize`` in processes of its own: killed, started again, and its product under `septet bench`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from networks_made import perceptron, vectors
from septet.harness.result import load_results
from septet.optimize.ledger import Ledger, open_ledger

SCORE = """
import numpy as np
truth = np.load("truth.npy")
def right(outputs, indices):
    return [float(answer["scores"].argmax() == truth[index]) for answer, index in zip(outputs, indices)]
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model of the user's, which INT8 breaks, samples and a score."""
    from septet.optimize.passes import outputs

    path = perceptron(tmp_path / "net.onnx", outliers=1_000)
    x = np.stack([sample["x"] for sample in vectors(1_500)])
    np.savez(tmp_path / "samples.npz", x=x)
    np.save(tmp_path / "truth.npy", outputs(path, [{"x": x}])[0]["scores"].argmax(axis=1))
    (tmp_path / "judge.py").write_text(SCORE)
    return tmp_path


def command(folder: Path, *more: str) -> list[str]:
    words = ["optimize", "net.onnx", "--data", "samples.npz", "--score", "judge:right", "--output", str(folder)]
    return [sys.executable, "-m", "septet", *words, *more]


def run(words: list[str], place: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, timeout=280)


def found(ledger: Ledger) -> list[tuple[object, ...]]:
    """What does not depend on how fast this machine was just now."""
    return [(row.candidate, row.search) for row in ledger.rows]


def test_killed_at_any_time_it_goes_on_to_the_same_result(place: Path, septet_environment: dict[str, str]) -> None:
    done = run(command(Path("whole")), place, septet_environment)
    assert done.returncode == 0, done.stderr
    whole = open_ledger(place / "whole" / "ledger.json")
    ledger_file = place / "cut" / "ledger.json"
    for rows in (1, 3, len(whole.rows) // 2):
        kill_once_it_has(rows, place, ledger_file, septet_environment)
        kept = open_ledger(ledger_file)
        assert found(kept) == found(whole)[: len(kept.rows)]
    done = run(command(Path("cut")), place, septet_environment)
    assert done.returncode == 0, done.stderr
    assert found(open_ledger(ledger_file)) == found(whole)
    for row in kept.rows[1:]:
        assert f"trying {row.candidate.words}\n" not in done.stderr


def kill_once_it_has(rows: int, place: Path, ledger: Path, environment: dict[str, str]) -> None:
    process = subprocess.Popen(command(Path("cut")), cwd=place, env=environment, stderr=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)  # fmt: skip
    limit = time.monotonic() + 120
    while time.monotonic() < limit and process.poll() is None:
        if ledger.exists() and len(json.loads(ledger.read_text())["rows"]) >= rows:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_score_is_held_and_the_page_shows_it(place: Path, septet_environment: dict[str, str]) -> None:
    done = run(command(Path("search"), "--repository", "models"), place, septet_environment)
    assert done.returncode == 0, done.stderr
    ledger = open_ledger(place / "search" / "ledger.json")
    assert ledger.judged == "accuracy"
    page = (place / "search" / "report.html").read_text()
    assert "accuracy against speed" in page.lower()
    assert all(row.candidate.words in page for row in ledger.rows)
    assert "product: models/net" in done.stdout


@pytest.mark.parametrize(
    ("words", "said", "status"),
    [
        ("optimize nothing", "no network is called so, and no file", 2),
        ("optimize net.onnx", "needs samples", 2),
        ("optimize net.onnx --data nowhere.npz", "cannot be read", 1),
        ("optimize net.onnx --data samples.npz --score judge:wrong", "not module:function", 2),
        ("optimize net.onnx --data samples.npz --keep 90", "'90' is not one of '99', '99.9'", 2),
        ("optimize resnet50 --score judge:right", "has its own score", 2),
        ("optimize resnet50 --weights synthetic", "go with --size full", 2),
        ("bench resnet50 --optimized", "septet optimize resnet50 --size mini makes it", 1),
        ("bench resnet50 --optimized --engine onnx", "does not go with --optimized", 2),
        ("bench --optimized", "--optimized goes with a network", 2),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    words: str, said: str, status: int, place: Path, septet_environment: dict[str, str]
) -> None:
    done = run([sys.executable, "-m", "septet", *words.split()], place, septet_environment)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_miniature_is_optimised_and_benched(tmp_path: Path, septet_environment: dict[str, str]) -> None:
    septet = [sys.executable, "-m", "septet"]
    done = run([*septet, "optimize", "resnet50"], tmp_path, septet_environment)
    assert done.returncode == 0, done.stderr
    product = open_ledger(tmp_path / "optimized" / "resnet50-mini" / "ledger.json").product
    assert product is not None
    assert product.final is not None
    assert product.final.verdict == "kept"
    words = ["bench", "resnet50", "--optimized", "--scenario", "Offline", "--json", "results.json"]
    done = run([*septet, *words], tmp_path, septet_environment)
    assert done.returncode == 0, done.stderr
    (result,) = load_results(tmp_path / "results.json")
    assert (result.engine, result.precision) == (product.candidate.engine, product.candidate.precision)
    assert result.accuracy is not None
    assert result.accuracy.verdict == "met"
    assert any(note.startswith(f"optimised: {product.candidate.words}") for note in result.notes)
