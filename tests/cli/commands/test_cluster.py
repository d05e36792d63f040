"""The command ``pyryrelay cluster``."""

from __future__ import annotations

import json

import pytest
from tests.support.command import Runner
from tests.support.fake_relay import FakeRelay

ROW = {
    "address": "10.0.0.1:7000",
    "boot": "b1",
    "lease_s": 4.25,
    "proven": True,
    "keys": 3,
    "spliced": 2,
    "arrived": 1,
    "connections": 9,
}
LISTING = {
    "name": "relay",
    "here": "10.0.0.1:7000",
    "instances": [ROW, ROW | {"lease_s": -1.0}, ROW | {"proven": False}],
}


def test_instances_are_a_table(run: Runner, relay: FakeRelay) -> None:
    """One row each; a lease that is over or not proven is said to be."""
    relay.body = LISTING
    ran = run("cluster")
    assert [line.split("\t")[:2] for line in ran.out.splitlines()] == [
        ["10.0.0.1:7000", "4.2 s"],
        ["10.0.0.1:7000", "over"],
        ["10.0.0.1:7000", "not proven"],
    ]
    assert relay.requests == [("POST", "/cluster/instances")]
    assert run("cluster", terminal=True).out.startswith("cluster relay, asked at 10.0.0.1:7000\nINSTANCE")
    assert '"spliced": 2' in run("cluster", "--json").out


def test_where_a_key_is(run: Runner, relay: FakeRelay) -> None:
    """The address alone; nobody is an error."""
    relay.body = {"address": "10.0.0.2:7000"}
    assert run("cluster", "where", "x").out == "10.0.0.2:7000\n"
    assert relay.requests == [("POST", "/cluster/where")]
    relay.body = {"address": None}
    ran = run("cluster", "where", "x")
    assert (ran.code, ran.out, ran.err) == (1, "", "pyryrelay: nobody holds 'x'\n")
    assert '"address": null' in run("cluster", "where", "x", "--json").out


MOVING = {
    "address": "10.0.0.1:7000",
    "keys": 10,
    "to_move": 0,
    "moved": 5,
    "back": 1,
    "left_s": 0.0,
    "share": 5,
    "planned": 5,
    "astray": 2,
}


def test_a_rebalance(run: Runner, relay: FakeRelay) -> None:
    """It says what will move, waits for it, and says what has."""
    relay.body = {"instances": [MOVING]}
    ran = run("cluster", "rebalance", "--over", "5")
    assert ran.out.splitlines() == [
        "10.0.0.1:7000: 5 keys to move, 2 of which the balancer sends elsewhere already; "
        "the share of each instance is 5",
        "10.0.0.1:7000\t10\t5\t1",
    ]
    assert relay.bodies[-1] == {"do": "start", "over_s": 5.0}
    assert json.loads(run("cluster", "rebalance", "--json").out) == {"instances": [MOVING]}
    assert relay.bodies[-1] == {"do": "start", "over_s": 60.0}


def test_a_rebalance_is_followed(run: Runner, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until nothing is left; those who look no longer are told that it goes on."""

    def sleep(seconds: float) -> None:
        relay.body = {"instances": [MOVING]}

    monkeypatch.setattr("pyryrelay.cli.commands.cluster.time.sleep", sleep)
    relay.body = {"instances": [MOVING | {"to_move": 4, "moved": 1, "left_s": 8.0}]}
    ran = run("cluster", "rebalance", terminal=True)
    assert "1 moved, 4 to move within 8 s\n" in ran.out
    assert [body["do"] for body in relay.bodies] == ["start", "look"]
    monkeypatch.setattr("pyryrelay.cli.commands.cluster.time.sleep", interrupted)
    relay.body = {"instances": [MOVING | {"to_move": 4}]}
    ran = run("cluster", "rebalance")
    assert (ran.code, ran.err) == (1, "pyryrelay: it goes on: 'pyryrelay cluster rebalance --stop' ends it\n")


def interrupted(seconds: float) -> None:
    """Press Ctrl-C."""
    raise KeyboardInterrupt


def test_a_plan_and_a_stop(run: Runner, relay: FakeRelay) -> None:
    """The first moves nothing, and the second ends it."""
    relay.body = {"instances": [MOVING | {"planned": 0, "astray": 0}]}
    ran = run("cluster", "rebalance", "--dry-run")
    assert ran.out == "10.0.0.1:7000: 0 keys to move; the share of each instance is 5\n"
    assert run("cluster", "rebalance", "--stop").out == "10.0.0.1:7000\t10\t5\t1\n"
    assert [body["do"] for body in relay.bodies] == ["plan", "stop"]


@pytest.mark.parametrize(
    "words",
    [
        ("rebalance", "key"),
        ("rebalance", "--dry-run", "--stop"),
        ("list", "--dry-run"),
        ("--over", "5"),
        ("where", "x", "--stop"),
    ],
)
def test_options_that_belong_elsewhere(run: Runner, relay: FakeRelay, words: tuple[str, ...]) -> None:
    """Nothing is asked."""
    assert run("cluster", *words).code == 1
    assert relay.requests == []


@pytest.mark.parametrize("seconds", ["-1", "x", "1e3", "999999", "1.5"])
def test_times_that_are_none(run: Runner, relay: FakeRelay, seconds: str) -> None:
    """The error says what to write."""
    ran = run("cluster", "rebalance", f"--over={seconds}")
    assert ran.code == 2
    assert "is not a number of seconds from 0 to 86400" in ran.err


def test_what_cannot_be_understood(run: Runner, relay: FakeRelay) -> None:
    """A key belongs to ``where``, and answers of other versions are not shown."""
    assert run("cluster", "where").code == 1
    assert run("cluster", "list", "x").code == 1
    relay.body = {}
    assert run("cluster").code == 1
    assert run("cluster", "where", "x").code == 1
    assert run("cluster", "rebalance").code == 1


def test_a_relay_without_a_cluster(run: Runner, relay: FakeRelay) -> None:
    """The line names the option; a relay of another version names the actions that it has."""
    relay.status, relay.body = 404, {"error": "there is nothing at this path: GET /paths lists what there is"}
    for words in ((), ("where", "x"), ("rebalance",)):
        expected = "pyryrelay: this relay is no instance of a cluster: it was started without --cluster-listen\n"
        assert run("cluster", *words).err == expected
    relay.body = {"error": "there is no such action: use /cluster/instances or /cluster/where"}
    assert "use /cluster/instances" in run("cluster", "rebalance").err
