"""``/healthz`` and ``/readyz`` of several workers."""

from __future__ import annotations

from typing import Any

import pytest

from pyryrelay.workers.merging.health import DEGRADED, merge_health, merge_readiness

OK = {"status": "ok", "version": "1", "connected_phones": 2, "nostr_events": 7, "uptime_seconds": 5}
FAILING = {**OK, "status": "failing", "connected_phones": 0}
ABOUT: dict[str, Any] = {"count": 3, "version": "26.12", "uptime_s": 9.9}


def test_sums() -> None:
    """Peers are added up, the uptime is that of the relay, and a shared database counts once."""
    found = merge_health([OK, OK], shared=["nostr_events"], **ABOUT)
    assert found.status == 200
    assert list(found.body.items()) == [
        ("status", "ok"),
        ("version", "26.12"),
        ("connected_phones", 4),
        ("nostr_events", 7),
        ("uptime_seconds", 9),
        ("workers", 3),
        ("workers_ready", 2),
    ]


@pytest.mark.parametrize(
    ("workers", "status", "word"),
    [([OK, FAILING], 200, "ok"), ([OK], 200, "ok"), ([FAILING, FAILING], 503, "failing"), ([], 503, "failing")],
)
def test_one_worker_that_serves_is_enough(workers: list[dict[str, Any]], status: int, word: str) -> None:
    """A load balancer takes the host out only if no worker serves."""
    found = merge_health(workers, **ABOUT)
    assert (found.status, found.body["status"]) == (status, word)


def test_draining() -> None:
    """While the relay drains, load balancers choose another one."""
    found = merge_health([OK], is_draining=True, **ABOUT)
    assert (found.status, found.body["status"]) == (503, "draining")


@pytest.mark.parametrize(
    ("ready", "is_draining", "is_degraded", "status", "word"),
    [
        (0, False, True, 503, "starting"),
        (1, False, False, 200, "ready"),
        (1, False, True, 200, "degraded"),
        (2, True, True, 503, "draining"),
    ],
)
def test_readiness(ready: int, is_draining: bool, is_degraded: bool, status: int, word: str) -> None:
    """Connections should come as long as a worker takes them, even without the cluster."""
    found = merge_readiness(ready, count=2, version="26.12", is_draining=is_draining, is_degraded=is_degraded)
    assert found.status == status
    assert found.body == {"status": word, "version": "26.12", "workers": 2, "workers_ready": ready}


def test_what_only_readiness_needs_is_not_on_the_page() -> None:
    """Workers add it to their objects."""
    assert DEGRADED not in merge_health([OK | {DEGRADED: True}], **ABOUT).body
