# SPDX-License-Identifier: Apache-2.0
"""A trained SSD-MobileNet-v1, quantised for TensorFlow Lite, on real photos, through the workload's own code."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino.frontend import FrontEndManager

from septet.pipelines.image import decode
from septet.tensor import Array
from septet.workloads.boxes import decode as decode_boxes
from septet.workloads.boxes import overlaps
from septet.workloads.mobilenet import SSD_MOBILENET
from septet.workloads.ssd_mobilenet import net_of

SHARED = Path(__file__).parents[4] / "shared" / "data"
MODEL = SHARED / "ssd_mobilenet_v1" / "ssd_mobilenet_v1_1_metadata_1.tflite"
PHOTOS = SHARED / "photos"
NET = net_of(SSD_MOBILENET)
PERSON, DOG, KITE = 1, 18, 38

pytestmark = pytest.mark.skipif(
    not (MODEL.is_file() and PHOTOS.is_dir()), reason=f"needs {MODEL.name} and photos, which are not here"
)


@cache
def network() -> Any:
    """The network up to its own suppression, which OpenVINO does not know: codes, scores and its own priors."""
    front = FrontEndManager().load_by_framework("tflite")
    model = front.convert_partially(front.load(str(MODEL)))
    unknown = next(node for node in model.get_ops() if node.get_type_name() == "TFFrameworkNode")
    *tapped, priors = (port.get_source_output() for port in unknown.inputs())
    cut = ov.Model([*(before_rounding(port) for port in tapped), priors], model.get_parameters())
    return ov.Core().compile_model(cut, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def before_rounding(port: Any) -> Any:
    """The output that is rounded to `port`'s 256 levels."""
    while port.get_node().get_type_name() in ("Convert", "FakeQuantize"):
        port = port.get_node().input(0).get_source_output()
    return port


@cache
def seen(name: str) -> tuple[Array, Array, Array]:
    """Codes [priors, 4], scores [priors, classes] and the file's own priors [priors, 4] of one photo."""
    levels = np.round(NET.prepare(decode(PHOTOS / name)) * 127.5 + 127.5).astype(np.uint8)
    codes, scores, priors = (np.array(array) for array in network()(levels.transpose(1, 2, 0)[None]).values())
    return codes[0], scores[0], priors


def found(name: str, least: float) -> list[tuple[int, list[float]]]:
    codes, scores, _ = seen(name)
    boxes, sure, classes = NET.choose(scores, codes, NET.priors)
    parts = zip(classes.tolist(), sure.tolist(), boxes.tolist(), strict=True)
    return [(category, box) for category, score, box in parts if score >= least]


def test_our_priors_are_those_in_the_file() -> None:
    _, _, priors = seen("image1.jpg")
    assert priors == pytest.approx(NET.priors, abs=0.005)  # the file's have 256 levels


def test_two_dogs_are_found_side_by_side() -> None:
    dogs = sorted((box for category, box in found("image1.jpg", 0.6) if category == DOG), key=lambda box: box[1])
    assert len(dogs) == 2
    assert dogs[0] == pytest.approx([0.02, 0.01, 0.87, 0.34], abs=0.05)
    assert dogs[1] == pytest.approx([0.08, 0.33, 0.97, 0.98], abs=0.05)


def test_kites_are_found_above_people_on_the_beach() -> None:
    things = found("image2.jpg", 0.5)
    assert {category for category, _ in things} == {PERSON, KITE}
    kites = [box for category, box in things if category == KITE]
    people = [box for category, box in things if category == PERSON]
    assert len(kites) >= 4
    assert len(people) >= 4
    assert np.mean(kites, axis=0)[0] < np.mean(people, axis=0)[0]


def test_people_are_found_in_the_street() -> None:
    assert PERSON in {category for category, _ in found("image3.jpg", 0.5)}


@pytest.mark.parametrize("name", ["image1.jpg", "image2.jpg", "image3.jpg"])
def test_our_choice_is_that_of_a_plain_loop_on_the_files_own_priors(name: str) -> None:
    codes, scores, priors = seen(name)
    wanted: list[tuple[int, float, Array]] = []
    for place, category in sorted(zip(*np.nonzero(scores > 0.2), strict=True), key=lambda at: -scores[at]):
        (box,) = decode_boxes(codes[place : place + 1], priors[place : place + 1]).clip(0, 1)
        mine = [other for number, _, other in wanted if number == category]
        if category and all(overlaps(box[None], other[None])[0, 0] <= 0.6 for other in mine):
            wanted.append((int(category), float(scores[place, category]), box))
    ours = found(name, 0.2)
    agreed = [
        any(number == category and np.abs(box - mine).max() < 0.02 for number, _, box in wanted)
        for category, mine in ours
    ]
    # rounding moves the file's priors by half a percent, and so a few boxes over the limit of overlap
    assert np.mean(agreed) > 0.9
    assert len(ours) == pytest.approx(min(len(wanted), 100), rel=0.15)
