"""How much is read at once from a peer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.harness import ALICE
from tests.support.transports import Transport, tcp_address
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection

from pyryrelay.websocket.reading.read_size import (
    ALONE_S,
    CHEAP_S,
    EXPENSIVE_S,
    FIRST_READ_BYTES,
    LEAST_READ_BYTES,
    MOST_READ_BYTES,
    WIDE_AFTER,
    WIDE_READ_BYTES,
    ReadSize,
    WideReadSlot,
)


class Streamer:
    """A peer that streams, on a clock of its own."""

    def __init__(self, wide_slot: WideReadSlot) -> None:
        self._ends = socket.socketpair()
        transport: Any = Connection(self._ends[0], Protocol(), object())  # type: ignore[arg-type]
        self.transport = transport
        self.read_size = ReadSize(self.transport, wide_slot)
        self.now = 0.0

    def streams(self, chunks: int, spent_s: float = CHEAP_S / 2, others_s: float = 0.0) -> list[int]:
        """Chunks that take so long each, after what others took; what was read at once after each, in KiB."""
        sizes = []
        for _ in range(chunks):
            began_s = self.now + others_s
            self.now = began_s + spent_s
            self.read_size.chunk(began_s, self.now)
            assert self.transport.bufferSize == self.read_size.full_bytes
            sizes.append(self.size)
        return sizes

    @property
    def size(self) -> int:
        """What is read at once, in KiB."""
        size: int = self.transport.bufferSize // 1024
        return size

    def close(self) -> None:
        """Leave no descriptor behind."""
        for end in self._ends:
            end.close()


@pytest.fixture
def pair() -> Iterator[tuple[Streamer, Streamer]]:
    """Two who share a seat."""
    wide_slot = WideReadSlot()
    made = Streamer(wide_slot), Streamer(wide_slot)
    yield made
    for streamer in made:
        streamer.close()


@pytest.fixture
def streamer(pair: tuple[Streamer, Streamer]) -> Streamer:
    """One of them."""
    return pair[0]


def test_a_peer_whose_bytes_are_dear_is_read_less_at_once(streamer: Streamer) -> None:
    """Half as much after each dear chunk, down to a least; twice as much after each cheap one, up to what is usual."""
    assert streamer.size * 1024 == FIRST_READ_BYTES
    assert streamer.streams(4, 2 * EXPENSIVE_S) == [8, 4, 4, 4]
    assert streamer.streams(2, EXPENSIVE_S / 2) == [4, 4]
    assert streamer.streams(6) == [8, 16, 32, 64, 64, 64]
    assert streamer.streams(1, 2 * EXPENSIVE_S) == [32]
    assert (LEAST_READ_BYTES, MOST_READ_BYTES) == (4096, 65536)


def test_who_streams_alone_is_read_wide_after_a_streak(streamer: Streamer) -> None:
    """Twice as much at once after each streak of cheap chunks, up to a most."""
    streamer.streams(2)
    assert streamer.streams(WIDE_AFTER - 1) == [64] * (WIDE_AFTER - 1)
    assert streamer.streams(WIDE_AFTER) == [128] * WIDE_AFTER
    assert streamer.streams(3 * WIDE_AFTER) == [256] * 3 * WIDE_AFTER
    assert streamer.size * 1024 == WIDE_READ_BYTES


def test_a_dear_chunk_ends_wide_reading_and_every_streak(streamer: Streamer) -> None:
    """Whoever is read wide gets less than the usual at once, and has to begin anew."""
    streamer.streams(2 + 2 * WIDE_AFTER)
    assert streamer.size == 256
    assert streamer.streams(1, 2 * EXPENSIVE_S) == [32]
    assert streamer.streams(WIDE_AFTER) == [64] * WIDE_AFTER
    assert streamer.streams(1) == [128]


def test_a_chunk_that_would_be_dear_twice_as_long_does_not_count(streamer: Streamer) -> None:
    """What is between cheap and dear changes nothing."""
    streamer.streams(2)
    assert streamer.streams(2 * WIDE_AFTER, EXPENSIVE_S * 0.6) == [64] * 2 * WIDE_AFTER


def test_a_chunk_that_is_not_cheap_begins_the_streak_anew(streamer: Streamer) -> None:
    """Cheap ones between others never make one."""
    streamer.streams(2)
    for _ in range(3 * WIDE_AFTER):
        assert streamer.streams(1) + streamer.streams(1, EXPENSIVE_S * 0.9) == [64, 64]


def test_what_is_told_while_reading_wide(streamer: Streamer) -> None:
    """Chunks of the usual length too, so that whoever holds the seat and sends less than it may is seen to."""
    assert streamer.read_size.telling_bytes == FIRST_READ_BYTES
    streamer.streams(2 + 2 * WIDE_AFTER)
    assert (streamer.read_size.full_bytes, streamer.read_size.telling_bytes) == (WIDE_READ_BYTES, MOST_READ_BYTES)


def test_nobody_is_read_wide_while_others_have_their_turns(streamer: Streamer) -> None:
    """It takes the whole turn; a turn of somebody else ends it."""
    streamer.streams(2)
    assert set(streamer.streams(4 * WIDE_AFTER, others_s=2 * ALONE_S)) == {64}
    streamer.streams(2 * WIDE_AFTER + 1)
    assert streamer.size == 256
    assert streamer.streams(1, others_s=2 * ALONE_S) == [64]


def test_one_at_a_time_is_read_wide(pair: tuple[Streamer, Streamer]) -> None:
    """Whoever takes the seat takes it from somebody: those who were read wide once cannot all be so at once."""
    first, second = pair
    first.streams(2 + 2 * WIDE_AFTER)
    second.streams(2 + WIDE_AFTER)
    assert (first.size, second.size) == (64, 128)
    first.streams(2 * WIDE_AFTER)
    assert (first.size, second.size) == (256, 64)


def test_nobody_is_read_wide_once_somebody_falls_behind(pair: tuple[Streamer, Streamer]) -> None:
    """The seat is vacant then, and takes another streak."""
    first, _ = pair
    wide_slot = first.read_size._wide_slot
    wide_slot.narrow()
    first.streams(2 + 2 * WIDE_AFTER)
    wide_slot.narrow()
    assert (first.size, wide_slot.holder) == (64, None)
    assert first.streams(WIDE_AFTER)[-2:] == [64, 128]


def test_a_connection_that_is_lost_leaves_its_seat(pair: tuple[Streamer, Streamer]) -> None:
    """Nothing keeps it alive, and whoever takes the seat next takes it from nobody."""
    first, second = pair
    wide_slot = first.read_size._wide_slot
    first.streams(2 + WIDE_AFTER)
    assert wide_slot.holder is first.read_size
    second.read_size.end()
    assert wide_slot.holder is first.read_size
    first.read_size.end()
    assert wide_slot.holder is None


def test_other_transports_are_left_as_they_are() -> None:
    """Below TLS the size of a read is also what says when the transport is full."""
    transport: Any = Transport(tcp_address(ALICE))
    wide_slot = WideReadSlot()
    read_size = ReadSize(transport, wide_slot)
    for number in range(3 * WIDE_AFTER):
        read_size.chunk(number * CHEAP_S, number * CHEAP_S + CHEAP_S / 2)
    assert not hasattr(transport, "bufferSize")
    assert wide_slot.holder is None
