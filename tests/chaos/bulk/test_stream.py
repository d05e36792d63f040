"""Prepared blocks, what arrives in any pieces, and the rate."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chaos.bulk.stream import BLOCK_BYTES, Block, Inbox, OutOfStep, Share, envelope, payload
from tests.support.frames import CLOSE, CONTINUATION, PING, PONG, TEXT, frame, header

SIZES = (12, 13, 125, 126, 1024, 65536)


def from_server(data: bytes, opcode: int = TEXT, *, fin: bool = True) -> bytes:
    """Return a frame of a server."""
    return header(len(data), opcode, fin=fin, masked=False) + data


def in_parts(data: bytes) -> bytes:
    """Return a message in three fragments with a ping and a pong between them."""
    first, last = from_server(data[:50], fin=False), from_server(data[60:], CONTINUATION)
    return (
        first
        + from_server(b"between", PING)
        + from_server(b"", PONG)
        + from_server(data[50:60], CONTINUATION, fin=False)
        + last
    )


@pytest.mark.parametrize("size_bytes", SIZES)
def test_a_payload_has_its_size(size_bytes: int) -> None:
    """It is JSON, and so is its envelope."""
    assert len(payload(size_bytes)) == size_bytes
    assert envelope("x", b"1") == b'{"conn_id":"x","frame":1}'


def test_a_block_is_taken_by_turns() -> None:
    """Whole frames in order, and again from the beginning after the end."""
    block = Block([b"a" * 50_000, b"b" * 50_000])
    taken = b""
    numbers = []
    for most in (1, 2, 5, 1):
        data, count = block.take(most)
        numbers.append(count)
        taken += data
    assert numbers == [1, 2, 1, 1]
    assert len(taken) >= BLOCK_BYTES
    a, b = frame(b"a" * 50_000), frame(b"b" * 50_000)
    assert taken == a + b + a + b + a
    with pytest.raises(ValueError, match="several sizes"):
        Block([b"a", b"bb"])


@given(st.lists(st.sampled_from(SIZES), max_size=6), st.integers(1, 70_000), st.integers(0, 3))
@settings(max_examples=30)
def test_an_inbox_counts_in_any_pieces(sizes: list[int], piece_bytes: int, wanted: int) -> None:
    """Texts are counted, the first ones kept, and what pings say is passed on."""
    stream = b"".join(from_server(payload(size)) + from_server(b"p%d" % size, PING) for size in sizes)
    stream += in_parts(payload(200)) + from_server(b"\x03\xe8", CLOSE)
    pings: list[bytes] = []
    inbox = Inbox(pings.append, wanted)
    for at in range(0, len(stream), piece_bytes):
        inbox.feed(stream[at : at + piece_bytes])
    assert inbox.texts == len(sizes) + 1
    assert inbox.kept == [payload(size) for size in sizes[:wanted]]
    assert pings == [*(b"p%d" % size for size in sizes), b"between"]
    assert inbox.is_closed
    assert inbox.size_bytes == len(stream)


def test_an_inbox_tells_what_is_no_frame() -> None:
    """A stream that has lost its step is found at the next header."""
    inbox = Inbox(lambda _: None)
    with pytest.raises(OutOfStep, match="0x41"):
        inbox.feed(from_server(payload(20)) + b"A" * 20)
    with pytest.raises(OutOfStep, match="0x80"):
        Inbox(lambda _: None).feed(from_server(b"end", CONTINUATION))
    with pytest.raises(OutOfStep, match="0x81 inside"):
        Inbox(lambda _: None).feed(from_server(b"begin", fin=False) + from_server(b"another"))


def test_the_rate_leads_to_the_share() -> None:
    """Also if something else uses a part, and without jumps."""
    share, used = Share(0.3), 0.0
    for _ in range(40):
        before = share.rate
        used = 0.05 + 0.04 * share.next(used)
        assert share.rate <= before * Share.STEP
    assert used == pytest.approx(0.3, abs=0.01)
    for _ in range(80):
        share.next(1.0)
    assert share.rate == Share.LEAST
