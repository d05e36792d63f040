"""Proof that a connection comes from another instance."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.cluster.directory.members import Member
from pyryrelay.cluster.splice import ticket as module
from pyryrelay.cluster.splice.ticket import (
    MAX_AGE_S,
    NONCE_BYTES,
    Nonces,
    Ticket,
    TicketError,
    TicketProblem,
    read,
    write,
)

SECRET = b"secret"
ME = Member("10.0.0.2:7000", "boot", "10.0.0.2:7000")
NOW = 1_790_000_000.0
TICKET = Ticket("10.0.0.1:7000", "192.0.2.1", NOW, bytes(NONCE_BYTES))


def problem(raw: bytes, *, me: Member = ME, secret: bytes = SECRET, now: float = NOW) -> TicketProblem:
    """Return why a ticket is refused."""
    with pytest.raises(TicketError) as caught:
        read(raw, me, secret, now, Nonces())
    return caught.value.problem


def test_a_ticket_is_read_as_it_was_written() -> None:
    """Nothing is lost on the way."""
    assert read(write(TICKET, ME, SECRET), ME, SECRET, NOW + MAX_AGE_S, Nonces()) == TICKET


@given(st.integers(min_value=0), st.integers(1, 255))
def test_an_altered_ticket_is_refused(at: int, change: int) -> None:
    """No byte can be changed."""
    raw = bytearray(write(TICKET, ME, SECRET))
    raw[at % len(raw)] ^= change
    assert problem(bytes(raw)) in (TicketProblem.WRONG_MAC, TicketProblem.UNREADABLE)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(raw: bytes) -> None:
    """Bytes of others raise the one error."""
    assert problem(raw) in (TicketProblem.WRONG_MAC, TicketProblem.UNREADABLE)


def test_a_ticket_is_for_one_start_of_one_instance() -> None:
    """What was overheard is of no use elsewhere, or after a restart that has forgotten the nonces."""
    raw = write(TICKET, ME, SECRET)
    assert problem(raw, me=ME._replace(name="10.0.0.3:7000")) is TicketProblem.WRONG_MAC
    assert problem(raw, me=ME._replace(boot="later")) is TicketProblem.WRONG_MAC
    assert problem(raw, secret=b"other") is TicketProblem.WRONG_MAC


def test_a_ticket_is_good_for_a_short_time() -> None:
    """Neither old tickets nor those of a clock that is far ahead are taken."""
    raw = write(TICKET, ME, SECRET)
    assert problem(raw, now=NOW + MAX_AGE_S + 1) is TicketProblem.WRONG_TIME
    assert problem(raw, now=NOW - MAX_AGE_S - 1) is TicketProblem.WRONG_TIME


def test_a_ticket_of_another_version_cannot_be_read() -> None:
    """A later version may mean something else by the same bytes."""
    assert problem(b"\x02" + write(TICKET, ME, SECRET)[1:]) is TicketProblem.UNREADABLE


def test_a_signed_ticket_with_bad_text_cannot_be_read() -> None:
    """Even an instance cannot make a reader stumble."""
    raw = write(TICKET._replace(client="\x80"), ME, SECRET)
    body = raw[33:-2] + b"\xff"
    forged = raw[:1] + module._mac(body, ME, SECRET) + body
    assert problem(forged) is TicketProblem.UNREADABLE


def test_a_ticket_is_taken_once() -> None:
    """A replay is refused for as long as the ticket is young enough, whatever came in between."""
    nonces, raw = Nonces(), write(TICKET, ME, SECRET)
    assert read(raw, ME, SECRET, NOW - MAX_AGE_S, nonces) == TICKET
    for number in range(1, 60):
        other = TICKET._replace(nonce=number.to_bytes(NONCE_BYTES), made_at=NOW - MAX_AGE_S + number)
        read(write(other, ME, SECRET), ME, SECRET, NOW - MAX_AGE_S + number, nonces)
        with pytest.raises(TicketError) as caught:
            read(raw, ME, SECRET, NOW - MAX_AGE_S + number, nonces)
        assert caught.value.problem is TicketProblem.REPLAYED


def test_nonces_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that lies can make another one keep only so many."""
    monkeypatch.setattr(module, "MAX_NONCES", 2)
    nonces = Nonces()
    nonces.take(b"1", NOW, NOW)
    nonces.take(b"2", NOW, NOW)
    with pytest.raises(TicketError) as caught:
        nonces.take(b"3", NOW, NOW)
    assert caught.value.problem is TicketProblem.TOO_MANY
    nonces.take(b"3", NOW, NOW + 2 * MAX_AGE_S)


def made(at: float) -> bytes:
    """Return a ticket that was made then."""
    return write(TICKET._replace(made_at=at, nonce=struct.pack("!2d", at, 0.0)), ME, SECRET)


def taken(raw: bytes, nonces: Nonces, now: float) -> str:
    """Return why a ticket is refused; "" if it is taken."""
    try:
        read(raw, ME, SECRET, now, nonces)
    except TicketError as error:
        return error.problem.value
    return ""


def test_a_ticket_is_not_taken_again_by_the_process_that_takes_over() -> None:
    """That has the same boot id, and knows no nonce of the one before; which takes none any more."""
    before, after = Nonces(), Nonces()
    before.begin(NOW - 1000.0)
    raw = made(NOW)
    assert taken(raw, before, NOW + 0.1) == ""
    before.end()
    after.begin(NOW + 0.2)
    for nonces in (before, after):
        for now in (NOW + 0.2, NOW + 10.0, NOW + MAX_AGE_S):
            assert taken(raw, nonces, now) == "taken_over"
    assert taken(raw, after, NOW + MAX_AGE_S + 0.1) == "wrong_time"
    fresh = made(NOW + 0.3)
    assert taken(fresh, before, NOW + 0.3) == "taken_over"
    assert taken(fresh, after, NOW + 0.3) == ""
    assert taken(fresh, after, NOW + 0.4) == "replayed"
    # The one that has taken over dies, and the one before goes on.
    before.begin(NOW + 5.0)
    assert taken(fresh, before, NOW + 5.0) == "taken_over"
    assert taken(made(NOW + 5.0), before, NOW + 5.0) == ""


@given(st.floats(0.0, 100.0), st.floats(-30.0, 100.0))
def test_no_ticket_of_before_is_taken_whenever_it_comes(made_s: float, came_s: float) -> None:
    """However old it is then."""
    nonces = Nonces()
    nonces.begin(NOW)
    assert taken(made(NOW - 0.001 - made_s), nonces, NOW + max(0.0, came_s)) in ("taken_over", "wrong_time")


def test_a_clock_that_is_set_back_after_the_start_stops_nothing() -> None:
    """An hour of refusals would be worse than a replay in the moment in which the clock is set."""
    nonces = Nonces()
    nonces.begin(NOW)
    assert taken(made(NOW - 3600.0), nonces, NOW - 3600.0) == ""
