"""What operators can do to a relay with several workers, over HTTP in memory."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest
from tests.cli.commands.test_cluster import LISTING, ROW, SERVER
from tests.support.admin import Client, Exchange, Response
from tests.support.echo_room import EchoRoom, EchoSettings
from tests.support.workers import Host
from twisted.internet.defer import succeed

from pyryrelay.admin.api import ReloadOutcome, UpgradeOutcome
from pyryrelay.guard import Quota, client_address
from pyryrelay.workers.admin.actions import ACTION_S
from pyryrelay.workers.admin.observed import ANSWER_S
from pyryrelay.workers.steering import steer

CLIENT = "192.0.2.7"
REBALANCE = "/cluster/rebalance"
BODY = json.dumps({"address": CLIENT, "seconds": 60})


@pytest.fixture
def host() -> Host:
    """A host with three workers."""
    return Host(3)


def begin(host: Host, method: str, path: str, body: str = "") -> Exchange:
    """Begin a request that changes something."""
    return host.client.begin(method, path, body, X_Pyryrelay_Admin="1")


def change(host: Host, method: str, path: str, body: str = "") -> Response:
    """Send such a request, and return the answer."""
    return begin(host, method, path, body).response


def jailed(host: Host) -> list[int]:
    """Return how many clients each worker has in jail."""
    return [len([*worker.service.gate.jail.entries(0.0)]) for worker in host.workers.values()]


def test_the_jail_is_that_of_all_workers(host: Host) -> None:
    """A sentence holds in each of them, the list is the supervisor's, and a release reaches all."""
    assert change(host, "POST", "/jail", BODY).status == 201
    assert (jailed(host), host.spread) == ([1, 1, 1], 1)
    response = host.client.request("GET", "/jail")
    assert (response.json, response.fields["X-Total-Count"]) == (
        [{"network": "192.0.2.7/32", "seconds_left": 60, "times": 0, "origin": ""}],
        "1",
    )
    assert change(host, "DELETE", f"/jail/{CLIENT}").json == {"network": "192.0.2.7/32"}
    assert jailed(host) == [0, 0, 0]
    assert change(host, "DELETE", f"/jail/{CLIENT}").status == 404


def test_a_release_reaches_a_sentence_of_one_worker(host: Host) -> None:
    """Also one that has not reached the others yet."""
    host.workers[2].process.rpc.ask("jail_add", network=CLIENT, seconds=60)
    assert jailed(host) == [0, 0, 1]
    assert change(host, "DELETE", f"/jail/{CLIENT}").status == 200
    assert jailed(host) == [0, 0, 0]
    assert host.released_by_workers == ["192.0.2.7/32"]


def test_a_mistake(host: Host) -> None:
    """The operator is told as by one process."""
    response = change(host, "POST", "/jail", BODY.replace(CLIENT, "127.0.0.1"))
    assert (response.status, "loopback" in response.error) == (400, True)


def test_no_worker_is_ready(host: Host) -> None:
    """The answer is 503, and says when to try again."""
    for index in range(3):
        host.starter.running(index).end()
    for method, path, body in (
        ("GET", f"/explain?address={CLIENT}", ""),
        ("POST", "/echo/echo", "{}"),
    ):
        response = change(host, method, path, body)
        assert (response.status, response.fields["Retry-After"]) == (503, "1"), path
        assert response.error == "no worker is ready: try again in a moment"
    assert host.get("/status")["connections"] == {}


def test_a_worker_that_ends_while_it_is_asked(host: Host) -> None:
    """The answer is 503: what became of the question is not known."""
    host.hang(0)
    exchange = begin(host, "POST", "/echo/echo", "{}")
    host.starter.running(0).end()
    assert exchange.response.error == "worker 0 has ended, or does not answer: try again in a moment"


def test_a_worker_that_hangs(host: Host) -> None:
    """The answer comes late then, or not at all; the next question goes to another worker."""
    host.pass_s()
    host.hang(0)
    exchange, action = begin(host, "POST", "/jail", BODY), begin(host, "POST", "/echo/echo", "{}")
    for _ in range(int(ANSWER_S)):
        assert exchange.sent == b""
        host.pass_s()
    assert exchange.response.status == 201
    assert jailed(host) == [0, 1, 1]
    assert begin(host, "POST", "/echo/echo", "{}").response.status == 200
    assert action.sent == b""


def test_the_jail_without_any_worker(host: Host) -> None:
    """The supervisor keeps it, and workers that start get it."""
    for index in range(3):
        host.starter.running(index).end()
    assert change(host, "POST", "/jail", BODY).status == 201
    assert len(host.get("/jail")) == 1
    assert change(host, "DELETE", f"/jail/{CLIENT}").status == 200


# Explain


def explained(host: Host, address: str) -> dict[str, Any]:
    """Return an explanation."""
    found = host.get(f"/explain?address={address}")
    assert isinstance(found, dict)
    return found


def test_the_worker_that_the_kernel_steers_to_explains(host: Host) -> None:
    """It has counted the client, and says so; the others have not."""
    index = steer(ip_address(CLIENT), 3)
    host.workers[index].service.gate.configure(
        host.workers[index].service.gate.config.__class__(upgrade_quota=Quota.parse("1/hour burst 1")), 0.0
    )
    host.workers[index].connect(CLIENT).upgrade("/v1/server")
    found = explained(host, CLIENT)
    assert found["verdict"] == "refused"
    assert found["steps"][0] == {"what": "worker", "state": "info", "detail": f"worker {index} serves it, of 0 to 2"}


def test_behind_a_proxy_another_worker_may_serve_the_client(host: Host) -> None:
    """The one that has seen it explains."""
    other = (steer(ip_address(CLIENT), 3) + 1) % 3
    host.workers[other].connect(CLIENT).upgrade("/v1/server")
    assert explained(host, CLIENT)["steps"][0]["detail"] == f"worker {other} serves it, of 0 to 2"


def test_several_workers_have_seen_a_client(host: Host) -> None:
    """As behind a proxy that spreads a client's connections; each has quotas of its own, so the others are told of."""
    first = steer(ip_address(CLIENT), 3)
    full, other = (index for index in range(3) if index != first)
    for index in (first, other):
        host.workers[index].connect(CLIENT).upgrade("/v1/server")
    gate = host.workers[full].service.gate
    gate.configure(gate.config.__class__(upgrade_quota=Quota.parse("1/hour burst 1")), 0.0)
    host.workers[full].connect(CLIENT).upgrade("/v1/server")
    found = explained(host, CLIENT)
    assert (found["worker"], found["other_workers"], found["verdict"]) == (first, sorted([full, other]), "admitted")
    assert {step["detail"] for step in found["steps"] if step["what"] == "worker"} == {
        f"worker {first} serves it, of 0 to 2",
        f"worker {full} has seen it, too, and would refuse it now: rate_limit",
        f"worker {other} has seen it, too, and would admit it now",
    }


def room_of(host: Host, index: int) -> EchoRoom:
    """Return the room of one worker."""
    return next(one for one in host.workers[index].service.protocols if isinstance(one, EchoRoom))


def test_what_protocols_refuse_at_several_workers(host: Host) -> None:
    """A client is known where a protocol has counted it; the rules are those of the worker that serves it."""
    client = client_address(CLIENT)
    assert client is not None
    first = steer(ip_address(CLIENT), 3)
    other = (first + 1) % 3
    room_of(host, first).said_by[client.key] = 1
    room_of(host, other).said_by[client.key] = 3
    found = explained(host, CLIENT)
    assert (found["worker"], found["other_workers"]) == (first, [other])
    assert found["steps"][1]["detail"] == (
        f"worker {other} has seen it, too, and would admit it now; echo would refuse: messages"
    )
    assert found["steps"][-1] == {"what": "echo: messages", "state": "ok", "detail": "1 of 3 kept"}
    assert found["protocols"]["echo"]["refuses"] == []
    assert found["protocols_of_other_workers"][str(other)]["echo"]["refuses"] == ["messages"]


def test_what_all_workers_serve(host: Host) -> None:
    """What a protocol knows by a name is refused if one of them refuses it, and stands as the worst of them."""
    room_of(host, 0).echoes = 5
    found = explained(host, "%23hall")
    assert (found["name"], found["verdict"], found["steps"]) == (
        "room #hall",
        "accepted",
        [{"what": "echo: texts", "state": "ok", "detail": "5 kept"}],
    )
    room_of(host, 2).is_full = True
    found = explained(host, "%23hall")
    assert (found["verdict"], found["steps"][0]["detail"]) == ("refused", "0 kept")
    assert host.client.request("GET", "/explain?address=%23").error == "the name of a room is missing: write #NAME"


def test_a_client_that_nobody_knows(host: Host) -> None:
    """The worker that it would be steered to explains."""
    assert (
        explained(host, CLIENT)["steps"][0]["detail"] == f"worker {steer(ip_address(CLIENT), 3)} serves it, of 0 to 2"
    )


def test_the_worker_that_serves_a_client_is_down(host: Host) -> None:
    """Then nobody can tell."""
    index = steer(ip_address(CLIENT), 3)
    host.starter.running(index).end()
    response = host.client.request("GET", f"/explain?address={CLIENT}")
    assert response.status == 503
    assert response.error.startswith(f"worker {index}, which serves this client, does not answer")


@pytest.mark.parametrize("address", ["nonsense", "192.0.2.0/24"])
def test_what_is_not_one_client(host: Host, address: str) -> None:
    """The operator is told as by one process."""
    assert host.client.request("GET", f"/explain?address={address}").status == 400


# What the supervisor knows itself


def test_whoami_and_settings(host: Host) -> None:
    """They follow from the configuration, so no worker is asked."""
    for index in range(3):
        host.hang(index)
    assert host.client.request("GET", "/whoami?peer=192.0.2.9").text.endswith("peer 192.0.2.9 is the client\n")
    assert host.get("/settings")[0].keys() == {"name", "value", "source"}


def test_reload_and_upgrade(host: Host) -> None:
    """The outcome is the supervisor's, for all workers together."""
    assert change(host, "POST", "/reload").json["changed"] == ["upgrade-quota"]
    assert change(host, "POST", "/upgrade").json["pid"] == 8
    host.reloaded = succeed(ReloadOutcome(error="worker 1: no"))
    host.upgraded = succeed(UpgradeOutcome(error="no"))
    assert change(host, "POST", "/reload").status == 422
    assert change(host, "POST", "/upgrade").status == 409


# Actions of protocols


def test_an_action_of_a_protocol(host: Host) -> None:
    """One worker performs it, and the answer is its own, byte by byte."""
    assert change(host, "POST", "/echo/echo", '{"text": "\xc3\xa9"}').text == '{"text": "\xe9"}'
    assert change(host, "POST", "/echo/echo").error == "there is nothing to echo: send some JSON"


def test_an_action_may_take_its_time(host: Host) -> None:
    """An import is not given up after a few seconds."""
    (waiting, exchange) = host.hang(0), begin(host, "POST", "/echo/echo", "{}")
    host.machine.advance(ACTION_S - 1)
    waiting[-1].callback({"ok": "[]"})
    assert exchange.response.text == "[]"


def test_an_unknown_action(host: Host) -> None:
    """The answer names those that there are."""
    assert change(host, "POST", "/echo/none").error == "there is no such action: use /echo/echo or /echo/ask"
    assert change(host, "POST", "/pyry/none").error == "there is no such action"


def test_a_worker_that_is_down_is_not_asked(host: Host) -> None:
    """Another one performs the action."""
    host.starter.running(0).end()
    assert change(host, "POST", "/echo/echo", "{}").status == 200


def instances_of(host: Host, index: int, answer: dict[str, Any]) -> None:
    """Have a worker answer this about the keys that it moves."""
    host.workers[index].process.worker.on("action", lambda body: answer)


CLUSTERED = EchoSettings(
    cluster=("redis://127.0.0.1:1",), cluster_listen="tcp:700{worker}", cluster_advertise="10.0.0.1:700{worker}"
)


def test_all_workers_show_the_cluster() -> None:
    """Each one has a connection of its own to the servers; what is wrong with one is wrong."""
    host = Host(2)
    host.settings = CLUSTERED
    host.client = Client(host.admin.site())
    sight = LISTING | {"is_secret_shared": True, "lease_age_s": 1.0, "on_outage": "local", "members": 2}
    away = [SERVER | {"problem": "no answer in 0.5 s", "away_s": 3.0}]
    for index, servers in enumerate(([SERVER], away)):
        shown = sight | {"here": [f"h:{index}"], "instances": [ROW], "servers": servers}
        instances_of(host, index, {"ok": json.dumps(shown)})
    found = change(host, "POST", "/cluster/instances", "").json
    assert (found["here"], found["servers"], found["instances"]) == (["h:0", "h:1"], away, [ROW])
    assert [each["kind"] for each in found["problems"]] == ["server_away"]
    instances_of(host, 1, {"unknown": True})
    assert change(host, "POST", "/cluster/instances", "").status == 404


def test_all_workers_move_their_keys() -> None:
    """Each one is an instance, and their answers are one."""
    host = Host(2)
    host.settings = CLUSTERED
    host.client = Client(host.admin.site())
    for index in (0, 1):
        instances_of(host, index, {"ok": json.dumps({"instances": [{"address": f"h:{index}"}]})})
    assert change(host, "POST", REBALANCE, "{}").json == {"instances": [{"address": "h:0"}, {"address": "h:1"}]}
    instances_of(host, 1, {"error": "keys are moved already"})
    assert change(host, "POST", REBALANCE, "{}").error == "keys are moved already"
    instances_of(host, 1, {"unknown": True})
    assert change(host, "POST", REBALANCE, "{}").status == 404
    for index in (0, 1):
        host.starter.running(index).end()
    assert change(host, "POST", REBALANCE, "{}").status == 503
