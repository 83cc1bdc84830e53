# SPDX-License-Identifier: Apache-2.0
"""Train SSD-ResNet-34's miniature on box scenes: ``make train NETWORK=ssd-resnet34``."""

from __future__ import annotations

from detector import Recipe, either, run
from septet.workloads import resnet34
from septet.workloads.resnet34 import SSD_RESNET34_MINI
from septet.workloads.scenes import CATEGORIES
from septet.workloads.ssd_resnet34 import SsdResNet34, net_of

RECIPE = Recipe(
    network=SSD_RESNET34_MINI,
    graph=resnet34,
    net=net_of(SSD_RESNET34_MINI),
    workload=SsdResNet34,
    numbers={number: place for place, number in enumerate(CATEGORIES, 1)},
    loss=either,
    prior=0.0,
    rate=3e-3,
    batch=32,
    steps=800,
)

if __name__ == "__main__":
    run(RECIPE, __doc__)
