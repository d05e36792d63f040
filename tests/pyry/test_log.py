"""The lines about binaries and phones: one for each event, without secrets, and limited where peers can repeat it."""

from __future__ import annotations

import pytest
from tests.support.capture import Captured
from tests.support.pyry import address
from twisted.internet.task import Clock

from pyryrelay.observe.log import AddressForm, EventLog
from pyryrelay.pyry.log import LOG_FIELDS, PyryLog

HOSTILE = "x\r\n2026-01-01 all is well\x1b[2J\x9b31m\x00\u2028"


@pytest.fixture
def clock() -> Clock:
    """A clock that does not move."""
    return Clock()


@pytest.fixture
def events(clock: Clock) -> EventLog:
    """A log with full addresses."""
    return EventLog("full", clock.seconds)


def test_the_life_of_a_pair(log: Captured, events: EventLog) -> None:
    """Binaries and phones are logged with server-id, conn_id, device, version, address, close code and number."""
    PyryLog(events).claimed("sid", "1.2", address(), 7)
    PyryLog(events).registered("sid", "client-sid-1", "Pixel", address(), 8)
    PyryLog(events).unregistered("sid", "client-sid-1", 1000, 8)
    PyryLog(events).released("sid", 1006, 7)
    assert log.texts == [
        "binary claimed 'sid' version '1.2' from 192.0.2.7, connection 7",
        "phone 'client-sid-1' of 'sid' registered, device 'Pixel' from 192.0.2.7, connection 8",
        "phone 'client-sid-1' of 'sid' gone, code 1000, connection 8",
        "binary of 'sid' gone, code 1006, connection 7",
    ]


def test_what_a_peer_can_repeat_is_limited(log: Captured, clock: Clock, events: EventLog) -> None:
    """Closes and dropped envelopes have one line for each server-id and kind in 10 s."""
    for _ in range(1000):
        PyryLog(events).closed_by_registry("sid", 4409, "server-id already claimed", 7)
        PyryLog(events).envelope_dropped("sid", "malformed", 1, 7)
        PyryLog(events).push_wake_dropped("sid", 1, 7)
        PyryLog(events).push_wake_failed("sid", "dropped", "quota", 7)
    clock.advance(10)
    PyryLog(events).envelope_dropped("sid", "malformed", 1, 7)
    assert log.texts == [
        "closed a peer of 'sid', connection 7: 4409 server-id already claimed (0 more left out)",
        "dropped an envelope of 'sid', connection 7: malformed (0 more left out)",
        "dropped an envelope of 'sid', connection 7: push_wake (0 more left out)",
        "push wake of 'sid', connection 7: dropped, quota (0 more left out)",
        "dropped an envelope of 'sid', connection 7: malformed (999 more left out)",
    ]


def test_client_text_cannot_break_a_line(log: Captured, events: EventLog) -> None:
    """Line ends and terminal control characters in text of clients are escaped."""
    PyryLog(events).claimed(HOSTILE, HOSTILE, address(), 7)
    PyryLog(events).registered(HOSTILE, HOSTILE, HOSTILE, address(), 7)
    PyryLog(events).unregistered(HOSTILE, HOSTILE, 1000, 7)
    PyryLog(events).released(HOSTILE, 1000, 7)
    PyryLog(events).closed_by_registry(HOSTILE, 4404, "no server with that id", 7)
    PyryLog(events).envelope_dropped(HOSTILE, "malformed", 1, 7)
    PyryLog(events).push_wake_dropped(HOSTILE, 1, 7)
    PyryLog(events).push_wake_failed(HOSTILE, "dropped", "quota", 7)
    assert len(log.lines) == len(log.events) == 8
    assert all(line.isprintable() for line in log.lines)


def test_client_text_is_cut(log: Captured, events: EventLog) -> None:
    """A version or device name of 16 KiB is cut to 64 characters."""
    PyryLog(events).claimed("sid", "v" * 16384, address(), 7)
    PyryLog(events).registered("sid", "c", "d" * 16384, address(), 7)
    assert [len(event.get("version") or event["device_name"]) for event in log.events] == [64, 64]
    assert max(map(len, log.lines)) < 300


@pytest.mark.parametrize(
    ("form", "text"), [("full", "from 192.0.2.7,"), ("prefix", "from 192.0.2.0/24,"), ("none", "from -,")]
)
def test_addresses_have_the_chosen_form(log: Captured, clock: Clock, form: AddressForm, text: str) -> None:
    """Client addresses of binaries and phones are logged as ``--log-client-address`` says."""
    events = EventLog(form, clock.seconds)
    PyryLog(events).claimed("sid", "1.2", address(), 7)
    PyryLog(events).registered("sid", "client-sid-1", "Pixel", address(), 8)
    assert all(text in line for line in log.texts)


def test_lines_are_written_at_the_end_of_the_turn(log: Captured, clock: Clock) -> None:
    """Lines wait for the end of the turn, so that an upgrade does not pay for their formatting."""
    events = EventLog("full", clock.seconds, lambda call: clock.callLater(0, call))
    PyryLog(events).claimed("s", "1", address(), 7)
    PyryLog(events).released("s", 1000, 7)
    assert log.texts == []
    clock.advance(0)
    assert [text.split()[1] for text in log.texts] == ["claimed", "of"]


def test_every_field_is_used(log: Captured, events: EventLog) -> None:
    """The fields that this protocol brings are all in some line."""
    PyryLog(events).claimed("sid", "1.2", address(), 7)
    PyryLog(events).registered("sid", "client-sid-1", "Pixel", address(), 8)
    assert set().union(*log.events) >= LOG_FIELDS
