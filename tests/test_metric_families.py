"""Metric families of one or a few samples, as the Prometheus text format shows them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from tests.support.scrape import samples_of

from pyryrelay.metric_families import counter, counters, gauge, histogram
from pyryrelay.observe.metrics import exposition


class Families(Collector):
    """A collector of fixed families."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def scrape(*families: Metric) -> str:
    """Return these families in the text format."""
    return exposition([Families(*families)])().decode()


@pytest.mark.parametrize("value", [0, 7, 0.5])
def test_a_gauge_is_one_sample(value: float) -> None:
    """A gauge has its name, type, help and value, and no labels."""
    text = scrape(gauge("open_files", "Open files.", value))
    assert text.splitlines() == [
        "# HELP open_files Open files.",
        "# TYPE open_files gauge",
        f"open_files {float(value)}",
    ]


def test_a_counter_is_one_total() -> None:
    """The sample of a counter has the suffix that the format demands."""
    assert samples_of(scrape(counter("requests", "Requests.", 3))) == {("requests_total", ()): 3}


def test_counters_have_a_sample_for_each_value() -> None:
    """Each value of the label has its sample, those at 0 included, in the order given."""
    family = counters("requests", "Requests.", "kind", {"short": 2, "long": 0})
    assert [sample.labels["kind"] for sample in family.samples] == ["short", "long"]
    assert samples_of(scrape(family)) == {
        ("requests_total", (("kind", "short"),)): 2,
        ("requests_total", (("kind", "long"),)): 0,
    }


def test_no_values_are_no_samples() -> None:
    """A counter whose label has no values yet is a family without samples."""
    assert samples_of(scrape(counters("requests", "Requests.", "kind", {}))) == {}


def test_a_histogram_counts_up_to_each_bound() -> None:
    """Each bucket of a histogram holds the values of those before it, and the last one all of them."""
    samples = samples_of(scrape(histogram("wait_seconds", "Waits.", (0.5, 2), [1, 0, 3], 12.5)))
    assert {name + labels[0][1] if labels else name: value for (name, labels), value in samples.items()} == {
        "wait_seconds_bucket0.5": 1,
        "wait_seconds_bucket2.0": 1,
        "wait_seconds_bucket+Inf": 4,
        "wait_seconds_count": 4,
        "wait_seconds_sum": 12.5,
    }
