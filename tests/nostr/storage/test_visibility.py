"""Who sees which event: private kinds, expiration, and hidden authors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_filters import PUBLIC_KEYS, A, B, C, events, make_event

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.storage.visibility import View, may_see

PRIVATE = frozenset({4, 1059, 21059})


def view(*keys: str, wall_s: int = 100, hidden: frozenset[str] = frozenset()) -> View:
    return View(frozenset(keys), PRIVATE, wall_s, hidden)


@pytest.mark.parametrize("kind", sorted(PRIVATE))
def test_private_kinds_are_for_their_parties(kind: int) -> None:
    """An event of a private kind is seen by its author and by the keys in any of its `p` tags, and by nobody else."""
    event = make_event(pubkey=A, kind=kind, tags=[["p"], ["p", C], ["P", "d" * 64], ["e", "d" * 64], ["p", B, "relay"]])
    assert [may_see(event, view(*keys)) for keys in [(A,), (B,), (C,), ("d" * 64, B)]] == [True] * 4
    assert [may_see(event, view(*keys)) for keys in [(), ("d" * 64,), (A.upper(),)]] == [False] * 3


def test_other_kinds_are_for_everybody() -> None:
    """Which kinds are private is the operator's choice; the others are seen without a key."""
    assert may_see(make_event(kind=1), view())
    assert may_see(make_event(kind=4), View(frozenset(), frozenset(), 100))
    assert not may_see(make_event(kind=1), View(frozenset(), frozenset({1}), 100))


@pytest.mark.parametrize(("wall_s", "is_seen"), [(0, True), (98, True), (99, False), (100, False), (10**12, False)])
def test_expired_events_are_seen_by_nobody(wall_s: int, is_seen: bool) -> None:
    """From the second of its earliest expiration on, an event is hidden from its author too."""
    event = make_event(pubkey=A, tags=[["expiration", "150"], ["expiration", "99"]])
    assert may_see(event, view(A, wall_s=wall_s)) is is_seen


def test_an_expiration_that_cannot_be_read_expires_nothing() -> None:
    """An unreadable time hides nothing; publishing has refused such events."""
    assert may_see(make_event(tags=[["expiration", "soon"]]), view())


def test_hidden_authors() -> None:
    """Nothing of a hidden author is seen, not by the author either; being mentioned by others hides nothing."""
    assert not may_see(make_event(pubkey=A), view(A, hidden=frozenset({A})))
    assert may_see(make_event(pubkey=B, tags=[["p", A]]), view(hidden=frozenset({A})))


@given(events(), st.frozensets(st.sampled_from(PUBLIC_KEYS)), st.frozensets(st.sampled_from(PUBLIC_KEYS), max_size=1))
def test_may_see_against_the_rules_one_by_one(event: Event, keys: frozenset[str], hidden: frozenset[str]) -> None:
    """An event is seen if it is of no hidden author, and public or of one of the keys."""
    parties = {event.pubkey, *(tag[1] for tag in event.tags if len(tag) > 1 and tag[0] == "p")}
    expected = event.pubkey not in hidden and (event.kind not in PRIVATE or not parties.isdisjoint(keys))
    assert may_see(event, view(*keys, hidden=hidden)) is expected
    assert expected or not may_see(event, view(hidden=hidden))
