"""Make metric families of one or a few samples, for the collectors of rooms and protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric


def gauge(name: str, text: str, value: float) -> Metric:
    """Return a gauge without labels."""
    family = GaugeMetricFamily(name, text)
    family.add_metric([], value)
    return family


def counter(name: str, text: str, value: float) -> Metric:
    """Return a counter without labels."""
    family = CounterMetricFamily(name, text)
    family.add_metric([], value)
    return family


def counters(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    """Return a counter with one label, and a sample for each of its values."""
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Return the buckets of a histogram. ``counts`` has one place more than ``bounds``, for values above all."""
    return list(zip([*(str(float(bound)) for bound in bounds), "+Inf"], accumulate(counts), strict=True))


def histogram(name: str, text: str, bounds: Sequence[float], counts: Sequence[int], total: float) -> Metric:
    """Return a histogram without labels; ``total`` is the sum of all values."""
    return HistogramMetricFamily(name, text, buckets=buckets(bounds, counts), sum_value=total)
