# SPDX-License-Identifier: Apache-2.0
"""``pb_utils``: metrics that a model defines, and that the server shows beside its own."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from math import isnan

from septet.serving.process.channel import ChannelClosed
from septet.serving.process.messages import NewMetric, Update
from septet.serving.process.requests import HOST
from septet.serving.process.tensors import TritonModelException

_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_NUMBERS = itertools.count()


class Metric:
    """One value of a family. `MetricFamily.Metric` makes them."""

    def __init__(self, family: MetricFamily, labels: Mapping[str, str], buckets: Sequence[float]) -> None:
        self._kind = family.kind
        self._number = next(_NUMBERS)
        new = NewMetric(
            -1, self._number, family.name, family.kind, family.description, dict(labels), list(buckets)
        )
        try:
            error = HOST[0].caller.define(new)
        except ChannelClosed as closed:
            raise TritonModelException("the server is gone") from closed
        if error:
            raise TritonModelException(error)

    def increment(self, value: float) -> None:
        """Add `value`, which for a counter is 0 or more. Raises TritonModelException."""
        self._require("increment", MetricFamily.COUNTER, MetricFamily.GAUGE)
        if self._kind == MetricFamily.COUNTER and not value >= 0:
            raise TritonModelException(f"a counter cannot be incremented by {value}")
        self._update(value, add=True)

    def set(self, value: float) -> None:
        """Set a gauge. Raises TritonModelException for any other kind."""
        self._require("set", MetricFamily.GAUGE)
        self._update(value, add=False)

    def observe(self, value: float) -> None:
        """Count `value` in a histogram. Raises TritonModelException for any other kind."""
        self._require("observe", MetricFamily.HISTOGRAM)
        self._update(value, add=True)

    def value(self) -> float:
        """What the server shows now, of all who share the metric. Raises TritonModelException for a histogram."""
        self._require("value", MetricFamily.COUNTER, MetricFamily.GAUGE)
        return HOST[0].caller.metric(self._number)

    def _require(self, what: str, *kinds: str) -> None:
        if self._kind not in kinds:
            raise TritonModelException(f"a {self._kind} has no {what}")

    def _update(self, value: float, *, add: bool) -> None:
        try:
            HOST[0].caller.send(Update(self._number, float(value), add))
        except ChannelClosed as error:
            raise TritonModelException("the server is gone") from error


class MetricFamily:
    """Metrics of one name and one kind, which differ by their labels. Raises TritonModelException."""

    COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

    def __init__(self, name: str, description: str, kind: str) -> None:
        if kind not in (self.COUNTER, self.GAUGE, self.HISTOGRAM):
            raise TritonModelException(f"there is no kind of metric {kind!r}")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise TritonModelException(f"{name!r} cannot be the name of a metric")
        self.name, self.description, self.kind = name, str(description), kind

    def Metric(  # noqa: N802 (Triton's name)
        self, labels: Mapping[str, str] | None = None, buckets: Sequence[float] | None = None
    ) -> Metric:
        """The metric of these `labels`; a histogram needs `buckets`, its bounds in ascending order."""
        labels, buckets = labels or {}, buckets or ()
        for name, value in labels.items():
            if not (isinstance(name, str) and _LABEL.fullmatch(name) and isinstance(value, str)):
                raise TritonModelException(f"{name!r}: {value!r} cannot be a label: both must be text")
        ascending = all(low < high for low, high in itertools.pairwise(buckets)) and not any(map(isnan, buckets))
        if (self.kind == self.HISTOGRAM) != bool(buckets) or not ascending:
            raise TritonModelException("a histogram, and nothing else, needs buckets, in ascending order")
        return Metric(self, labels, buckets)
