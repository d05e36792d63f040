"""Quotas of events: who pays for what, all or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.nostr_policies import ALICE, BOB, CAROL, client, event, quotas, text_of

from pyryrelay.guard import Quota
from pyryrelay.nostr.options.types.rules import KindQuota
from pyryrelay.nostr.policies.quotas.tables import ConnectionQuotas

ONE, TWO = Quota.parse("1/minute"), Quota.parse("2/minute")
ME, NEIGHBOUR, STRANGER = client("192.0.2.1"), client("192.0.2.2"), client("198.51.100.1")
NOTE, SIGNAL = event(1), event(20_001)


def test_without_quotas_nothing_is_refused() -> None:
    """What is off spends nothing and tracks nothing."""
    made = quotas()
    for now in range(100):
        assert made.events.spend(ME, NOTE, ConnectionQuotas(), now) is None
        assert made.events.spend_author(event(content="x" * 40), frozenset(), now) is None
        assert made.queries.spend_filters(ME, 100, ConnectionQuotas(), now) is None
        assert made.queries.spend_count(ME, now) is None
        assert made.spend_auth(ME, now) is None
        assert made.spend_invalid(ME, now)
        made.queries.spend_work(ME, 10**9, now)
        assert made.queries.work_wait_s(ME, now) == 0
        made.sweep(now)
    assert made.tracked == 0


@pytest.mark.parametrize(
    ("field", "one", "same", "other"),
    [
        ("nostr_event_quota", NOTE, ME, NEIGHBOUR),
        ("nostr_event_prefix_quota", NOTE, NEIGHBOUR, STRANGER),
        ("nostr_ephemeral_quota", SIGNAL, ME, NEIGHBOUR),
        ("nostr_ephemeral_prefix_quota", SIGNAL, NEIGHBOUR, STRANGER),
    ],
)
def test_clients_and_prefixes(field: str, one: Any, same: Any, other: Any) -> None:
    """An address or a prefix has its quota, for one of the two sorts of events."""
    made = quotas(**{field: ONE})
    connection = ConnectionQuotas()
    assert made.events.spend(ME, one, connection, 0.0) is None
    assert text_of(made.events.spend(same, one, connection, 0.5)) == "rate-limited: too many events, try again in 60 s"
    assert made.events.spend(other, one, connection, 0.5) is None
    assert made.events.spend(ME, SIGNAL if one is NOTE else NOTE, connection, 0.5) is None
    assert made.events.spend(same, one, connection, 60.0) is None
    assert made.tracked == 2


@pytest.mark.parametrize("field", ["nostr_connection_event_quota", "nostr_relay_event_quota"])
def test_connections_and_the_relay(field: str) -> None:
    """A connection, or the whole relay, has one bucket for each sort of events."""
    made = quotas(**{field: ONE})
    connection, other = ConnectionQuotas(), ConnectionQuotas()
    for one in (NOTE, SIGNAL):
        assert made.events.spend(ME, one, connection, 0.0) is None
        assert made.events.spend(ME, one, connection, 1.0) is not None
        assert (made.events.spend(STRANGER, one, other, 1.0) is None) == (field == "nostr_connection_event_quota")
        assert made.events.spend(ME, one, connection, 61.0) is None


def test_kinds_have_their_own() -> None:
    """Each rule has a bucket for a client, for all of its kinds together, whatever else the client pays."""
    rules = (KindQuota(frozenset({1, 2}), ONE), KindQuota(frozenset({2, 3}), TWO))
    made, connection = quotas(nostr_kind_quota=rules), ConnectionQuotas()
    spent = [made.events.spend(ME, event(kind), connection, 0.0) is None for kind in (2, 1, 3, 3, 4)]
    assert spent == [True, False, True, False, True]
    assert made.events.spend(STRANGER, event(1), connection, 0.0) is None


def test_what_is_refused_spends_nothing() -> None:
    """Whichever quota refuses an event, the others keep their tokens, and the longest wait is told."""
    made = quotas(
        nostr_event_quota=TWO,
        nostr_event_prefix_quota=Quota.parse("2/hour"),
        nostr_relay_event_quota=Quota.parse("9/h"),
    )
    connection = ConnectionQuotas()
    assert made.events.spend(ME, NOTE, connection, 0.0) is None
    assert made.events.spend(NEIGHBOUR, NOTE, connection, 0.0) is None
    for _ in range(20):
        refused = made.events.spend(ME, NOTE, connection, 0.0)
        assert text_of(refused) == "rate-limited: too many events, try again in 1800 s"
    others = [client(f"203.0.{number}.1") for number in range(8)]
    assert [made.events.spend(other, NOTE, connection, 0.0) is None for other in others] == [True] * 7 + [False]
    assert made.events.spend(ME, NOTE, connection, 1800.0) is None


def test_unknown_clients_are_one() -> None:
    """Clients without an address share everything."""
    made, connection = quotas(nostr_event_quota=ONE, nostr_event_prefix_quota=ONE), ConnectionQuotas()
    assert made.events.spend(None, NOTE, connection, 0.0) is None
    assert made.events.spend(None, NOTE, connection, 0.0) is not None
    assert made.events.spend(ME, NOTE, connection, 0.0) is None


@pytest.mark.parametrize(
    ("field", "kind", "other_kind"), [("nostr_pubkey_quota", 1, 20_000), ("nostr_ephemeral_pubkey_quota", 20_000, 1)]
)
def test_authors(field: str, kind: int, other_kind: int) -> None:
    """An author has a quota wherever the events come from, for each sort of events."""
    made = quotas(**{field: ONE})
    assert made.events.spend_author(event(kind), frozenset(), 0.0) is None
    expected = "rate-limited: too many events of this key, try again in 60 s"
    assert text_of(made.events.spend_author(event(kind), frozenset({BOB}), 0.0)) == expected
    assert made.events.spend_author(event(other_kind), frozenset(), 0.0) is None
    assert made.events.spend_author(event(kind, pubkey=BOB), frozenset(), 0.0) is None


def test_authenticated_keys_pay_instead() -> None:
    """With a quota of authenticated keys, these pay, and neither the client nor the author does."""
    made = quotas(nostr_authed_quota=TWO, nostr_event_quota=ONE, nostr_pubkey_quota=ONE)
    connection, keys = ConnectionQuotas(), frozenset({ALICE, BOB})
    for _ in range(3):
        assert made.events.spend(ME, NOTE, connection, 0.0, keys) is None
    assert [made.events.spend_author(NOTE, keys, 0.0) is None for _ in range(3)] == [True, True, False]
    assert made.events.spend_author(event(pubkey=BOB), keys, 0.0) is None
    # The events of others are paid with one of the keys, always the same.
    assert made.events.spend_author(event(pubkey=CAROL), keys, 0.0) is not None
    assert made.events.spend_author(event(pubkey=CAROL), frozenset({BOB}), 0.0) is None
    # Clients that have not authenticated pay as ever.
    assert made.events.spend(ME, NOTE, connection, 0.0) is None
    assert made.events.spend(ME, NOTE, connection, 0.0) is not None


def test_repeated_content() -> None:
    """The same content is refused after its quota, by any author; short contents may be repeated."""
    made = quotas(nostr_repeat_quota=ONE, nostr_pubkey_quota=TWO)
    spam = "x" * 32
    assert made.events.spend_author(event(content=spam), frozenset(), 0.0) is None
    repeated = made.events.spend_author(event(content=spam, pubkey=BOB), frozenset(), 0.0)
    assert text_of(repeated) == "rate-limited: this text was posted too often"
    for _ in range(2):
        # The refusal has spent nothing of the author.
        assert made.events.spend_author(event(content="x" * 31, pubkey=BOB), frozenset(), 0.0) is None
    assert made.events.spend_author(event(content=spam + "x"), frozenset(), 0.0) is None
    # An author without tokens spends none of the content.
    assert made.events.spend_author(event(content="y" * 32), frozenset(), 0.0) is not None
    assert made.events.spend_author(event(content="y" * 32, pubkey=CAROL), frozenset(), 0.0) is None
