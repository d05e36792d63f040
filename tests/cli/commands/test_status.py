"""The command ``pyryrelay status``."""

from __future__ import annotations

import json

import pytest
from tests.support.command import Runner
from tests.support.fake_relay import FakeRelay
from tests.support.status import status, workers


def test_a_page_for_people(run: Runner, relay: FakeRelay) -> None:
    """On a terminal there are a headline and aligned sections."""
    relay.body = status()
    ran = run("status", terminal=True)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("pyryrelay 26.11.0, process 4242, running for 1d 1h\n\nCONNECTIONS\n  open          92\n")
    assert "\nLIMITS IN FORCE\n  --upgrade-quota  10/minute burst 20\n" in ran.out
    assert relay.requests == [("GET", "/status")]


def test_figures_for_programs(run: Runner, relay: FakeRelay) -> None:
    """In a pipe there is a figure a line; as JSON it is the answer."""
    relay.body = status()
    assert "refused.rate_limit\t50\n" in run("status").out
    assert json.loads(run("status", "--json").out) == relay.body


def test_workers(run: Runner, relay: FakeRelay) -> None:
    """A relay of several processes has a row for each below the headline, and all of it as JSON."""
    relay.body = status(workers=workers())
    ran = run("status", terminal=True)
    assert ran.out.startswith(
        "pyryrelay 26.11.0, process 4242, running for 1d 1h, 1 of 2 workers serve\n\nWORKER  PID "
    )
    assert "\n0       4243  running  1d 1h   60    38.1 MiB  1m   0\n" in ran.out
    assert json.loads(run("status", "--json").out)["workers"][1]["state"] == "down"
    assert "workers\t[" in run("status").out


def test_a_relay_that_stops(run: Runner, relay: FakeRelay) -> None:
    """A relay that is about to stop is shown, and is exit code 1 with one line."""
    relay.body = status(state="draining")
    ran = run("status")
    assert (ran.code, "state\tdraining\n" in ran.out) == (1, True)
    assert ran.err == "pyryrelay: the relay is draining: it accepts no more clients\n"


@pytest.mark.parametrize("body", [[], {"version": "1"}])
def test_another_version(run: Runner, relay: FakeRelay, body: object) -> None:
    """An answer without figures is one line."""
    relay.body = body
    ran = run("status")
    assert ran.code == 1
    assert "has no figures: use the same version" in ran.err
