# SPDX-License-Identifier: Apache-2.0
"""Train SSD-MobileNet-v1's miniature on box scenes: ``make train NETWORK=ssd-mobilenet``."""

from __future__ import annotations

from detector import Recipe, each, run
from septet.workloads import mobilenet
from septet.workloads.mobilenet import SSD_MOBILENET_MINI
from septet.workloads.scenes import CATEGORIES
from septet.workloads.ssd_mobilenet import SsdMobileNet, net_of

RECIPE = Recipe(
    network=SSD_MOBILENET_MINI,
    graph=mobilenet,
    net=net_of(SSD_MOBILENET_MINI),
    workload=SsdMobileNet,
    numbers={number: number for number in CATEGORIES},
    loss=each,
    prior=-2.0,
    rate=6e-3,
    batch=16,
    steps=4_500,
)

if __name__ == "__main__":
    run(RECIPE, __doc__)
