"""Sealed rows of the jail's stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.cluster.limits.rows import Row, Rows
from pyryrelay.guard import address_key
from pyryrelay.guard.client import named

KEY = b"k" * 32
ROWS = Rows(KEY, b"member-1")
ADDRESS = named("198.51.100.7").key


@pytest.mark.parametrize("address", ["198.51.100.7", "2001:db8::7"])
@pytest.mark.parametrize("times", [None, 0, 1, 64])
def test_members_read_what_members_wrote(address: str, times: int | None) -> None:
    """A row says whom, until when, and the how-manieth time; or that it is a release."""
    key = named(address).key
    sealed = ROWS.sealed(key, 1_790_000_000.25, times)
    assert Rows(KEY, b"member-2").opened(sealed) == Row(key, 1_790_000_000.25, times, b"member-1")
    assert address_key is not None


def test_members_have_names_for_people() -> None:
    """A row has the one of the member that passed the sentence, and no name that would upset a terminal."""
    named_rows = Rows(KEY, b"member-1", "10.0.0.1:7000")
    reader = Rows(KEY, b"member-2", "10.0.0.2:7000")
    assert opened(reader, named_rows.sealed(ADDRESS, 1.0, 1)) == "10.0.0.1:7000"
    assert opened(reader, named_rows.sealed(ADDRESS, 1.0, 1, "10.0.0.3:7000")) == "10.0.0.3:7000"
    for name in ("\x1b[2J", "ü", "x" * 256):
        assert opened(reader, Rows(KEY, b"member-1", name).sealed(ADDRESS, 1.0, 1)) == ""
    assert opened(reader, named_rows.sealed(ADDRESS, 1.0, 1)) is opened(reader, named_rows.sealed(ADDRESS, 2.0, 1))


def opened(rows: Rows, sealed: bytes) -> str:
    """Return the origin of a row."""
    row = rows.opened(sealed)
    assert row is not None
    return row.origin


def test_others_can_neither_read_nor_write() -> None:
    """Two rows about the same are not alike, and another secret opens none."""
    first, second = ROWS.sealed(ADDRESS, 1.0, 1), ROWS.sealed(ADDRESS, 1.0, 1)
    assert first != second
    assert ADDRESS.to_bytes(17, "big") not in first
    assert Rows(b"x" * 32, b"member-1").opened(first) is None


@given(noise=st.binary(max_size=90), place=st.integers(0, 60), bit=st.integers(1, 255))
def test_what_was_changed_is_not_read(noise: bytes, place: int, bit: int) -> None:
    """Nothing that was not sealed whole by a member opens, and nothing raises."""
    assert ROWS.opened(noise) is None
    sealed = bytearray(ROWS.sealed(ADDRESS, 1.0, 1))
    sealed[place % len(sealed)] ^= bit
    assert ROWS.opened(bytes(sealed)) is None


def test_a_member_cannot_name_what_is_no_address() -> None:
    """Not even with the secret."""
    assert ROWS.opened(ROWS.sealed(0, 1.0, 1)) is None
