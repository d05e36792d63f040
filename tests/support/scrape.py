"""One scrape of ``/metrics`` as a mapping."""

from __future__ import annotations

from typing import TypeAlias

from prometheus_client.parser import text_string_to_metric_families

Samples: TypeAlias = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""The value of each sample by its name and its labels, which are sorted."""


def samples_of(text: str) -> Samples:
    """Return the samples of one scrape, and check that none of them is repeated."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    samples = {key(sample.name, sample.labels): sample.value for sample in found}
    assert len(samples) == len(found)
    return samples


def key(name: str, labels: dict[str, str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return the key of a sample."""
    return name, tuple(sorted(labels.items()))
