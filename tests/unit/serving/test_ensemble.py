# SPDX-License-Identifier: Apache-2.0
"""Ensembles: models that hand tensors on to one another."""

from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic_ns

import numpy as np
import pytest

from septet.errors import (
    DeadlineExceeded,
    LoadFailed,
    ModelFailed,
    ModelNotReady,
    ModelUnknown,
    RequestCancelled,
    RequestInvalid,
    SeptetError,
)
from septet.model_config.ensemble import misfits
from septet.model_config.fault import Fault
from septet.model_config.rules import faults
from septet.model_config.text import parse, write
from septet.request import Answer, Request, Response, Wanted
from septet.serving.core import Core
from septet.serving.ensemble import Ensemble
from septet.serving.expiry import Expiry
from septet.serving.process.questions import Found, Server
from septet.serving.signature import Signature
from septet.wire.shm import Regions
from serving_made import Answers, ask, model, onnx_file, row, until

ENSEMBLE = """
name: "both"
platform: "ensemble"
max_batch_size: 4
input { name: "IN" data_type: TYPE_FP32 dims: 4 }
output { name: "TWICE" data_type: TYPE_FP32 dims: 4 }
output { name: "SIX" data_type: TYPE_FP32 dims: 4 }
ensemble_scheduling {
  step { model_name: "three" input_map { key: "x" value: "twice_inside" } output_map { key: "y" value: "SIX" } }
  step { model_name: "two" input_map { key: "x" value: "IN" } output_map { key: "y" value: "twice_inside" } }
  step { model_name: "one" model_version: -1
         input_map { key: "x" value: "twice_inside" } output_map { key: "y" value: "TWICE" } }
}
"""

Open = Callable[..., Core]


@pytest.fixture
def open_(tmp_path: Path) -> Iterator[Open]:
    cores: list[Core] = []

    def start(**settings: object) -> Core:
        cores.append(Core([tmp_path], regions=Regions(), **settings))  # type: ignore[arg-type]
        cores[-1].start()
        return cores[-1]

    for name, factor in (("one", 1), ("two", 2), ("three", 3)):
        onnx_file(tmp_path / name / "1" / "model.onnx", factor)
    model(tmp_path, "both", ENSEMBLE)
    yield start
    for core in cores:
        core.close(10)


def test_tensors_go_from_model_to_model_whatever_the_order_of_steps(open_: Open) -> None:
    core = open_()
    assert core.ready()
    answer = ask(core, "both", {"IN": row(5, 2)}, id="7")
    assert (answer.error, answer.id, answer.model, answer.version) == (None, "7", "both", "1")
    assert np.array_equal(answer.outputs["TWICE"], row(10, 2))
    assert np.array_equal(answer.outputs["SIX"], row(30, 2))
    assert ask(core, "both", {"IN": row(5)}, wanted=(Wanted("SIX"),)).outputs.keys() == {"SIX"}
    assert core.statistics("both")[0]["inference_stats"]["success"]["count"] == 2
    assert core.statistics("two")[0]["inference_count"] == 3
    assert core.model_metadata("both")["platform"] == "ensemble"
    assert core.model_config("both").ensemble_scheduling.step[1].model_name == "two"


def test_many_requests_at_once_each_get_their_own(open_: Open) -> None:
    core, answers = open_(), Answers()
    for number in range(100):
        core.submit(Request("both", {"IN": row(number)}, id=str(number)), answers)
    for response in answers.wait(100):
        assert np.array_equal(response.outputs["SIX"], row(6 * int(response.id)))


def test_a_request_that_does_not_fit_is_told_by_the_ensemble(open_: Open) -> None:
    core = open_()
    assert isinstance(ask(core, "both", {"IN": row(1, 5)}).error, RequestInvalid)
    assert isinstance(ask(core, "both", {"x": row(1)}).error, RequestInvalid)
    assert core.statistics("two")[0]["inference_count"] == 0


def test_it_is_ready_while_all_its_models_are(open_: Open) -> None:
    core = open_(control="explicit", startup=["*"])
    core.unload("three", False)
    assert not core.model_ready("both")
    assert isinstance(ask(core, "both", {"IN": row(1)}).error, ModelNotReady)
    assert "not ready: three" in str(core.index(False))
    core.load("three", {})
    assert core.model_ready("both")
    core.unload("both", True)
    until(lambda: not core.index(True))


def served(core: Core) -> set[str]:
    return {line["name"] for line in core.index(True)}


ENDS = {"both": ("IN", "SIX"), "left": ("IN", "OUT0"), "right": ("IN", "OUT0")}
"""What ensembles take and give."""


def nested(root: Path, name: str, *models: str) -> None:
    """An ensemble that runs `models` beside each other."""
    steps = [
        f'step {{ model_name: "{each}" input_map {{ key: "{key}" value: "IN" }}'
        f' output_map {{ key: "{out}" value: "OUT{index}" }} }}'
        for index, each in enumerate(models)
        for key, out in [ENDS.get(each, ("x", "y"))]
    ]
    outputs = [f'output {{ name: "OUT{index}" data_type: TYPE_FP32 dims: 4 }}' for index in range(len(models))]
    head = 'platform: "ensemble" max_batch_size: 4 input { name: "IN" data_type: TYPE_FP32 dims: 4 }'
    model(root, name, "\n".join([head, *outputs, "ensemble_scheduling {", *steps, "}"]))


@pytest.mark.parametrize("startup", [["nest"], ["nest", "one", "both"], []])
def test_its_models_are_loaded_with_it_in_any_depth(open_: Open, tmp_path: Path, startup: list[str]) -> None:
    nested(tmp_path, "nest", "both", "one")
    core = open_(control="explicit", startup=startup)
    if not startup:
        core.load("nest", {})
    assert served(core) == {"nest", "both", "one", "two", "three"}
    assert np.array_equal(ask(core, "nest", {"IN": row(1)}).outputs["OUT0"], row(6))
    core.unload("nest", True)
    assert served(core) == set()


def test_models_that_are_served_stay_as_they_are_when_their_ensemble_is_loaded(
    open_: Open, tmp_path: Path
) -> None:
    core = open_(control="explicit", startup=["one", "two"])
    before = core._find("two", "")
    onnx_file(tmp_path / "two" / "1" / "model.onnx", 7)
    core.load("both", {})
    assert core._find("two", "") is before
    core.unload("three", False)
    core.load("both", {})
    assert core.model_ready("both")


def test_models_of_another_ensemble_stay_when_one_is_unloaded(open_: Open, tmp_path: Path) -> None:
    nested(tmp_path, "other", "one")
    core = open_(control="explicit", startup=["both", "other"])
    core.unload("both", False)
    assert served(core) == {"other", "one", "two", "three"}
    core.load("both", {})
    core.unload("both", True)
    assert served(core) == {"other", "one"}


def test_the_configuration_given_with_a_load_says_which_models(open_: Open) -> None:
    core = open_(control="explicit")
    config = """{"platform": "ensemble", "max_batch_size": 4,
        "input": [{"name": "IN", "data_type": "TYPE_FP32", "dims": [4]}],
        "output": [{"name": "OUT", "data_type": "TYPE_FP32", "dims": [4]}],
        "ensemble_scheduling": {"step": [
            {"model_name": "three", "input_map": {"x": "IN"}, "output_map": {"y": "OUT"}}]}}"""
    core.load("both", {"config": config})
    assert served(core) == {"both", "three"}


def test_an_ensemble_whose_model_does_not_load_does_not_either(open_: Open, tmp_path: Path) -> None:
    (tmp_path / "three" / "1" / "model.onnx").write_bytes(b"no model")
    core = open_(control="explicit")
    with pytest.raises(
        LoadFailed, match=r"failed to load 'both', which is made of 'three': failed to load 'three'"
    ):
        core.load("both", {})
    assert "both" not in served(core)


def test_nothing_is_loaded_where_a_model_is_missing(open_: Open, tmp_path: Path) -> None:
    (tmp_path / "two").rename(tmp_path / "zwei")
    core = open_(control="explicit")
    with pytest.raises(LoadFailed, match="failed to load 'both': no repository has 'two'"):
        core.load("both", {})
    assert served(core) == set()


def test_ensembles_that_are_made_of_each_other_do_not_load(open_: Open, tmp_path: Path) -> None:
    nested(tmp_path, "left", "right")
    nested(tmp_path, "right", "left")
    core = open_(control="explicit")
    with pytest.raises(LoadFailed, match=r"'left', which is made of 'right': .* is itself a part of ensemble"):
        core.load("left", {})
    assert served(core) == set()


def test_an_error_of_one_model_is_the_answer_and_nothing_goes_on(open_: Open, tmp_path: Path) -> None:
    source = """
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse(error=pb_utils.TritonError("no")) for request in requests]
"""
    model(
        tmp_path,
        "failing",
        ENSEMBLE.partition("ensemble_scheduling")[0]
        .replace("both", "failing")
        .replace('platform: "ensemble"', 'backend: "python"')
        .replace('"IN"', '"x"')
        .replace('"TWICE"', '"y"'),
        {"1/model.py": source},
    )
    (tmp_path / "both" / "config.pbtxt").write_text(ENSEMBLE.replace('"two"', '"failing"'))
    core = open_()
    assert isinstance(ask(core, "both", {"IN": row(1)}).error, ModelFailed)
    assert core.statistics("three")[0]["inference_count"] == 0
    assert core.statistics("both")[0]["inference_stats"]["fail"]["count"] == 1


class Asked:
    """An ensemble whose models are asked, and answer when the test says so."""

    def __init__(self, text: str) -> None:
        config = parse(text)
        self.steps: dict[str, tuple[Request, Answer]] = {}
        self.ensemble = Ensemble(config, "1", Signature(config), Expiry(), Server(self._submit, self._find))
        self.request, self.answers = Request("both", {"IN": row(1)}), Answers()

    def begin(self) -> None:
        self.ensemble.submit(self.request, self.answers)

    def answer(self, model: str, error: SeptetError | None = None) -> None:
        request, answer = self.steps[model]
        outputs = {} if error else {wanted.name: row(1) for wanted in request.wanted}
        answer(Response(model, outputs=outputs, error=error))

    def _find(self, model: str, version: str) -> Found:
        raise ModelUnknown(model)

    def _submit(self, request: Request, answer: Answer) -> None:
        self.steps[request.model] = request, answer


def test_when_the_caller_is_gone_running_steps_are_cancelled_and_no_other_begins() -> None:
    asked = Asked(ENSEMBLE)
    asked.begin()
    assert not asked.steps["two"][0].cancelled
    asked.request.cancel()
    assert asked.steps["two"][0].cancelled
    asked.answer("two")
    assert asked.steps.keys() == {"two"}
    assert isinstance(asked.answers.responses[0].error, RequestCancelled)


def test_no_step_begins_after_the_deadline() -> None:
    late = Asked(ENSEMBLE)
    late.request.deadline = monotonic_ns()
    late.begin()
    assert not late.steps
    between = Asked(ENSEMBLE)
    between.begin()
    between.request.deadline = monotonic_ns()
    between.answer("two")
    assert between.steps.keys() == {"two"}
    for asked in (late, between):
        assert isinstance(asked.answers.responses[0].error, DeadlineExceeded)
        assert asked.ensemble.statistics.failures["CANCELED"] == 1


def test_where_one_step_fails_the_others_end() -> None:
    after = (
        'step { model_name: "four" input_map { key: "x" value: "SIX" } output_map { key: "y" value: "LAST" } }\n}'
    )
    asked = Asked(ENSEMBLE.rstrip().removesuffix("}") + after)
    asked.begin()
    asked.answer("two")
    asked.answer("one", ModelFailed("no"))
    assert asked.steps["three"][0].cancelled
    asked.answer("three")
    assert "four" not in asked.steps
    assert [str(response.error) for response in asked.answers.responses] == ["no"]


def test_a_configuration_comes_back_from_writing() -> None:
    assert parse(write(parse(ENSEMBLE))) == parse(ENSEMBLE)


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        ('value: "IN"', 'value: "nowhere"', "ensemble_scheduling.step[1].input_map", "nothing makes 'nowhere'"),
        ('value: "IN"', 'value: "SIX"', "ensemble_scheduling.step[0].input_map", "waits for itself"),
        ('value: "IN"', 'value: "TWICE"', "input[0].name", "no step takes 'IN'"),
        ('value: "SIX"', 'value: "five"', "output[1].name", "no step makes 'SIX'"),
        ('value: "SIX"', 'value: "TWICE"', "ensemble_scheduling.step[2].output_map", "made twice"),
        ('"one"', '"both"', "ensemble_scheduling.step[2].model_name", "itself"),
        ('"one"', '""', "ensemble_scheduling.step[2].model_name", "needs a model"),
        ('platform: "ensemble"', 'backend: "onnxruntime"', "ensemble_scheduling", "belongs to platform"),
        (
            "max_batch_size: 4",
            "max_batch_size: 4 instance_group { count: 1 }",
            "ensemble_scheduling",
            "queue of its own",
        ),
    ],
)
def test_every_rule_of_ensembles_is_told(old: str, new: str, field: str, words: str) -> None:
    found = list(faults(parse(ENSEMBLE.replace(old, new))))
    assert any(fault.field == field and words in fault.text for fault in found), found


MODEL = """
name: "NAME" backend: "null" max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 4 } output { name: "y" data_type: TYPE_FP32 dims: -1 }
"""


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        (
            'key: "x" value: "IN"',
            'key: "z" value: "IN"',
            "step[1].input_map",
            "'two' has no input 'z'; it has 'x'",
        ),
        (
            'key: "x" value: "IN"',
            'key: "z" value: "IN"',
            "step[1].input_map",
            "mapped to input 'x' of model 'two'",
        ),
        ('key: "y" value: "SIX"', 'key: "z" value: "SIX"', "step[0].output_map", "'three' has no output 'z'"),
        ("max_batch_size: 4", "max_batch_size: 9", "step[0].model_name", "'three' takes batches of at most 8"),
        ('"two"', '"whole"', "step[1].model_name", "'whole' takes no batches"),
        ('"two"', '"int8"', "step[1].input_map", "'IN' is TYPE_FP32 [-1, 4] in ensemble 'both', but input 'x' is"),
        (
            '"two"',
            '"int8"',
            "step[0].input_map",
            "is TYPE_INT8 [-1, -1] in model 'int8', but input 'x' is TYPE_FP32",
        ),
        ('"two"', '"flat"', "step[1].input_map", "but input 'x' is TYPE_FP32 [-1, 5] in model 'flat'"),
        ('"three"', '"int8"', "output[1]", "'SIX' is TYPE_FP32 [-1, 4] in ensemble 'both', TYPE_INT8 [-1, -1] in"),
        ('"two"', '"circle"', "step[1].model_name", "'both' is itself a part of ensemble 'circle'"),
    ],
)
def test_every_misfit_is_told(old: str, new: str, field: str, words: str) -> None:
    models = {name: parse(MODEL.replace("NAME", name)) for name in ("one", "two", "three")} | {
        "whole": parse(
            MODEL.replace("NAME", "whole").replace("max_batch_size: 8", "").replace("dims: 4", "dims: [ -1, 4 ]")
        ),
        "int8": parse(MODEL.replace("NAME", "int8").replace("FP32", "INT8")),
        "flat": parse(MODEL.replace("NAME", "flat").replace("dims: 4", "dims: 5")),
        "circle": parse(ENSEMBLE.replace('"both"', '"circle"').replace('"one"', '"both"')),
    }

    def found(text: str) -> list[Fault]:
        config = parse(text)
        assert config.ensemble_scheduling is not None
        return list(misfits(config, config.ensemble_scheduling, lambda step: models.get(step.model_name)))

    assert found(ENSEMBLE) == []
    assert found(ENSEMBLE.replace('"three"', '"unknown"')) == []
    told = found(ENSEMBLE.replace(old, new))
    assert any(fault.field.endswith(field) and words in fault.text for fault in told), told


def test_what_fits_only_the_models_there_were_is_not_served(open_: Open, tmp_path: Path) -> None:
    core = open_(control="explicit", startup=["*"])
    onnx_file(tmp_path / "three" / "1" / "model.onnx", 3, batch=2)  # the batch is a dimension like others now
    core.load("three", {})
    assert not core.model_ready("both")
    assert "'three' takes no batches" in str(core.index(False))
    assert "'three' takes no batches" in str(ask(core, "both", {"IN": row(1)}).error)
    onnx_file(tmp_path / "three" / "1" / "model.onnx", 3)
    core.load("three", {})
    assert ask(core, "both", {"IN": row(1)}).error is None


def test_models_that_change_together_are_loaded_in_any_order(open_: Open, tmp_path: Path) -> None:
    def write(largest: int) -> None:
        (tmp_path / "three" / "config.pbtxt").write_text(f"max_batch_size: {largest}")
        (tmp_path / "both" / "config.pbtxt").write_text(
            ENSEMBLE.replace("batch_size: 4", f"batch_size: {largest}")
        )

    write(2)
    core = open_(control="explicit", startup=["*"])
    write(4)
    core.load("both", {})
    assert "'three' takes batches of at most 2" in str(ask(core, "both", {"IN": row(1)}).error)
    core.load("three", {})
    assert ask(core, "both", {"IN": row(1, 4)}).error is None
    write(2)  # what lies there fits not before what is served
    (tmp_path / "both" / "config.pbtxt").write_text(ENSEMBLE)
    core.load("both", {})
    assert ask(core, "both", {"IN": row(1, 4)}).error is None


@pytest.mark.parametrize("config", [None, "", 'backend: "openvino"'])
def test_an_ensemble_that_does_not_fit_its_models_does_not_load(
    open_: Open, tmp_path: Path, config: str | None
) -> None:
    if config is not None:
        (tmp_path / "two" / "config.pbtxt").write_text(config)
    (tmp_path / "both" / "config.pbtxt").write_text(
        ENSEMBLE.replace('key: "x" value: "IN"', 'key: "z" value: "IN"')
    )
    words = r"line 10: ensemble_scheduling\.step\[1\]\.input_map: model 'two' has no input 'z'; it has 'x'"
    with pytest.raises(LoadFailed, match=words):
        open_(control="explicit", startup=["both"])


def test_a_wrong_ensemble_does_not_load(open_: Open, tmp_path: Path) -> None:
    (tmp_path / "both" / "config.pbtxt").write_text(ENSEMBLE.replace('value: "IN"', 'value: "nowhere"'))
    with pytest.raises(LoadFailed, match=r"line 10: ensemble_scheduling\.step\[1\]\.input_map"):
        open_()
