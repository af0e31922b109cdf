"""The page that Prometheus reads, in its text format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from waypost.telemetry.counters import Key
from waypost.telemetry.table import METRICS, Metric

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class _Page(Collector):
    def __init__(self, numbers: Mapping[Key, Sequence[float]]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Family]:
        by_name: dict[str, list[tuple[tuple[str, ...], Sequence[float]]]] = {}
        for (name, labels), values in sorted(self._numbers.items()):
            by_name.setdefault(name, []).append((labels, values))
        for metric in METRICS:
            yield _family(metric, by_name.get(metric.name, ()))


def _family(metric: Metric, series: Iterable[tuple[tuple[str, ...], Sequence[float]]]) -> Family:
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.what, labels=metric.labels)
        bounds = [*(f"{bound}" for bound in metric.buckets), "+Inf"]
        for labels, (*counts, total) in series:
            reached = list(accumulate(counts))
            histogram.add_metric(labels, list(zip(bounds, reached, strict=True)), total)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name.removesuffix("_total"), metric.what, labels=metric.labels)
    for labels, (value,) in series:
        family.add_metric(labels, value)
    return family


def render(numbers: Mapping[Key, Sequence[float]]) -> bytes:
    """Return the page of some numbers: every metric with its help and its type.

    Creation times (``_created``) are left out: Prometheus does not need them, and each would be a
    series.
    """
    return generate_latest(_Page(numbers))
