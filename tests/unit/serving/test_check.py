# SPDX-License-Identifier: Apache-2.0
"""``septet models``: what is wrong with a repository, without serving it."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from septet.cli.models import models
from septet.errors import UsageError
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


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "dims: 4 }",
            'dims: 4 label_filename: "no.txt" }',
            "line 5: output[0].label_filename: 'no.txt' is not readable",
        ),
        (
            "dims: 4 }",
            'dims: 4 label_filename: "../m" }',
            "line 5: output[0].label_filename: '../m' is not a path inside",
        ),
        (
            "dims: 4 }\n",
            'dims: 4 } model_warmup { name: "w" batch_size: 1 inputs { key: "x" value {'
            ' data_type: TYPE_FP32 dims: 4 input_data_file: "gone" } } }',
            "warm-up file 'gone' is not usable",
        ),
        (
            "max",
            'parameters { key: "isolation" value { string_value: "jail" } }\nmax',
            "must be 'thread' or 'process'",
        ),
    ],
)
def test_what_loading_would_stumble_on_first_is_told(tmp_path: Path, old: str, new: str, words: str) -> None:
    head, found, tail = IDENTITY.rpartition(old)
    model(tmp_path, "m", head + new + tail if found else IDENTITY)
    status, lines = run(tmp_path)
    assert status == 1
    assert len(lines) == 2
    assert f"  m/config.pbtxt, {words}" in lines[1] or words in lines[1], lines


def test_a_backend_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "septet.engines.torch", raising=False)
    model(tmp_path, "m", IDENTITY.replace("null", "pytorch"), {"1/model.pt": b"x"})
    assert run(tmp_path) == (
        1,
        ["m: wrong (pytorch, version 1)", "  engine 'torch' needs the package 'torch': pip install torch"],
    )


def test_a_python_model_that_asks_for_others_is_told_that_there_are_none(tmp_path: Path) -> None:
    source = """
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        assert not pb_utils.is_model_ready("other")
        return config
    def initialize(self, args):
        answer = pb_utils.InferenceRequest([], ["y"], "other").exec()
        raise RuntimeError(answer.error().message())
    def execute(self, requests):
        return []
"""
    model(tmp_path, "m", IDENTITY.replace("null", "python"), {"1/model.py": source})
    status, lines = run(tmp_path, "--load")
    assert (status, lines[1]) == (1, "  m_0: RuntimeError: 'other' is not served")


@pytest.mark.parametrize("name", ["../outside", "", "a/b"])
def test_a_step_names_a_model_of_the_repository(tmp_path: Path, name: str) -> None:
    (tmp_path / "models").mkdir()
    model(tmp_path, "outside", IDENTITY.replace('"y"', '"z"'))
    step = (
        f'step {{ model_name: "{name}" input_map {{ key: "x" value: "x" }} output_map {{ key: "y" value: "y" }} }}'
    )
    text = IDENTITY.replace('backend: "null"', 'platform: "ensemble"') + f"ensemble_scheduling {{ {step} }}"
    model(tmp_path / "models", "m", text)
    status, lines = run(tmp_path / "models")
    assert status == 1
    assert "step[0].model_name" in lines[1]
    assert len(lines) == 2


def test_an_ensemble_is_held_against_the_models_beside_it(tmp_path: Path) -> None:
    step = 'step { model_name: "NAME" input_map { key: "x" value: "x" } output_map { key: "OUT" value: "y" } }'
    ensemble = IDENTITY.replace('backend: "null"', 'platform: "ensemble"') + "ensemble_scheduling {\nSTEP\n}"
    onnx_file(tmp_path / "scale" / "1" / "model.onnx")
    (tmp_path / "scale" / "config.pbtxt").write_text("max_batch_size: 8")
    for name, out in (("scale", "y"), ("scale", "z"), ("nobody", "y")):
        text = ensemble.replace("STEP", step.replace("NAME", name).replace("OUT", out))
        model(tmp_path, f"{name}-{out}", text)
    status, lines = run(tmp_path)
    assert status == 1
    assert lines == [
        "nobody-y: wrong (ensemble, version 1)",
        "  nobody-y/config.pbtxt, line 7: ensemble_scheduling.step[0].model_name: no repository has a model "
        "'nobody'",
        "scale: good (onnxruntime, version 1)",
        "scale-y: good (ensemble, version 1)",
        "scale-z: wrong (ensemble, version 1)",
        "  scale-z/config.pbtxt, line 7: ensemble_scheduling.step[0].output_map: model 'scale' has no output 'z'; "
        "it has 'y'",
    ]
    assert run(tmp_path, "--load")[1] == lines


def test_folders_that_are_no_versions_are_noted(tmp_path: Path) -> None:
    folder = model(tmp_path, "m", IDENTITY + "version_policy { specific { versions: [ 1, 2 ] } }")
    names = ("0", "01", "9" * 19)
    for name in (*names, "files"):
        (folder / name).mkdir()
    status, lines = run(tmp_path)
    assert status == 0
    why = "their folders have numbers from 1 on, of at most 18 digits, without leading zeros, for names"
    assert [line.split(":", 2)[2] for line in lines[1:]] == [
        *[f" '{name}' is no version: {why}" for name in names],
        " version 2 is asked for and not there",
    ]


def test_a_configuration_that_is_no_file_is_wrong(tmp_path: Path) -> None:
    folder = model(tmp_path, "m", None, {"1/model.py": "class TritonPythonModel: pass"})
    (folder / "config.pbtxt").mkdir()
    assert run(tmp_path) == (1, ["m: wrong (no backend)", "  m/config.pbtxt is no file"])


def test_where_nothing_can_be_checked_it_is_said() -> None:
    for where, words in (("nowhere", "no such folder"), ("s3://bucket", "s3://bucket: .* not over s3://")):
        with pytest.raises(UsageError, match=words):
            CliRunner().invoke(models, [where], catch_exceptions=False)


@pytest.mark.parametrize("name", ["/etc/passwd", "../../../../etc/nothing", "link", "circle", r"\000"])
def test_a_file_outside_is_refused_whether_it_is_there_or_not(tmp_path: Path, name: str) -> None:
    folder = model(tmp_path, "m", IDENTITY.replace("null", "onnxruntime") + f'default_model_filename: "{name}"')
    (folder / "1" / "link").symlink_to("/nothing")
    (folder / "1" / "circle").symlink_to("circle")
    status, lines = run(tmp_path)
    assert status == 1
    assert "has no file" not in lines[1]


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
