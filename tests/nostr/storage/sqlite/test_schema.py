"""The keys in the tables."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_events import ALICE, make_event

from pyryrelay.nostr.events import indexed_tags
from pyryrelay.nostr.storage.sqlite.schema import address_key, event_address_key, expires, tag_key, tag_keys

HEX = "0123456789abcdef" * 4


def test_keys_of_hex_values_begin_with_the_value() -> None:
    """Ids and public keys are not hashed; anything else is."""
    assert tag_key("e", HEX) == b"e" + bytes.fromhex(HEX)[:16]
    for value in ("", HEX[:63], HEX + "0", "x\0", "g" * 64, "\u0660" * 64):
        assert tag_key("t", value) == b"t" + sha256(value.encode()).digest()[:16]


def test_an_event_has_each_key_once() -> None:
    """Repeated tags make one row; tags that filters cannot ask for make none."""
    tags = [["e", HEX], ["e", HEX], ["E", HEX], ["t"], ["tt", "x"], [], ["1", "x"], ["\u00e9", "x"], ["t", "g" * 64]]
    assert tag_keys(make_event(tags=tags)) == {tag_key("e", HEX), tag_key("E", HEX), tag_key("t", "g" * 64)}


_values = st.text(max_size=3) | st.text("0123456789abcdefABCDEF g\u0660", min_size=63, max_size=65)


@given(st.lists(st.lists(st.sampled_from(["e", "t", "Z", "", "ee", "\u00e9"]) | _values, max_size=3), max_size=5))
def test_keys_of_an_event_are_those_of_its_tags(tags: list[list[str]]) -> None:
    """The fast way to all keys of an event gives the keys that look-ups use."""
    event = make_event(tags=tags)
    assert tag_keys(event) == {tag_key(letter, value) for letter, value in indexed_tags(event)}


@given(st.tuples(st.integers(0, 65_535), st.text()), st.tuples(st.integers(0, 65_535), st.text()))
def test_different_addresses_have_different_keys(one: tuple[int, str], other: tuple[int, str]) -> None:
    """Keys are equal for equal kinds and `d` only."""
    keys = [address_key(kind, ALICE, d) for kind, d in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


def test_only_some_events_have_an_address() -> None:
    """Regular events have none."""
    assert event_address_key(make_event(kind=1, tags=[["d", "x"]])) is None
    assert event_address_key(make_event(kind=30_000, tags=[["d", "x"]])) == address_key(30_000, ALICE, "x")


def test_unreadable_expirations_expire_nothing() -> None:
    """Events with such a tag, which publishing refuses, can still be imported."""
    assert expires(make_event(tags=[["expiration", "soon"]])) is None
    assert expires(make_event(tags=[["expiration", "12"]])) == 12
