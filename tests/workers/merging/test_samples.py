"""Samples of several workers for the dashboard."""

from __future__ import annotations

from typing import Any

from tests.support.samples import snapshot

from pyryrelay.admin.dashboard.samples import difference
from pyryrelay.workers.merging.samples import merge_samples, resting


def sample(**changes: Any) -> dict[str, Any]:
    """Return a sample of a worker."""
    before, after = snapshot(0), snapshot(1)
    return {**difference(before, after, 1.7e9, "running"), "decided": 4, **changes}


def merged(*samples: dict[str, Any]) -> dict[str, Any]:
    """Merge."""
    return merge_samples(samples, 1_700_000_000.04, "running", {"room": ["kept_bytes"]})


def test_the_keys_are_those_of_one_process() -> None:
    """The page shows the sample of several workers as that of one."""
    assert list(merged(sample(), sample())) == list(difference(snapshot(0), snapshot(1), 0.0, "running"))


def test_one_worker_is_its_own_sum() -> None:
    """Merging one sample changes nothing."""
    expected = sample()
    del expected["decided"]
    assert merged(sample()) == expected


def test_sums_and_maxima() -> None:
    """Events and gauges are added up; of delays, and of what workers have in common, the largest counts."""
    one, other = sample(lag_s=0.2, decision_s=1.0), sample(jailed=9, decision_s=4.0, decided=8)
    found = merged(one, other)
    assert found["connections"] == {"client": 4}
    assert found["admitted"] == {"client": 4}
    assert found["messages"] == [20, 40]
    assert (found["lag_s"], found["decision_s"], found["jailed"]) == (0.2, 3.0, 9)
    assert found["memory_bytes"] == 2 * one["memory_bytes"]
    assert found["cpu"] == 2 * one["cpu"]
    assert found["protocols"]["room"] == {"visitors": 4, "visits_total": 2, "kept_bytes": 1_000}


def test_a_resting_worker() -> None:
    """It counts with its connections and its memory, and nothing happens in it."""
    found = merged(resting(sample()))
    assert (found["connections"], found["admitted"], found["messages"]) == ({"client": 2}, {}, [0, 0])
    assert (found["cpu"], found["lag_s"], found["decision_s"]) == (0.0, 0.0, None)
    assert found["protocols"]["room"] == {"visitors": 2, "kept_bytes": 1_000}


def test_no_worker() -> None:
    """A second without workers is a second without anything."""
    found = merged()
    assert (found["elapsed_s"], found["connections"], found["memory_bytes"]) == (1.0, {}, 0)
