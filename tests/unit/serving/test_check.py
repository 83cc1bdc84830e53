# SPDX-License-Identifier: Apache-2.0
"""``septet models``: what is wrong with a repository, without serving it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from septet.cli.models import models
from serving_made import IDENTITY, model, onnx_file


def run(root: Path, *options: str) -> tuple[int, list[str]]:
    result = CliRunner().invoke(models, [str(root), *options])
    return result.exit_code, result.output.splitlines()


def test_a_good_repository_is_said_to_be_good(tmp_path: Path) -> None:
    model(tmp_path, "identity", IDENTITY)
    onnx_file(tmp_path / "scale" / "1" / "model.onnx")
    onnx_file(tmp_path / "scale" / "3" / "model.onnx")
    wanted = ["identity: good (null, version 1)", "scale: good (onnxruntime, version 3)"]
    assert run(tmp_path) == (0, wanted)
    assert run(tmp_path, "--load") == (0, wanted)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            IDENTITY + "\ndynamic_batching {\n  preferred_batch_size: 9\n}",
            "m/config.pbtxt, line 8: dynamic_batching",
        ),
        ("name: 'n'", "m/config.pbtxt: name: 'n' is not the folder's name"),
        ("\n\nbatch: 3", "m/config.pbtxt, line 3: ModelConfig has no field 'batch'"),
        ('backend: "tensorrt"', "m/config.pbtxt, line 1: backend: no backend is called 'tensorrt'"),
        ('backend: "onnxruntime"', "version 1 of 'm' has no file model.onnx"),
        ("", "m/config.pbtxt: backend: neither backend nor platform is said"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(tmp_path: Path, config: str, words: str) -> None:
    model(tmp_path, "m", config)
    status, lines = run(tmp_path)
    assert status == 1
    assert any(words in line for line in lines), lines


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    model(tmp_path, "m", IDENTITY + "instance_group { count: -1 kind: KIND_GPU }\nsequence_batching { }")
    assert len(run(tmp_path)[1]) == 4


def test_what_has_no_effect_is_noted(tmp_path: Path) -> None:
    model(tmp_path, "m", IDENTITY + 'instance_group { host_policy: "a" }\noptimization { graph { level: 1 } }')
    assert run(tmp_path) == (
        0,
        [
            "m: good (null, version 1)",
            "  note: m/config.pbtxt, line 7: optimization: has no effect here",
            "  note: m/config.pbtxt, line 6: instance_group[0].host_policy: has no effect here: "
            "instances share out the cores",
        ],
    )


def test_loading_finds_what_only_an_engine_finds(tmp_path: Path) -> None:
    onnx_file(tmp_path / "scale" / "1" / "model.onnx")
    (tmp_path / "scale" / "config.pbtxt").write_text('input { name: "q" data_type: TYPE_FP32 dims: 4 }')
    assert run(tmp_path)[0] == 0
    status, lines = run(tmp_path, "--load")
    assert status == 1
    assert "the model's file has no input 'q'; it has 'x'" in lines[1]
