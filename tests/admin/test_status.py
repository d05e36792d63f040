"""``GET /status``: the object that commands and the dashboard read."""

from __future__ import annotations

import json
import os
from dataclasses import replace

from tests.support.pyry import address
from twisted.internet.task import Clock

from pyryrelay import __version__
from pyryrelay.admin.status import LIMIT_GROUPS, CertificateStatus, Status, limits_of
from pyryrelay.guard import Gate, Quota
from pyryrelay.mounts import Settings
from pyryrelay.observe.log import EventLog
from pyryrelay.observe.refusals import Refusals
from pyryrelay.observe.sampling import Sampler, Sources
from pyryrelay.websocket.context import Traffic

KEYS = [
    "version",
    "pid",
    "state",
    "uptime_s",
    "connections",
    "handshakes",
    "admitted",
    "refused",
    "messages",
    "bytes",
    "tracked",
    "jailed",
    "memory_bytes",
    "cpu_s",
    "reactor_lag_s",
    "decision_s",
    "connections_per_address",
    "certificates",
    "limits",
    "protocols",
]


def status(*, is_draining: bool = False) -> Status:
    """Return the status of a relay with one admitted client and one refusal."""
    clock = Clock()
    gate = Gate()
    refusals = Refusals(gate, EventLog("full", clock.seconds), clock.seconds)
    refusals.refused("client", 429, "rate_limit", address())
    traffic = {"client": Traffic(admitted=1, messages_in=2, bytes_in=30)}
    sampler = Sampler(Sources(gate, refusals, traffic, {"room": lambda: {"visitors": 3}}), clock.seconds)
    certificate = CertificateStatus(("relay.example",), 1.8e9, "file:a.pem")
    return Status(
        sampler, lambda: 12.3456, lambda: is_draining, lambda: {"quota": "1"}, lambda: [certificate, certificate]
    )


def test_the_object() -> None:
    """It has all keys, in the order of the documentation, and is JSON."""
    found = json.loads(json.dumps(status().object()))
    assert list(found) == KEYS
    assert (found["version"], found["pid"], found["state"]) == (__version__, os.getpid(), "running")
    assert found["uptime_s"] == 12.346
    assert (found["admitted"], found["refused"]) == ({"client": 1}, {"rate_limit": 1})
    assert (found["messages"], found["bytes"]) == ({"in": 2, "out": 0}, {"in": 30, "out": 0})
    assert found["decision_s"] is None
    assert found["certificates"] == [{"names": ["relay.example"], "expires_at": 1.8e9, "source": "file:a.pem"}]
    assert found["protocols"] == {"room": {"visitors": 3}}


def test_a_relay_in_a_cluster() -> None:
    """It has one more key, in its place."""
    summary = {"name": "relay", "members": 2, "problems": []}
    found = replace(status(), cluster=lambda: summary).object()
    assert found["cluster"] == summary
    assert list(found)[list(found).index("cluster") - 1] == "certificates"


def test_a_relay_that_stops() -> None:
    """From the moment that it begins to stop, its state is another."""
    assert status(is_draining=True).object()["state"] == "draining"


def test_the_limits_in_force() -> None:
    """They are the options about limits, as they are written in a configuration; no endpoint or path is among them."""
    settings = Settings(upgrade_quota=Quota.parse("7/minute burst 9"))
    limits = limits_of(settings)
    assert limits["upgrade-quota"] == "7/minute burst 9"
    assert {Settings.by_name()[name].group for name in limits} == {*LIMIT_GROUPS}
    assert "listen" not in limits
