"""The lines about the Nostr relay: fixed words only, and limited where clients can repeat them."""

from __future__ import annotations

import pytest
from tests.support.capture import Captured
from tests.support.pyry import address
from twisted.internet.task import Clock

from pyryrelay.nostr.observe.log import NostrLog
from pyryrelay.observe.log import AddressForm, EventLog


@pytest.fixture
def clock() -> Clock:
    """A clock that does not move by itself."""
    return Clock()


@pytest.fixture
def nostr(clock: Clock) -> NostrLog:
    """A log with full addresses."""
    return NostrLog(EventLog("full", clock.seconds))


def test_refusals_have_verb_client_and_reason(log: Captured, nostr: NostrLog) -> None:
    """A refusal is logged with what was refused, whose it was, and the word of the metrics."""
    nostr.refused("EVENT", address(), "signature")
    nostr.refused("REQ", address(), "scrape")
    nostr.refused("AUTH", None, "challenge")
    assert log.texts == [
        "refused EVENT of 192.0.2.7: signature (0 more left out)",
        "refused REQ of 192.0.2.7: scrape (0 more left out)",
        "refused AUTH of unknown: challenge (0 more left out)",
    ]


def test_a_flood_of_refusals_has_few_lines(log: Captured, clock: Clock, nostr: NostrLog) -> None:
    """There is one line in 10 s for each client, verb and reason, with the number of those without a line."""
    for _ in range(1000):
        nostr.refused("EVENT", address(), "rate_limit")
        nostr.slow_client(address())
    clock.advance(10)
    nostr.refused("EVENT", address(), "rate_limit")
    nostr.slow_client(address())
    assert log.texts == [
        "refused EVENT of 192.0.2.7: rate_limit (0 more left out)",
        "closed 192.0.2.7, which reads too slowly (0 more left out)",
        "refused EVENT of 192.0.2.7: rate_limit (999 more left out)",
        "closed 192.0.2.7, which reads too slowly (999 more left out)",
    ]


@pytest.mark.parametrize(("form", "text"), [("full", "192.0.2.7"), ("prefix", "192.0.2.0/24"), ("none", "-")])
def test_addresses_have_the_chosen_form(log: Captured, clock: Clock, form: AddressForm, text: str) -> None:
    """Client addresses are logged as ``--log-client-address`` says, and counted apart in each form."""
    nostr = NostrLog(EventLog(form, clock.seconds))
    nostr.refused("EVENT", address("192.0.2.7"), "id")
    nostr.refused("EVENT", address("192.0.2.8"), "id")
    nostr.slow_client(address("192.0.2.7"))
    assert log.texts[0] == f"refused EVENT of {text}: id (0 more left out)"
    assert log.texts[2] == f"closed {text}, which reads too slowly (0 more left out)"
    assert len(log.texts) == 3


def test_the_life_of_the_store(log: Captured, nostr: NostrLog) -> None:
    """The store's opening, its trouble and the end of that are logged, the trouble as an error."""
    nostr.store_opened(12, 4096, 1)
    nostr.store_health(False, "database 'x.sqlite': disk is full")
    nostr.store_health(True, "")
    nostr.child_ended("reader", "signal 9", 2.0)
    nostr.clock_jumped(-90)
    assert log.texts == [
        "the database of events is open: 12 events, 4096 bytes, version 1",
        "the database of events cannot be written: database 'x.sqlite': disk is full; events are refused until it can",
        "the database of events can be written again",
        "a reader of events has ended: signal 9; starting another in 2 s",
        "the clock of this machine was set by -90 s; times of events are compared with it",
    ]
    assert [event["log_level"].name for event in log.events] == ["info", "error", "info", "warn", "warn"]


def test_events_between_hosts(log: Captured, clock: Clock, nostr: NostrLog) -> None:
    """What can happen often is limited."""
    nostr.sharing_events(0)
    nostr.sharing_events(3)
    nostr.announcing_stopped("the server is down")
    nostr.announcing_again(7)
    for _ in range(100):
        nostr.not_announced(2_000_000)
        nostr.host_lies("signature")
    clock.advance(10)
    nostr.host_lies("signature")
    lies = "another host of the cluster has announced a wrong event: signature"
    assert log.texts == [
        "events are shared with the other hosts of the cluster",
        "events are shared with the other hosts of the cluster",
        "the newest 3 events are announced to the other hosts, some perhaps again",
        "events are not announced to the other hosts: the server is down; they wait in the database",
        "events are announced to the other hosts again; 7 wait",
        "an event of 2000000 bytes is too large to be announced to the other hosts (0 more left out)",
        f"{lies} (0 more left out)",
        f"{lies} (99 more left out)",
    ]
