"""The worker's side: what it answers to the supervisor, as JSON."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.pyry import address
from tests.support.scrape import samples_of
from tests.support.workers import Host, Worker, outcome

from pyryrelay.observe.sampling import Snapshot
from pyryrelay.workers.admin.reports import BODY_ERRORS

CLIENT = "192.0.2.7"


@pytest.fixture
def worker() -> Worker:
    """A worker with all protocols."""
    return Host(1).workers[0]


def ask(worker: Worker, name: str, **body: object) -> Any:
    """Ask a worker, and return its answer, or the exception."""
    return outcome(worker.process.rpc.ask(name, **body))


def test_about(worker: Worker) -> None:
    """The panels of its protocols, with what they have in common, and the names of their actions."""
    found = ask(worker, "about")
    assert [*found["panels"]] == ["pyry", "echo"]
    assert found["panels"]["pyry"]["plots"][0].keys() == {"title", "series", "parts_of", "unit"}
    assert [*found["actions"]] == ["echo"]


def test_a_sample(worker: Worker) -> None:
    """All of a snapshot, without the reasons for which nobody was refused, and the object of ``/healthz``."""
    worker.connect().upgrade("/v1/server")
    worker.service.refusals.refused("client", 429, "rate_limit", address())
    found = ask(worker, "sample", is_watched=True)
    snapshot = Snapshot(**found["snapshot"])
    assert (snapshot.connections["server"], snapshot.refused) == (1, {"rate_limit": 1})
    assert snapshot.protocols["pyry"]["binaries"] == 1
    assert [one["reason"] for one in found["refusals"]] == ["rate_limit"]
    assert (found["health"]["status"], found["health"]["connected_binaries"]) == ("ok", 1)
    assert ask(worker, "sample", is_watched=True)["refusals"] == []


def test_a_sample_that_nobody_watches(worker: Worker) -> None:
    """It has no refusals."""
    worker.service.refusals.refused("client", 429, "rate_limit", address())
    assert ask(worker, "sample")["refusals"] == []


def test_the_status(worker: Worker) -> None:
    """The object of one process, and how many decisions its mean is of."""
    worker.connect().upgrade("/v1/server")
    ask(worker, "sample")
    found = ask(worker, "status")
    assert [*found][:3] == ["version", "pid", "state"]
    assert found["connections"]["server"] == found["decided"] == 1


def test_metrics_and_health(worker: Worker) -> None:
    """The text of one scrape, and the object of ``/healthz``."""
    assert samples_of(ask(worker, "metrics"))["pyryrelay_tracked_addresses", ()] == 0
    assert ask(worker, "health")["status"] == "ok"


def test_a_standing(worker: Worker) -> None:
    """The explanation, and whether the worker has seen the client: one that it has not asks no question of it."""
    assert ask(worker, "standing", address=CLIENT)["ok"]["is_known"] is False
    worker.connect(CLIENT).upgrade("/v1/server")
    found = ask(worker, "standing", address=CLIENT)["ok"]
    assert (found["is_known"], found["explanation"]["verdict"]) == (True, "admitted")
    assert ask(worker, "standing", address="192.0.2.0/24")["error"].startswith("'192.0.2.0/24' holds more than one")


def test_the_jail(worker: Worker) -> None:
    """A sentence, and its end."""
    network, seconds, times, _ = ask(worker, "jail_add", network=CLIENT, seconds=60)["ok"]
    assert (network, seconds, times) == ("192.0.2.7/32", 60, 0)
    assert ask(worker, "jail_release", network=CLIENT) == {"ok": "192.0.2.7/32"}
    assert ask(worker, "jail_release", network=CLIENT) == {"ok": None}
    assert "loopback" in ask(worker, "jail_add", network="127.0.0.1", seconds=60)["error"]


def test_an_action(worker: Worker) -> None:
    """A body of any bytes reaches the protocol, and its answer comes back; a mistake is told, and a wrong name."""
    body = b'{"text": "\xc3\xa9 \xff"}'.decode("utf-8", BODY_ERRORS)
    assert ask(worker, "action", protocol="echo", action="echo", body=body) == {"ok": body}
    mistake = ask(worker, "action", protocol="echo", action="echo", body="")
    assert mistake == {"error": "there is nothing to echo: send some JSON"}
    assert ask(worker, "action", protocol="echo", action="none", body="") == {"unknown": True}
    assert ask(worker, "action", protocol="pyry", action="echo", body="") == {"unknown": True}
