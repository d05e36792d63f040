"""The expositions of several workers as one: what Prometheus reads from it is what it would read from each."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import CounterMetricFamily, GaugeHistogramMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from tests.support.scrape import key, samples_of

from pyryrelay.metric_families import buckets, counters, gauge, histogram
from pyryrelay.observe.metrics import exposition
from pyryrelay.workers.merging.expositions import merge_expositions

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
NAMES = st.sampled_from(["a", "a_b", "connections", "worker_restarts"])
VALUES = st.floats(allow_nan=False)


class Fixed(Collector):
    """Shows families that a test has made."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        """Return them."""
        return self._families


def text_of(*families: Metric) -> str:
    """Return an exposition."""
    return exposition([Fixed(families)])().decode()


@st.composite
def expositions(draw: st.DrawFn) -> str:
    """Draw an exposition with gauges, counters and histograms, with and without labels."""
    families: list[Metric] = []
    for name in draw(st.lists(NAMES, unique=True)):
        text = draw(TEXTS)
        match draw(st.sampled_from(["gauge", "labelled", "counter", "histogram", "gaugehistogram"])):
            case "gauge":
                families.append(gauge(f"g_{name}", text, draw(VALUES)))
            case "labelled":
                family = GaugeMetricFamily(f"l_{name}", text, labels=["kind", "source"])
                for labels in draw(st.lists(st.tuples(TEXTS, TEXTS), unique=True, max_size=3)):
                    family.add_metric(labels, draw(VALUES))
                families.append(family)
            case "counter":
                values = draw(st.dictionaries(TEXTS, st.integers(0, 10**9), max_size=3))
                families.append(counters(f"c_{name}", text, "reason", values))
            case "histogram":
                counts = draw(st.lists(st.integers(0, 9), min_size=3, max_size=3))
                families.append(histogram(f"h_{name}", text, [0.1, 1], counts, draw(VALUES)))
            case _:
                pairs = buckets([1, 2], draw(st.lists(st.integers(0, 9), min_size=3, max_size=3)))
                families.append(GaugeHistogramMetricFamily(f"x_{name}", text, buckets=pairs, gsum_value=draw(VALUES)))
    return text_of(*families)


@given(st.dictionaries(st.integers(0, 40), expositions(), max_size=4), expositions())
def test_every_sample_is_there_once_with_the_label_of_its_worker(workers: dict[int, str], own: str) -> None:
    """Nothing is lost or changed, and nothing is added but the label."""
    expected = dict(samples_of(own))
    for index, text in workers.items():
        for (name, labels), value in samples_of(text).items():
            expected[key(name, dict(labels) | {"worker": str(index)})] = value
    assert samples_of(merge_expositions(workers, own)) == expected


@given(st.dictionaries(st.integers(0, 40), expositions(), max_size=4), expositions())
def test_every_family_is_described_once(workers: dict[int, str], own: str) -> None:
    """``HELP`` and ``TYPE`` stand once, before all samples of the family."""
    merged = merge_expositions(workers, own)
    for kind in ("# HELP ", "# TYPE "):
        names = [line.split(" ")[2] for line in merged.split("\n") if line.startswith(kind)]
        assert len(names) == len({*names})
    families = [family.name for family in text_string_to_metric_families(merged)]
    assert len(families) == len({*families})


@given(expositions())
def test_the_order_of_workers_in_the_mapping_does_not_matter(text: str) -> None:
    """Samples are sorted by the index."""
    assert merge_expositions({10: text, 2: text}) == merge_expositions({2: text, 10: text})


def test_the_text() -> None:
    """The label comes first, the supervisor's own samples have none, and help is that of the first."""
    family = CounterMetricFamily("refusals", "Refused.", labels=["reason"])
    family.add_metric(["a } b"], 1)
    text = text_of(gauge("up", "Up.", 2), family)
    assert merge_expositions({1: text, 0: text}, text_of(gauge("workers", "Workers.", 2))) == (
        "# HELP workers Workers.\n# TYPE workers gauge\nworkers 2.0\n"
        '# HELP up Up.\n# TYPE up gauge\nup{worker="0"} 2.0\nup{worker="1"} 2.0\n'
        "# HELP refusals_total Refused.\n# TYPE refusals_total counter\n"
        'refusals_total{worker="0",reason="a } b"} 1.0\nrefusals_total{worker="1",reason="a } b"} 1.0\n'
    )


def test_samples_with_empty_labels() -> None:
    """The format allows empty braces, and blanks behind a comma."""
    assert merge_expositions({3: "a{} 1\nb 2 1700000000000\n"}) == 'a{worker="3"} 1\nb{worker="3"} 2 1700000000000\n'


def test_nothing() -> None:
    """No worker and no figure of its own: an empty exposition."""
    assert merge_expositions({}) == ""
