"""Events for tests of stores: canonical and with the right id, but not signed."""

from __future__ import annotations

from collections.abc import Sequence

from pyryrelay.nostr.events import Event, canonical, event_id

ALICE, BOB, CAROL = (letter * 64 for letter in "abc")
SIG = "0" * 128


def make_event(
    pubkey: str = ALICE,
    kind: int = 1,
    created_at: int = 1000,
    tags: Sequence[Sequence[str]] = (),
    content: str = "",
) -> Event:
    """Return an event with its id."""
    event = Event("", pubkey, created_at, kind, [list(tag) for tag in tags], content, SIG)
    return Event(event_id(canonical(event).preimage), pubkey, created_at, kind, event.tags, content, SIG)


def json_of(event: Event) -> bytes:
    """Return what is stored of an event."""
    return canonical(event).json


def id_of(event: Event) -> bytes:
    """Return the id as the store has it."""
    return bytes.fromhex(event.id)
