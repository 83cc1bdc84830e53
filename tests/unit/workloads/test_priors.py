# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from septet.workloads.mobilenet import SSD_MOBILENET
from septet.workloads.priors import mobilenet_priors, resnet34_priors
from septet.workloads.resnet34 import SSD_RESNET34


def test_mobilenet_has_1917() -> None:
    assert SSD_MOBILENET.maps() == [19, 10, 5, 3, 2, 1]
    priors = mobilenet_priors(SSD_MOBILENET.maps())
    assert (priors.shape, priors.dtype) == ((1_917, 4), np.dtype(np.float32))


def test_mobilenet_goes_place_by_place() -> None:
    priors = mobilenet_priors(SSD_MOBILENET.maps())
    wide, tall = 0.2 * 2**0.5, 0.2 / 2**0.5
    assert priors[:3] == pytest.approx(
        np.array([[1 / 38, 1 / 38, 0.1, 0.1], [1 / 38, 1 / 38, tall, wide], [1 / 38, 1 / 38, wide, tall]])
    )
    assert priors[3, :2] == pytest.approx([1 / 38, 3 / 38])  # y, x: the next column of the first row
    second = priors[19 * 19 * 3 :]
    assert second[0] == pytest.approx([0.05, 0.05, 0.35, 0.35])
    assert second[3, 2:] == pytest.approx([0.35 / 3**0.5, 0.35 * 3**0.5])
    assert second[4, 2:] == pytest.approx([0.35 / 0.3333**0.5, 0.35 * 0.3333**0.5])
    assert second[5, 2:] == pytest.approx([(0.35 * 0.5) ** 0.5] * 2)
    assert priors[-1] == pytest.approx([0.5, 0.5, 0.95**0.5, 0.95**0.5])


def test_resnet34_has_15130() -> None:
    assert SSD_RESNET34.maps() == [50, 25, 13, 7, 3, 3]
    assert SSD_RESNET34.priors() == [4, 6, 6, 6, 4, 4]
    priors = resnet34_priors(SSD_RESNET34.maps(), SSD_RESNET34.aspects, SSD_RESNET34.scales)
    assert (priors.shape, priors.dtype) == ((15_130, 4), np.dtype(np.float32))
    assert priors.max() <= 1


def test_resnet34_goes_shape_by_shape() -> None:
    priors = resnet34_priors(SSD_RESNET34.maps(), SSD_RESNET34.aspects, SSD_RESNET34.scales)
    assert priors[0] == pytest.approx([0.01, 0.01, 84 / 1200, 84 / 1200])
    assert priors[1] == pytest.approx([0.03, 0.01, 84 / 1200, 84 / 1200])  # x, y: the next column
    shapes = priors[: 4 * 2_500 : 2_500, 2:]
    between = (84 * 180) ** 0.5 / 1200
    long, short = 84 / 1200 * 2**0.5, 84 / 1200 / 2**0.5
    assert shapes == pytest.approx(np.array([[84 / 1200] * 2, [between] * 2, [long, short], [short, long]]))
    assert priors[-1, :2] == pytest.approx([5 / 6, 5 / 6])
