# SPDX-License-Identifier: Apache-2.0
from septet.metrics import LATENCIES, Family, Histogram, page


def test_values_stand_by_their_labels() -> None:
    family = Family("hits", "counter", "How often", [({"model": "a"}, 3), ({"model": 'b"\\\n'}, 0.5)])
    assert page([family]).splitlines() == [
        "# HELP hits How often",
        "# TYPE hits counter",
        'hits{model="a"} 3',
        'hits{model="b\\"\\\\\\n"} 0.5',
    ]


def test_a_histogram_counts_up_to_each_bound() -> None:
    histogram = Histogram((1, 10))
    for value in (0.5, 1, 5, 10, 11):
        histogram.observe(value)
    assert page([Family("took", "histogram", "Time", [({}, histogram)])]).splitlines()[2:] == [
        'took_bucket{le="1"} 2',
        'took_bucket{le="10"} 4',
        'took_bucket{le="+Inf"} 5',
        "took_sum 27.50".rstrip("0"),
        "took_count 5",
    ]


def test_latencies_cover_ten_microseconds_to_fifty_seconds() -> None:
    assert (LATENCIES[0], LATENCIES[-1]) == (10, 50_000_000)
    assert list(LATENCIES) == sorted(set(LATENCIES))
