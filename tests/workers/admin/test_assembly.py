"""The admin listener of a supervisor as a whole: who may use it, and ``GET /status``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support.pyry import address
from tests.support.workers import OWN_BYTES, Host

from pyryrelay.admin.status import CertificateStatus
from pyryrelay.config.sources import SettingsError
from pyryrelay.workers.admin.assembly import Relay, WorkersAdmin
from pyryrelay.workers.admin.observed import READ_S

SECRET = "correct-horse-battery-staple"


def test_paths() -> None:
    """The listener has what that of one process has, and the actions of protocols."""
    host = Host(2)
    listing = host.client.request("GET", "/paths").text.split()
    assert listing[:3] == ["/healthz", "/readyz", "/metrics"]
    assert {"/status", "/jail", "/reload", "/upgrade", "/explain", "/settings", "/echo"} <= {*listing}
    page = host.client.request("GET", "/", Accept="text/html")
    assert "<title>pyryrelay</title>" in page.text


def test_the_status() -> None:
    """The figures of all workers, and a row for each."""
    host = Host(2)
    for worker in host.workers.values():
        worker.connect().upgrade("/v1/server")
    host.workers[1].connect().upgrade("/v1/server", server_id="other")
    host.machine.advance(1.5)
    found = host.get("/status")
    assert (found["pid"], found["state"], found["uptime_s"]) == (os.getpid(), "running", 1.5)
    assert found["connections"]["server"] == 3
    assert found["protocols"]["pyry"]["binaries"] == 3
    assert found["memory_bytes"] > OWN_BYTES + found["workers"][0]["memory_bytes"]
    assert found["limits"]["upgrade-quota"] == "10/minute burst 20"
    assert [row["connections"] for row in found["workers"]] == [1, 2]
    assert [*found["workers"][0]] == [
        "index",
        "pid",
        "boot",
        "state",
        "uptime_s",
        "connections",
        "memory_bytes",
        "cpu_s",
        "restarts",
    ]


def test_the_status_of_a_host_with_a_hanging_worker() -> None:
    """It comes after a second, and the next one at once, until the worker answers; what it holds is remembered."""
    host = Host(2)
    host.workers[1].connect().upgrade("/v1/server")
    host.pass_s()
    host.hang(1)
    exchange = host.client.begin("GET", "/status")
    assert exchange.sent == b""
    host.machine.advance(READ_S)
    found = exchange.response.json
    assert (found["connections"]["server"], found["workers"][1]["connections"]) == (1, 1)
    assert [row["state"] for row in found["workers"]] == ["running", "silent"]
    assert host.get("/status")["connections"]["server"] == 1


def test_counts_survive_a_worker() -> None:
    """What it had counted stays in the sum."""
    host = Host(2)
    host.workers[1].connect().upgrade("/v1/server")
    host.pass_s()
    host.starter.running(1).end("signal 9")
    host.get_ready(1)
    found = host.get("/status")
    assert (found["admitted"]["server"], found["connections"]["server"]) == (1, 0)
    assert found["workers"][1]["restarts"] == 1


def test_certificates() -> None:
    """Those of the supervisor are shown, with those of workers."""
    host = Host(1)
    relay = Relay(
        settings=lambda: host.settings,
        gate=host.gate,
        spread=lambda released: None,
        steer=lambda address: 0,
        reload=lambda: host.reloaded,
        upgrade=lambda: host.upgraded,
        is_draining=lambda: False,
        wrong_token=lambda client: None,
        certificates=lambda: [CertificateStatus(("relay.example",), 1.8e9, "file a.pem")],
    )
    admin = WorkersAdmin(host.supervisor, relay, host.machine, host.machine.seconds)
    found: list[object] = []
    admin.status().addCallback(lambda body: found.append(body["certificates"]))
    assert found == [[{"names": ["relay.example"], "expires_at": 1.8e9, "source": "file a.pem"}]]


def test_the_token(tmp_path: Path) -> None:
    """It is needed as with one process, and wrong ones are reported."""
    host = Host(1, admin_token_file="token")
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(SettingsError, match="other users"):
        host.admin.listener.prepared(host.settings, tmp_path)
    (tmp_path / "token").chmod(0o600)
    host.admin.listener.prepared(host.settings, tmp_path)()
    statuses = [
        host.client.request("GET", "/status", Authorization=f"Bearer {secret}").status for secret in (SECRET, "wrong")
    ]
    assert statuses == [200, 401]
    assert host.client.request("GET", "/metrics").status == 401
    assert host.wrong_tokens == [address("127.0.0.1")]


def test_the_end() -> None:
    """Pages are told that it is over."""
    host = Host(1)
    exchange = host.client.begin("GET", "/events")
    host.admin.stop()
    assert exchange.sent.endswith(b"0\r\n\r\n")
