"""``/healthz``, ``/readyz`` and ``/metrics`` of several workers."""

from __future__ import annotations

from typing import Any

from tests.support.scrape import Samples, samples_of
from tests.support.workers import Host

from pyryrelay import __version__
from pyryrelay.workers.admin.observed import READ_S, SILENT_S


def page(host: Host, path: str) -> tuple[int, Any]:
    """Return status and object of a page."""
    response = host.client.request("GET", path)
    return response.status, response.json


def metrics(host: Host) -> Samples:
    """Return the samples of a scrape."""
    response = host.client.request("GET", "/metrics")
    assert response.status == 200
    assert response.fields["Content-Type"].startswith("text/plain; version=")
    return samples_of(response.text)


def test_health() -> None:
    """Peers are added up."""
    host = Host(2)
    for worker in host.workers.values():
        worker.connect().upgrade("/v1/server")
    host.machine.advance(2.5)
    assert page(host, "/healthz") == (
        200,
        {
            "status": "ok",
            "version": __version__,
            "connected_binaries": 2,
            "connected_phones": 0,
            "echoes": 0,
            "uptime_seconds": 2,
            "workers": 2,
            "workers_ready": 2,
        },
    )


def test_a_worker_that_hangs() -> None:
    """The page waits for a second, and has what the worker held before."""
    host = Host(2)
    host.workers[1].connect().upgrade("/v1/server")
    host.pass_s()
    host.hang(1)
    exchange = host.client.begin("GET", "/healthz")
    assert exchange.sent == b""
    host.machine.advance(READ_S)
    found = exchange.response.json
    assert (exchange.response.status, found["connected_binaries"], found["workers_ready"]) == (200, 1, 1)


def test_no_worker_can_serve() -> None:
    """Only then a load balancer must choose another host."""
    host = Host(2)
    host.starter.running(0).end()
    assert page(host, "/healthz")[0] == page(host, "/readyz")[0] == 200
    host.starter.running(1).end()
    assert page(host, "/healthz")[0] == 503
    assert page(host, "/readyz") == (
        503,
        {"status": "starting", "version": __version__, "workers": 2, "workers_ready": 0},
    )


def test_readiness_asks_nobody() -> None:
    """It is answered at once; workers that hang do not count."""
    host = Host(2)
    host.pass_s()
    host.hang(1)
    for _ in range(int(SILENT_S) + 1):
        host.pass_s()
    assert page(host, "/readyz")[1]["workers_ready"] == 1


def test_draining() -> None:
    """Both pages say so."""
    host = Host(2)
    host.is_draining = True
    assert [page(host, path)[0] for path in ("/healthz", "/readyz")] == [503, 503]


def test_metrics_of_all_workers() -> None:
    """Each sample of a worker has its index; what the supervisor knows has none, or that of the worker it is about."""
    host = Host(2)
    host.workers[1].connect().upgrade("/v1/server")
    host.machine.advance(3)
    found = metrics(host)
    of_server = {"kind": "server"}
    assert found["pyryrelay_connections", (*of_server.items(), ("worker", "1"))] == 1
    assert found["pyryrelay_connections", (*of_server.items(), ("worker", "0"))] == 0
    assert found["pyryrelay_uptime_seconds", ()] == 3
    assert ("pyryrelay_uptime_seconds", (("worker", "0"),)) in found
    assert (found["pyryrelay_workers", ()], found["pyryrelay_workers_ready", ()]) == (2, 2)


def test_metrics_of_a_dead_worker() -> None:
    """They are left out; that it is gone, and that it was started again, is told."""
    host = Host(2)
    host.starter.running(1).end()
    found = metrics(host)
    assert ("pyryrelay_uptime_seconds", (("worker", "1"),)) not in found
    assert (found["pyryrelay_worker_up", (("worker", "0"),)], found["pyryrelay_worker_up", (("worker", "1"),)]) == (
        1,
        0,
    )
    assert found["pyryrelay_worker_restarts_total", (("worker", "1"),)] == 1
    assert found["pyryrelay_workers_ready", ()] == 1


def test_metrics_of_a_worker_that_hangs() -> None:
    """The scrape ends in time, says that its metrics are missing, and the next one does not wait."""
    host = Host(2)
    host.pass_s()
    host.hang(1)
    exchange = host.client.begin("GET", "/metrics")
    assert exchange.sent == b""
    host.machine.advance(READ_S)
    for missed, found in enumerate((samples_of(exchange.response.text), metrics(host)), 1):
        worker = (("worker", "1"),)
        assert not [name for name, labels in found if labels[-1:] == worker and "worker" not in name]
        assert ("pyryrelay_uptime_seconds", (("worker", "0"),)) in found
        assert found["pyryrelay_worker_up", worker] == 0
        assert found["pyryrelay_worker_missed_scrapes_total", worker] == missed
        assert found["pyryrelay_workers_ready", ()] == 2
