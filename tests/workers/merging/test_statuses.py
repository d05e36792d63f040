"""``GET /status`` of several workers."""

from __future__ import annotations

from typing import Any

from tests.support.status import NOW, status

from pyryrelay.workers.merging.statuses import Gone, Own, merge_per_address, merge_protocols, merge_status

OWN = Own("26.12.0", 99, "running", 100.0004, 1_000, 2.0, {"max-connections": "100"})
ROWS = [{"index": 0, "pid": 4242}, {"index": 1, "pid": 4243}]


def worker(**changes: Any) -> dict[str, Any]:
    """Return the answer of a worker."""
    return status(**{"decided": 0} | changes)


def merged(*workers: dict[str, Any], gone: Gone | None = None, own: Own = OWN) -> dict[str, Any]:
    """Merge, with one figure that all workers have in common."""
    return merge_status(own, workers, ROWS, gone or Gone(), {"echo": ["kept_bytes"]})


def test_the_keys_are_those_of_one_process() -> None:
    """They come in the order of the documentation, and the workers last."""
    assert list(merged(worker(), worker())) == [*status(), "workers"]


def test_counts_are_added_up() -> None:
    """So are the memory and the processor time, with the supervisor's own."""
    found = merged(worker(), worker())
    assert found["connections"] == {"server": 24, "client": 160}
    assert (found["handshakes"], found["tracked"]) == (6, 2_468)
    assert found["refused"]["jailed"] == 14_000
    assert found["messages"] == {"in": 20_000, "out": 40_000}
    assert (found["memory_bytes"], found["cpu_s"]) == (180_001_000, 152.0)
    assert found["workers"] == ROWS


def test_what_is_not_added_up() -> None:
    """Every worker has all sentences, a lag is that of the slowest, and a time to decide is a mean."""
    slow = worker(jailed=7, reactor_lag_s=0.5, decision_s=0.003, decided=1)
    found = merged(slow, worker(decision_s=0.001, decided=3))
    assert (found["jailed"], found["reactor_lag_s"], found["decision_s"]) == (7, 0.5, 0.0015)
    assert merged(worker(), worker())["decision_s"] is None


def test_what_the_supervisor_knows() -> None:
    """Version, process, state, uptime and limits are its own; limits are those of the whole relay."""
    found = merged(worker(version="25.1", uptime_s=3.0, limits={"max-connections": "50"}))
    assert (found["version"], found["pid"], found["uptime_s"]) == ("26.12.0", 99, 100.0)
    assert found["limits"] == {"max-connections": "100"}


def test_figures_of_protocols() -> None:
    """Numbers are added up, those of what workers have in common are not, and of texts the first one counts."""
    echo = merged(worker(), worker())["protocols"]["echo"]
    assert echo == {"echoes_total": 3_000_000, "kept_bytes": 2_048, "rooms": 0, "mood": "fine"}
    assert merge_protocols([{"a": {"x": 1}}, {"b": {"x": 2}}], {}) == {"a": {"x": 1}, "b": {"x": 2}}


def test_each_certificate_once() -> None:
    """However many workers have it; while it is exchanged, the new one is shown."""
    new = {"names": ["relay.example"], "expires_at": NOW + 9e6, "source": "file a.pem"}
    other = {"names": ["other.example"], "expires_at": NOW, "source": "file b.pem"}
    own = Own("1", 1, "running", 1.0, 0, 0.0, {}, [other])
    assert merged(worker(), worker(certificates=[new]), worker(), own=own)["certificates"] == [other, new]


def test_connections_per_address() -> None:
    """Addresses are added up between the same bounds."""
    assert merge_per_address([[[1, 5], [None, 1]], [[1, 2], [None, 0]]]) == [[1, 7], [None, 1]]


def test_a_dead_worker_leaves_what_it_has_counted() -> None:
    """Counts do not fall when it dies, and what it held does."""
    gone = Gone()
    gone.add(worker())
    found = merged(worker(), gone=gone)
    assert found["admitted"] == {"server": 200, "client": 1800}
    assert found["bytes"] == {"in": 10_485_760, "out": 20_971_520}
    assert found["cpu_s"] == 152.0
    assert found["connections"] == {"server": 12, "client": 80}
    assert found["protocols"]["echo"] == {"echoes_total": 3_000_000, "kept_bytes": 2_048, "rooms": 0, "mood": "fine"}
    gone.add(worker())
    assert merged(gone=gone)["protocols"]["echo"] == {"echoes_total": 3_000_000}


def test_no_worker_answers() -> None:
    """The object still has every key, with figures of nothing."""
    found = merged()
    assert list(found) == [*status(), "workers"]
    assert found["messages"] == {"in": 0, "out": 0}
    assert (found["connections"], found["jailed"], found["reactor_lag_s"], found["decision_s"]) == ({}, 0, 0.0, None)


def test_the_cluster_is_shown_if_there_is_one() -> None:
    """Each worker has its own connections to the servers."""
    assert "cluster" not in merged(worker())
    summary = {"name": "relay", "members": 2, "problems": []}
    assert merged(worker(), worker(cluster=summary))["cluster"] == summary
