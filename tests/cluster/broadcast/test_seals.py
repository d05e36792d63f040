"""Sealed entries: only members can make or read them."""

from __future__ import annotations

import pytest

from pyryrelay.cluster.broadcast.seals import OVERHEAD_BYTES, Seals

KEY = b"k" * 32


def test_members_read_what_a_member_has_sealed() -> None:
    """Each of them, with the time that the sender vouches for; nothing of it can be seen outside."""
    a, b = Seals(KEY), Seals(KEY)
    entries = [a.sealed(b"secret words", 1_790_000_000.25, b"stream") for _ in range(3)]
    assert [b.opened(each, b"stream") for each in entries] == [(1_790_000_000.25, b"secret words")] * 3
    assert len({*entries}) == 3
    assert all(b"secret" not in each and len(each) == OVERHEAD_BYTES + 12 for each in entries)
    assert b.opened(a.sealed(b"", -5.0, b"stream"), b"stream") == (0.0, b"")


def test_own_entries_are_known() -> None:
    """Without opening them."""
    a, b = Seals(KEY), Seals(KEY)
    entry = a.sealed(b"", 1.0, b"stream")
    assert a.is_own(entry)
    assert not b.is_own(entry)


def test_nothing_else_is_read() -> None:
    """Neither what was changed in any byte or cut short, nor what is of another stream or another secret."""
    a, b = Seals(KEY), Seals(KEY)
    entry = a.sealed(b"body", 1.0, b"stream")
    for at in range(len(entry)):
        changed = bytearray(entry)
        changed[at] ^= 1
        assert b.opened(bytes(changed), b"stream") is None
        assert b.opened(entry[:at], b"stream") is None
    assert b.opened(entry, b"other") is None
    assert Seals(b"x" * 32).opened(entry, b"stream") is None
    assert b.opened(entry, b"stream") is not None


@pytest.mark.parametrize("raw", [b"", b"\x01", b"\x00" * 100, b"\xff" * 100])
def test_garbage_is_not_read(raw: bytes) -> None:
    """Whoever can write to the server can put anything there."""
    assert Seals(KEY).opened(raw, b"stream") is None


def test_invented_senders_take_no_memory() -> None:
    """The keys of senders are kept for a few hundred of them."""
    seals = Seals(KEY)
    for number in range(1000):
        assert seals.opened(b"\x01" + number.to_bytes(8) + b"\x00" * 60, b"stream") is None
    assert seals._others.cache_info().currsize == 256
