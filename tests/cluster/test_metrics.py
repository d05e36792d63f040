"""The metrics of a cluster."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.support.broadcasts import NotingListener
from twisted.internet.testing import MemoryReactorClock

from pyryrelay.cluster.membership import Membership
from pyryrelay.cluster.metrics import ClusterCollector
from pyryrelay.guard import Gate
from pyryrelay.mounts import Settings


def membership() -> Membership:
    """Return a member that is not started."""
    settings = Settings(cluster=("redis://a", "redis://b"), cluster_secret_file="-")
    reactor: Any = MemoryReactorClock()
    return Membership(settings, b"x" * 20, Path("/"), reactor, time.monotonic, time.time, print)


def samples(member: Membership) -> dict[tuple[str, str], float]:
    """Return all samples, by name and shard."""
    found = {}
    for family in ClusterCollector(member).collect():
        for sample in family.samples:
            found[sample.name, sample.labels.get("shard", "")] = sample.value
    return found


def test_each_server_and_each_exchange_has_its_figures() -> None:
    """Every name exists from the first scrape."""
    member = membership()
    assert "pyryrelay_cluster_charged_keys_total" not in {name for name, _ in samples(member)}
    member.join(Gate(None, member.wake))
    first = samples(member)
    assert first["pyryrelay_cluster_up", "0"] == first["pyryrelay_cluster_up", "1"] == 0.0
    assert first["pyryrelay_cluster_members", ""] == 1
    figures = member.shards.clients[1].figures
    figures.answered(0.3)
    figures.outages, figures.refused, figures.skew_s = 2, 3, -1.5
    assert member.quotas is not None
    member.quotas.dropped = 7
    member.members.is_secret_shared = False
    after = samples(member)
    assert after["pyryrelay_cluster_call_seconds_sum", "1"] == 0.3
    assert after["pyryrelay_cluster_call_seconds_count", "1"] == 1
    assert after["pyryrelay_cluster_outages_total", "1"] == 2
    assert after["pyryrelay_cluster_refused_calls_total", "1"] == 3
    assert after["pyryrelay_cluster_clock_skew_seconds", "1"] == -1.5
    assert after["pyryrelay_cluster_dropped_tokens_total", ""] == 7
    assert after["pyryrelay_cluster_secret_conflict", ""] == 1.0
    assert after["pyryrelay_cluster_outages_total", "0"] == 0


def test_what_relays_tell_is_counted_by_server() -> None:
    """All subjects together, from the first scrape on; without one that follows, nothing is behind."""
    member = membership()
    member.join(Gate(None, member.wake))
    assert samples(member)["pyryrelay_cluster_broadcast_missed_total", "1"] == 0
    for subject in ("one", "two"):
        figures = member.broadcasts.of(subject).streams[1].figures
        figures.added, figures.failed, figures.read, figures.unreadable, figures.missed, figures.begun_anew = range(
            1, 7
        )
    after = samples(member)
    names = ("added", "failed", "read", "unreadable", "missed", "begun_anew")
    assert [after[f"pyryrelay_cluster_broadcast_{name}_total", "1"] for name in names] == [2, 4, 6, 8, 10, 12]
    assert after["pyryrelay_cluster_broadcast_added_total", "0"] == 0
    assert after["pyryrelay_cluster_broadcast_behind_seconds", "1"] == 0.0
    member.broadcasts.of("one").follow({}, NotingListener())
    assert (
        after["pyryrelay_cluster_broadcast_behind_seconds", "1"]
        <= samples(member)["pyryrelay_cluster_broadcast_behind_seconds", "1"]
    )
    member.broadcasts.stop()


def test_each_sentinel_has_a_metric() -> None:
    """Servers without any have none."""
    settings = Settings(cluster=("redis://a", "redis+sentinel://s1,s2:5/m"), cluster_secret_file="-")
    reactor: Any = MemoryReactorClock()
    member = Membership(settings, b"x" * 20, Path("/"), reactor, time.monotonic, time.time, print)
    sentinels = member.shards.clients[1].sentinels
    assert sentinels is not None
    sentinels.all[1].failed("Connection refused", 0.0)
    (family,) = [each for each in ClusterCollector(member).collect() if each.name == "pyryrelay_cluster_sentinel_up"]
    assert [(sample.labels, sample.value) for sample in family.samples] == [
        ({"shard": "1", "sentinel": "s1:26379"}, 1.0),
        ({"shard": "1", "sentinel": "s2:5"}, 0.0),
    ]
