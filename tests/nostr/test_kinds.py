"""Kinds: every class, addresses and the order of versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.kinds import CREDENTIALS, PRIVATE_KINDS, KindClass, address, class_of, is_newer

KEY = "ab" * 32


def make(kind: int, tags: list[list[str]]) -> Event:
    """Return an event of a kind."""
    return Event(KEY, KEY, 1, kind, tags, "", KEY * 2)


@pytest.mark.parametrize(
    ("kind_class", "kinds"),
    [
        (KindClass.REGULAR, {1, 2, 4, 5, 41, 44, 45, 999, 1000, 1059, 1984, 9999, 40_000, 65_535}),
        (KindClass.REPLACEABLE, {0, 3, 10_000, 10_002, 19_999}),
        (KindClass.EPHEMERAL, {20_000, 21_059, 29_999}),
        (KindClass.ADDRESSABLE, {30_000, 30_166, 39_999}),
    ],
)
def test_each_kind_has_its_class(kind_class: KindClass, kinds: set[int]) -> None:
    """The ranges of NIP-01, at their ends; what is in no other class is regular."""
    assert {class_of(kind) for kind in kinds} == {kind_class}


def test_credentials_are_ephemeral() -> None:
    """Kinds that prove an identity are never stored, even if they were published."""
    assert {class_of(kind) for kind in CREDENTIALS} == {KindClass.EPHEMERAL}
    assert CREDENTIALS.isdisjoint(PRIVATE_KINDS)


@pytest.mark.parametrize(
    ("tags", "d"),
    [
        ([], ""),
        ([["e", "x"]], ""),
        ([["d"]], ""),
        ([["d"], ["d", "x"]], ""),
        ([["d", ""], ["d", "x"]], ""),
        ([["D", "y"], ["d", "x", "z"], ["d", "y"]], "x"),
        ([["d", "a\0b"]], "a\0b"),
        ([["d", "x" * 100_000]], "x" * 100_000),
    ],
)
def test_the_first_d_tag_is_the_address(tags: list[list[str]], d: str) -> None:
    """`d` is element 1 of the first `d` tag, whole; without one it is empty."""
    assert address(make(30_000, tags)) == (30_000, KEY, d)


def test_only_versions_have_an_address() -> None:
    """Replaceable events have an empty `d` whatever their tags say; the other classes have no address."""
    assert address(make(0, [["d", "x"]])) == (0, KEY, "")
    assert address(make(1, [["d", "x"]])) is None
    assert address(make(20_000, [["d", "x"]])) is None


versions = st.tuples(st.integers(0, 3), st.sampled_from(["00", "0a", "a0", "ff"]))


@given(versions, versions)
def test_of_two_versions_one_wins(one: tuple[int, str], other: tuple[int, str]) -> None:
    """The later version wins, at the same time the one with the smaller id, and none over itself."""
    wins = is_newer(*one, *other)
    assert wins == (one[0] > other[0] or (one[0] == other[0] and one[1] < other[1]))
    assert wins + is_newer(*other, *one) == (one != other)
