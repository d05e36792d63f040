"""How much one read from a peer takes."""

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
        """Process chunks that take this long each, and return the size of a read after each, in KiB."""
        sizes = []
        for _ in range(chunks):
            began_s = self.now + others_s
            self.now = began_s + spent_s
            self.read_size.record(began_s, self.now)
            assert self.transport.bufferSize == self.read_size.full_bytes
            sizes.append(self.size)
        return sizes

    @property
    def size(self) -> int:
        """Return the size of a read, in KiB."""
        size: int = self.transport.bufferSize // 1024
        return size

    def close(self) -> None:
        """Close both sockets."""
        for end in self._ends:
            end.close()


@pytest.fixture
def pair() -> Iterator[tuple[Streamer, Streamer]]:
    """Two peers that share a wide-read slot."""
    wide_slot = WideReadSlot()
    made = Streamer(wide_slot), Streamer(wide_slot)
    yield made
    for streamer in made:
        streamer.close()


@pytest.fixture
def streamer(pair: tuple[Streamer, Streamer]) -> Streamer:
    """One of them."""
    return pair[0]


def test_a_peer_whose_bytes_are_expensive_is_read_less_at_once(streamer: Streamer) -> None:
    """Reads are halved after each expensive chunk, and doubled after each cheap one up to the usual size."""
    assert streamer.size * 1024 == FIRST_READ_BYTES
    assert streamer.streams(4, 2 * EXPENSIVE_S) == [8, 4, 4, 4]
    assert streamer.streams(2, EXPENSIVE_S / 2) == [4, 4]
    assert streamer.streams(6) == [8, 16, 32, 64, 64, 64]
    assert streamer.streams(1, 2 * EXPENSIVE_S) == [32]
    assert (LEAST_READ_BYTES, MOST_READ_BYTES) == (4096, 65536)


def test_a_peer_that_streams_alone_is_read_wide_after_a_streak(streamer: Streamer) -> None:
    """Reads are doubled after each streak of cheap chunks of the only active peer, up to a maximum."""
    streamer.streams(2)
    assert streamer.streams(WIDE_AFTER - 1) == [64] * (WIDE_AFTER - 1)
    assert streamer.streams(WIDE_AFTER) == [128] * WIDE_AFTER
    assert streamer.streams(3 * WIDE_AFTER) == [256] * 3 * WIDE_AFTER
    assert streamer.size * 1024 == WIDE_READ_BYTES


def test_an_expensive_chunk_ends_wide_reading_and_every_streak(streamer: Streamer) -> None:
    """An expensive chunk ends wide reads, makes reads smaller than usual, and ends the streak."""
    streamer.streams(2 + 2 * WIDE_AFTER)
    assert streamer.size == 256
    assert streamer.streams(1, 2 * EXPENSIVE_S) == [32]
    assert streamer.streams(WIDE_AFTER) == [64] * WIDE_AFTER
    assert streamer.streams(1) == [128]


def test_a_chunk_between_cheap_and_expensive_does_not_count(streamer: Streamer) -> None:
    """A chunk between cheap and expensive changes nothing."""
    streamer.streams(2)
    assert streamer.streams(2 * WIDE_AFTER, EXPENSIVE_S * 0.6) == [64] * 2 * WIDE_AFTER


def test_a_chunk_that_is_not_cheap_begins_the_streak_anew(streamer: Streamer) -> None:
    """A streak is of consecutive cheap chunks."""
    streamer.streams(2)
    for _ in range(3 * WIDE_AFTER):
        assert streamer.streams(1) + streamer.streams(1, EXPENSIVE_S * 0.9) == [64, 64]


def test_what_is_told_while_reading_wide(streamer: Streamer) -> None:
    """During wide reads usual chunks are reported as well, so that a peer that sends less loses the slot."""
    assert streamer.read_size.recorded_bytes == FIRST_READ_BYTES
    streamer.streams(2 + 2 * WIDE_AFTER)
    assert (streamer.read_size.full_bytes, streamer.read_size.recorded_bytes) == (WIDE_READ_BYTES, MOST_READ_BYTES)


def test_turns_of_others_end_wide_reading(streamer: Streamer) -> None:
    """A turn of another peer ends wide reads."""
    streamer.streams(2)
    assert set(streamer.streams(4 * WIDE_AFTER, others_s=2 * ALONE_S)) == {64}
    streamer.streams(2 * WIDE_AFTER + 1)
    assert streamer.size == 256
    assert streamer.streams(1, others_s=2 * ALONE_S) == [64]


def test_one_at_a_time_is_read_wide(pair: tuple[Streamer, Streamer]) -> None:
    """Only one peer has wide reads, and taking the slot ends those of the peer before."""
    first, second = pair
    first.streams(2 + 2 * WIDE_AFTER)
    second.streams(2 + WIDE_AFTER)
    assert (first.size, second.size) == (64, 128)
    first.streams(2 * WIDE_AFTER)
    assert (first.size, second.size) == (256, 64)


def test_wide_reading_ends_when_any_peer_falls_behind(pair: tuple[Streamer, Streamer]) -> None:
    """When any peer falls behind, the slot is free and takes another streak."""
    first, _ = pair
    wide_slot = first.read_size._wide_slot
    wide_slot.narrow()
    first.streams(2 + 2 * WIDE_AFTER)
    wide_slot.narrow()
    assert (first.size, wide_slot.holder) == (64, None)
    assert first.streams(WIDE_AFTER)[-2:] == [64, 128]


def test_a_lost_connection_frees_the_slot(pair: tuple[Streamer, Streamer]) -> None:
    """A lost connection frees the slot, which keeps no reference to it."""
    first, second = pair
    wide_slot = first.read_size._wide_slot
    first.streams(2 + WIDE_AFTER)
    assert wide_slot.holder is first.read_size
    second.read_size.end()
    assert wide_slot.holder is first.read_size
    first.read_size.end()
    assert wide_slot.holder is None


def test_other_transports_are_left_as_they_are() -> None:
    """Other transports keep their size, which for TLS also decides when the transport is full."""
    transport: Any = Transport(tcp_address(ALICE))
    wide_slot = WideReadSlot()
    read_size = ReadSize(transport, wide_slot)
    for number in range(3 * WIDE_AFTER):
        read_size.record(number * CHEAP_S, number * CHEAP_S + CHEAP_S / 2)
    assert not hasattr(transport, "bufferSize")
    assert wide_slot.holder is None
