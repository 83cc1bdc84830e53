# SPDX-License-Identifier: Apache-2.0
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from septet.tensor import Array
from septet.workloads import mobilenet, resnet34, ssd_mobilenet, ssd_resnet34
from septet.workloads.ssd import Net
from septet.workloads.suppression import Suppression

CHOICES = {"mobilenet": ssd_mobilenet.CHOOSE, "resnet34": ssd_resnet34.CHOOSE}
NETS = {
    "mobilenet": ssd_mobilenet.net_of(mobilenet.SSD_MOBILENET),
    "resnet34": ssd_resnet34.net_of(resnet34.SSD_RESNET34),
}


def overlap(one: list[float], other: list[float]) -> float:
    height = min(one[2], other[2]) - max(one[0], other[0])
    width = min(one[3], other[3]) - max(one[1], other[1])
    inner = max(height, 0) * max(width, 0)
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return inner / max(sum(area) - inner, 1e-12)


def box_of(code: list[float], prior: list[float], clip: bool) -> list[float]:
    middle = [prior[axis] + 0.1 * code[axis] * prior[axis + 2] for axis in (0, 1)]
    half = [prior[axis] * np.exp(0.2 * code[axis]) / 2 for axis in (2, 3)]
    box = [middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]]
    return [min(max(edge, 0.0), 1.0) for edge in box] if clip else box


def slowly(rule: Suppression, scores: Array, codes: Array, priors: Array) -> list[tuple[float, int, int]]:
    """Class by class, one box after the other: score, class and prior of what stays."""
    boxes = [box_of(code, prior, rule.clip) for code, prior in zip(codes.tolist(), priors.tolist(), strict=True)]
    kept: list[tuple[float, int, int]] = []
    for category in range(1, scores.shape[1]):
        candidates = [place for place in range(len(scores)) if scores[place, category] > rule.floor]
        if rule.clip:
            candidates = [at for at in candidates if boxes[at][2] > boxes[at][0] and boxes[at][3] > boxes[at][1]]
        candidates.sort(key=lambda place: (-scores[place, category], place))
        mine: list[int] = []
        for place in candidates[: rule.per_class]:
            if all(overlap(boxes[place], boxes[other]) < rule.overlap for other in mine):
                mine.append(place)
        kept += [(float(scores[place, category]), category, place) for place in mine]
    kept.sort(key=lambda one: (-one[0], one[2] * scores.shape[1] + one[1]))
    return kept[: rule.total]


@settings(deadline=None, max_examples=60)
@given(
    priors=st.integers(1, 60),
    classes=st.integers(2, 5),
    floor=st.sampled_from([1e-8, 0.05, 0.3]),
    limit=st.sampled_from([0.3, 0.5, 0.6]),
    per_class=st.sampled_from([None, 3, 20]),
    total=st.sampled_from([1, 5, 40, 200]),
    clip=st.booleans(),
    coarse=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_fast_is_slow(
    priors: int,
    classes: int,
    floor: float,
    limit: float,
    per_class: int | None,
    total: int,
    clip: bool,
    coarse: bool,
    seed: int,
) -> None:
    draw = np.random.default_rng(seed)
    rule = Suppression(floor, limit, per_class, total, clip)
    scores = (draw.random((priors, classes)) ** 3).astype(np.float32)
    if coarse:  # many scores alike
        scores = np.round(scores, 1)
    codes = draw.normal(0, 2, (priors, 4)).astype(np.float32)
    places = np.column_stack([draw.uniform(-0.1, 1.1, (priors, 2)), draw.uniform(0.05, 0.8, (priors, 2))])
    wanted = slowly(rule, scores, codes, places.astype(np.float32))
    boxes, seen, numbers = rule(scores, codes, places.astype(np.float32))
    assert seen.tolist() == [score for score, _, _ in wanted]
    assert numbers.tolist() == [number for _, number, _ in wanted]
    for box, (_, _, place) in zip(boxes, wanted, strict=True):
        assert box == pytest.approx(box_of(codes[place].tolist(), places[place].tolist(), clip), abs=1e-5)


def outputs(net: Net, seed: int) -> tuple[Array, Array]:
    """Scores and codes as a trained network's: few things, each seen by many priors, and a long tail."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(-8.7, 2.0, (len(net.priors), net.classes)).astype(np.float32)
    for _ in range(12):
        near = np.abs(net.priors[:, :2] - draw.random(2)).max(axis=1) < 0.1
        logits[near, draw.integers(1, net.classes)] = draw.normal(0, 2, int(near.sum()))
    return 1 / (1 + np.exp(-logits)), draw.normal(0, 1, (len(net.priors), 4)).astype(np.float32)


@pytest.mark.parametrize("name", list(NETS))
@pytest.mark.parametrize("seed", range(3))
def test_full_size_answers_are_those_of_the_slow_loop(name: str, seed: int) -> None:
    net, rule = NETS[name], CHOICES[name]
    scores, codes = outputs(net, seed)
    scores = scores[:, :9]  # nine classes are enough for the slow loop
    scores[scores < 0.01] = 0
    wanted = slowly(rule, scores, codes, net.priors)
    _, seen, numbers = rule(scores, codes, net.priors)
    assert seen.tolist() == [score for score, _, _ in wanted]
    assert numbers.tolist() == [number for _, number, _ in wanted]


def test_limits_and_floors_are_those_of_each_reference() -> None:
    """Two boxes whose overlap is exactly 0.6, then exactly 0.5."""
    priors = np.array([[0.5, 0.5, 0.5, 1.0], [0.5, 0.5, 0.5, 1.0]], np.float32)
    scores = np.array([[0, 0.9], [0, 0.8]], np.float32)
    for rule, share, stay in ((CHOICES["mobilenet"], 0.6, 2), (CHOICES["resnet34"], 0.5, 1)):
        narrow = priors * np.array([[1, 1, 1, 1], [1, 1, share, 1]], np.float32)
        assert len(rule(scores, np.zeros((2, 4), np.float32), narrow)[0]) == stay


def test_nothing_above_the_floor_is_no_box() -> None:
    net = NETS["resnet34"]
    scores = np.zeros((len(net.priors), net.classes), np.float32)
    scores[:, 0] = 1
    boxes, seen, numbers = net.choose(scores, np.zeros((len(net.priors), 4), np.float32), net.priors)
    assert (boxes.shape, seen.shape, numbers.shape) == ((0, 4), (0,), (0,))


@pytest.mark.parametrize(("name", "limit"), [("mobilenet", 0.03), ("resnet34", 0.1)])
def test_it_takes_milliseconds(name: str, limit: float) -> None:
    net = NETS[name]
    made = [outputs(net, seed) for seed in range(3)]
    spent = []
    for scores, codes in made * 3:
        start = perf_counter()
        boxes, _, _ = net.choose(scores, codes, net.priors)
        spent.append(perf_counter() - start)
        assert len(boxes) > 50
    assert min(spent) < limit
