"""What clients were refused lately."""

from __future__ import annotations

from tests.support.nostr_policies import client

from pyryrelay.nostr.observe.refused import MOST_CLIENTS, REMEMBERED_S, Refusals, RefusedLately

ME, YOU = client("192.0.2.1"), client("192.0.2.2")


def test_refusals_are_counted_by_message_and_reason() -> None:
    """Of each client by itself, the latest first."""
    lately = RefusedLately()
    lately.add(ME, "EVENT", "rate_limit", 1.0)
    lately.add(ME, "REQ", "scrape", 2.0)
    lately.add(ME, "EVENT", "rate_limit", 3.0)
    lately.add(YOU, "AUTH", "time", 4.0)
    assert lately.of(ME.key, 5.0) == [Refusals("EVENT", "rate_limit", 2, 3.0), Refusals("REQ", "scrape", 1, 2.0)]
    assert lately.of(YOU.key, 5.0) == [Refusals("AUTH", "time", 1, 4.0)]
    assert lately.of(client("192.0.2.3").key, 5.0) == []


def test_refusals_are_forgotten() -> None:
    """After an hour they are not told of, and the next one is the first again."""
    lately = RefusedLately()
    lately.add(ME, "EVENT", "rate_limit", 0.0)
    lately.add(ME, "EVENT", "rate_limit", 1.0)
    assert [one.times for one in lately.of(ME.key, REMEMBERED_S)] == [2]
    assert lately.of(ME.key, REMEMBERED_S + 1.0) == []
    lately.add(ME, "EVENT", "rate_limit", REMEMBERED_S + 1.0)
    assert [one.times for one in lately.of(ME.key, REMEMBERED_S + 1.0)] == [1]


def test_clients_are_forgotten() -> None:
    """Those who were refused nothing for an hour take no memory any more."""
    lately = RefusedLately()
    lately.add(ME, "EVENT", "rate_limit", 0.0)
    lately.add(YOU, "EVENT", "rate_limit", 1.0)
    lately.add(ME, "REQ", "scrape", 2.0)
    lately.sweep(REMEMBERED_S)
    assert len(lately) == 2
    lately.sweep(REMEMBERED_S + 1.0)
    assert [len(lately), len(lately.of(ME.key, REMEMBERED_S + 1.0))] == [1, 1]
    lately.sweep(REMEMBERED_S + 2.0)
    assert len(lately) == 0


def test_memory_is_bounded() -> None:
    """Those who were refused something last are remembered: others make room."""
    lately = RefusedLately(most=2)
    lately.add(ME, "EVENT", "rate_limit", 0.0)
    lately.add(YOU, "EVENT", "rate_limit", 1.0)
    lately.add(ME, "EVENT", "rate_limit", 2.0)
    lately.add(client("192.0.2.3"), "EVENT", "rate_limit", 3.0)
    assert len(lately) == 2
    assert [len(lately.of(one.key, 4.0)) for one in (ME, YOU)] == [1, 0]
    assert MOST_CLIENTS == 4_096


def test_clients_without_an_address() -> None:
    """They cannot be asked for, so they take no memory."""
    lately = RefusedLately()
    lately.add(None, "EVENT", "rate_limit", 0.0)
    assert len(lately) == 0
