"""Where TLS records end, and how many there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.listen.tls.records import MAX_RECORD_BYTES, MAX_RECORDS, whole_records

ENOUGH_BYTES = 1 << 20
DATA, ALERT = 23, 21


def record(size: int, content_type: int = DATA) -> bytes:
    """Return a record with this many bytes behind its header."""
    return bytes([content_type, 3, 3]) + size.to_bytes(2, "big") + bytes(size)


@given(st.lists(st.integers(0, 300), max_size=20), st.integers(0, 300))
def test_whole_records_are_counted(sizes: list[int], cut: int) -> None:
    """A record that is not complete is left for later."""
    whole = b"".join(map(record, sizes))
    assert whole_records(whole + record(301)[:cut], ENOUGH_BYTES) == (len(whole), len(sizes))


@pytest.mark.parametrize(("enough_bytes", "taken"), [(1, 1), (105, 1), (106, 2), (211, 3), (ENOUGH_BYTES, 4)])
def test_no_more_is_taken_than_is_enough(enough_bytes: int, taken: int) -> None:
    """The record that reaches the bound is the last one, and at least one is taken."""
    assert whole_records(record(100) * 4, enough_bytes) == (taken * 105, taken)


def test_small_records_are_bounded_too() -> None:
    """At most `MAX_RECORDS` are taken at once, however small they are."""
    assert whole_records(record(0) * (MAX_RECORDS + 1), ENOUGH_BYTES) == (MAX_RECORDS * 5, MAX_RECORDS)


@pytest.mark.parametrize(
    "nonsense", [record(1, 19), record(1, 25), record(MAX_RECORD_BYTES - 4), b"GET / HTTP/1.1\r\n"]
)
def test_bytes_that_are_no_record_are_taken_whole(nonsense: bytes) -> None:
    """Bytes that are no record are passed to OpenSSL at once, which answers them."""
    assert whole_records(record(3) + nonsense, ENOUGH_BYTES) == (len(record(3) + nonsense), 1)


@pytest.mark.parametrize("size", [0, MAX_RECORD_BYTES - 5])
def test_the_longest_and_the_shortest_record(size: int) -> None:
    """The longest and the shortest record are accepted."""
    assert whole_records(record(size, ALERT), ENOUGH_BYTES) == (size + 5, 1)
