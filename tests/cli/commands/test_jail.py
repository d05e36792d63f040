"""The command ``pyryrelay jail``."""

from __future__ import annotations

import pytest
from tests.support.command import Ran, Runner
from tests.support.fake_relay import FakeRelay

ENTRIES = [
    {"network": "192.0.2.7/32", "seconds_left": 59.7, "times": 0},
    {"network": "2001:db8::/64", "seconds_left": 9_030.0, "times": 3},
]


def test_terminals_get_an_aligned_table(run: Runner, relay: FakeRelay) -> None:
    """On a terminal, the jail is a table with titles, the longest sentence first."""
    relay.body = ENTRIES
    ran = run("jail", "list", terminal=True)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == ("NETWORK        LEFT    SENTENCES\n2001:db8::/64  2h 30m  3\n192.0.2.7/32   1m      by hand\n")
    assert relay.requests == [("GET", "/jail?limit=10000")]


def test_whose_sentence_it_is(run: Runner, relay: FakeRelay) -> None:
    """That of a worker or of another member of the cluster is theirs, also one by hand."""
    relay.body = [
        {"network": "192.0.2.7/32", "seconds_left": 60, "times": 2, "origin": "worker 1"},
        {"network": "192.0.2.8/32", "seconds_left": 50, "times": 0, "origin": "10.0.0.2:7000"},
        {"network": "192.0.2.9/32", "seconds_left": 40, "times": 1, "origin": ""},
    ]
    assert [line.split("\t")[2] for line in run("jail", "list").out.splitlines()] == [
        "2, at worker 1",
        "by hand, at 10.0.0.2:7000",
        "1",
    ]


def test_pipes_get_bare_rows(run: Runner, relay: FakeRelay) -> None:
    """In a pipe, there are only rows, separated by tabs, and nothing if no client is jailed."""
    relay.body = ENTRIES
    assert run("jail", "list").out == "2001:db8::/64\t2h 30m\t3\n192.0.2.7/32\t1m\tby hand\n"
    relay.body = []
    assert run("jail", "list").out == ""
    assert run("jail", "list", terminal=True).out == "no client is jailed\n"


def test_what_is_not_shown_is_counted(run: Runner, relay: FakeRelay) -> None:
    """On a terminal, the number of entries that are not shown is printed."""
    relay.body, relay.fields = ENTRIES, {"X-Total-Count": "1002"}
    assert run("jail", "list", terminal=True).out.endswith("\n1000 more are not shown\n")
    assert "more" not in run("jail", "list").out


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ((), 600),
        (("--for", "90s"), 90),
        (("--for", "10m"), 600),
        (("--for", "2h30m"), 9_000),
        (("--for", "7d"), 604_800),
        (("--for=45",), 45),
    ],
)
def test_jails_for_a_time(run: Runner, relay: FakeRelay, options: tuple[str, ...], seconds: int) -> None:
    """``jail add`` sends the address, and the time in seconds."""
    relay.body, relay.status = ENTRIES[0], 201
    assert run("jail", "add", "192.0.2.7", *options) == Ran(0, "", "")
    assert relay.requests == [("POST", "/jail")]
    assert relay.bodies == [{"address": "192.0.2.7", "seconds": seconds}]


def test_changes_are_confirmed(run: Runner, relay: FakeRelay) -> None:
    """On a terminal, a change is confirmed."""
    relay.body = ENTRIES[0]
    assert run("jail", "add", "192.0.2.7", terminal=True).out == "192.0.2.7/32 is jailed for 1m\n"
    assert run("jail", "release", "2001:db8::/64", terminal=True).out == "2001:db8::/64 is released\n"
    assert relay.requests[1] == ("DELETE", "/jail/2001%3Adb8%3A%3A%2F64")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1s"), (59, "59s"), (60, "1m"), (599.6, "10m"), (3_661, "1h 1m"), (90_000, "1d 1h")]
)
def test_durations_are_short(run: Runner, relay: FakeRelay, seconds: float, text: str) -> None:
    """The time left is shown in at most two units."""
    relay.body = [{"network": "192.0.2.7/32", "seconds_left": seconds, "times": 1}]
    assert run("jail", "list").out == f"192.0.2.7/32\t{text}\t1\n"
