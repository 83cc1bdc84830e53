# SPDX-License-Identifier: Apache-2.0
"""Metrics that models define: who shares them, and what a page shows."""

import pytest

from septet.errors import RequestInvalid
from septet.metrics import page
from septet.serving.registry import Registry, Share


def test_those_who_define_the_same_metric_share_it_until_the_last_is_gone() -> None:
    registry = Registry()
    first, second = Share(registry), Share(registry)
    for share in (first, second):
        share.hold(0, "seen", "counter", "What was\nseen", {"model": 'a"b'}, ())
        share.update(0, 2, add=True)
    first.hold(1, "depth", "gauge", "Depth", {}, ())
    first.update(1, 7, add=False)
    first.update(1, -3, add=True)
    assert (second.read(0), first.read(1)) == (4, 4)
    assert page(registry.families()).splitlines() == [
        "# HELP seen What was\\nseen",
        "# TYPE seen counter",
        'seen{model="a\\"b"} 4',
        "# HELP depth Depth",
        "# TYPE depth gauge",
        "depth 4",
    ]
    first.close()
    assert "seen" in page(registry.families())
    assert "depth" not in page(registry.families())
    second.close()
    assert page(registry.families()) == ""


def test_labels_tell_values_apart_whatever_their_order() -> None:
    registry = Registry()
    share = Share(registry)
    for number, labels in enumerate(({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, {"a": "2"})):
        share.hold(number, "seen", "counter", "", labels, ())
        share.update(number, 1, add=True)
    assert [share.read(number) for number in range(3)] == [2, 2, 1]


def test_a_histogram_counts_what_it_observes() -> None:
    registry = Registry()
    share = Share(registry)
    share.hold(0, "size", "histogram", "", {}, (1, 10))
    for value in (1, 5, 50):
        share.update(0, value, add=True)
    assert page(registry.families()).splitlines()[2:] == [
        'size_bucket{le="1"} 1',
        'size_bucket{le="10"} 2',
        'size_bucket{le="+Inf"} 3',
        "size_sum 56",
        "size_count 3",
    ]


def test_a_name_has_one_kind_and_is_not_the_servers() -> None:
    share = Share(Registry())
    share.hold(0, "seen", "counter", "", {}, ())
    with pytest.raises(RequestInvalid, match="is a counter already"):
        share.hold(1, "seen", "gauge", "", {}, ())
    with pytest.raises(RequestInvalid, match="the server's own"):
        share.hold(2, "nv_inference_count", "counter", "", {}, ())
    share.update(2, 1, add=True)
    assert share.read(2) == 0
    share.close()
