"""The command ``pyryrelay cluster``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.command import Runner
from tests.support.fake_relay import FakeRelay

ROW: dict[str, Any] = {
    "address": "10.0.0.1:7000",
    "boot": "b1",
    "state": "up",
    "lease_s": 4.25,
    "renewed_s": 1.75,
    "gone_s": None,
    "proven": True,
    "link": None,
    "keys": 3,
    "spliced": 2,
    "arrived": 1,
    "connections": 9,
}
GONE = ROW | {"state": "over", "lease_s": -94.0, "renewed_s": 100.0, "gone_s": 94.0}
LINK = {"problem": "Connection refused", "since_s": 5.0, "last_s": 1.0, "failures": 3}
SERVER: dict[str, Any] = {
    "name": "10.0.0.9:6379",
    "address": "10.0.0.9:6379",
    "problem": "",
    "away_s": 0.0,
    "used_s": 3600.0,
    "sentinels": [],
}
SENTINELS = [
    {"name": "s1:26379", "problem": "", "away_s": 0.0, "primary": "10.0.0.9:6379"},
    {"name": "s2:26379", "problem": "Connection refused", "away_s": 42.0, "primary": "10.0.0.9:6379"},
    {"name": "s3:26379", "problem": "", "away_s": 0.0, "primary": ""},
]
LISTING: dict[str, Any] = {
    "name": "relay",
    "here": ["10.0.0.1:7000"],
    "servers": [SERVER],
    "instances": [
        ROW,
        GONE,
        ROW | {"state": "left", "renewed_s": 7.0, "gone_s": 7.0},
        ROW | {"proven": False},
        ROW | {"link": LINK},
    ],
    "listed_s": 0.0,
    "problems": [],
}


def test_instances_are_a_table(run: Runner, relay: FakeRelay) -> None:
    """One row each, with its state and when it was seen last."""
    relay.body = LISTING
    ran = run("cluster")
    assert [line.split("\t")[:4] for line in ran.out.splitlines()] == [
        ["10.0.0.1:7000", "up", "1.8 s ago", "3"],
        ["10.0.0.1:7000", "gone", "1m 40s ago", "3"],
        ["10.0.0.1:7000", "left", "7.0 s ago", "3"],
        ["10.0.0.1:7000", "not proven", "1.8 s ago", "3"],
        ["10.0.0.1:7000", "up, unreachable", "1.8 s ago", "3"],
    ]
    assert relay.requests == [("POST", "/cluster/instances")]
    assert run("cluster", terminal=True).out.startswith(
        "cluster relay, asked at 10.0.0.1:7000\n"
        "SERVER         STATE\n"
        "10.0.0.9:6379  in use, for 1h\n\n"
        "INSTANCE       STATE            SEEN"
    )
    assert '"spliced": 2' in run("cluster", "--json").out


def test_sentinels_are_rows(run: Runner, relay: FakeRelay) -> None:
    """Each says which server it calls the primary, or why it does not answer."""
    server = SERVER | {"name": "mymaster@s1:26379,s2:26379,s3:26379", "sentinels": SENTINELS}
    relay.body = LISTING | {"servers": [server], "instances": []}
    assert run("cluster", terminal=True).out.splitlines()[2:] == [
        "mymaster           in use at 10.0.0.9:6379, for 1h",
        "sentinel s1:26379  answers: 10.0.0.9:6379 is the primary",
        "sentinel s2:26379  does not answer, for 42s: Connection refused",
        "sentinel s3:26379  not asked yet",
    ]


def test_a_server_that_is_away(run: Runner, relay: FakeRelay) -> None:
    """It is named with its problem and what to do; the last list of instances is shown, and the code is 1."""
    server = SERVER | {"problem": "Connection refused", "away_s": 12.0, "used_s": None}
    problem = {"kind": "server_away", "name": SERVER["name"], "since_s": 12.0, "text": "it is away", "next": "start it"}
    relay.body = LISTING | {"servers": [server], "instances": [ROW], "listed_s": 11.0, "problems": [problem]}
    err = "pyryrelay: server 10.0.0.9:6379 of the cluster cannot be used, for 12s\n"
    ran = run("cluster", terminal=True)
    assert (ran.code, ran.err) == (1, err)
    assert "10.0.0.9:6379  cannot be used, for 12s: Connection refused\n" in ran.out
    assert "\ninstances as they were 11s ago:\n" in ran.out
    assert ran.out.endswith("\nfor 12s: it is away\n  -> start it\n")
    ran = run("cluster")
    assert (ran.code, ran.err, len(ran.out.splitlines())) == (1, err, 1)
    ran = run("cluster", "--json")
    assert (ran.code, json.loads(ran.out)) == (1, relay.body)


def test_a_member_that_is_no_instance(run: Runner, relay: FakeRelay) -> None:
    """It shows its servers, and problems whose beginning is not known."""
    problem = {"kind": "secret", "name": "relay", "since_s": None, "text": "two secrets", "next": "choose"}
    relay.body = LISTING | {"here": [], "instances": None, "listed_s": None, "problems": [problem]}
    ran = run("cluster", terminal=True)
    assert ran.code == 0
    assert ran.out.startswith("cluster relay, of which this relay is no instance\n")
    assert ran.out.endswith("\ntwo secrets\n  -> choose\n")
    assert run("cluster").out == ""


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
        expected = "pyryrelay: this relay is in no cluster: it was started without --cluster\n"
        assert run("cluster", *words).err == expected
    relay.body = {"error": "there is no such action: use /cluster/instances"}
    assert "without --cluster-listen" in run("cluster", "rebalance").err
    relay.body = {"error": "there is no such action: use /cluster/instances or /cluster/where"}
    assert "use /cluster/instances" in run("cluster", "rebalance").err
