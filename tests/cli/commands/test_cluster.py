"""The command ``pyryrelay cluster``."""

from __future__ import annotations

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


def test_what_cannot_be_understood(run: Runner, relay: FakeRelay) -> None:
    """A key belongs to ``where``, and answers of other versions are not shown."""
    assert run("cluster", "where").code == 1
    assert run("cluster", "list", "x").code == 1
    relay.body = {}
    assert run("cluster").code == 1
    assert run("cluster", "where", "x").code == 1
