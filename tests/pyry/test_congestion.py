"""A binary that reads slowly: its phones are paused, and nobody else is."""

from __future__ import annotations

import pytest
from tests.pyry.fakes import B, Link, World, assert_closed, wrapped

from pyryrelay.pyry.sessions import HIGH_WATER_BYTES


@pytest.fixture
def phones(world: World, binary: Link) -> list[Link]:
    """Three phones of server A."""
    return [world.phone() for _ in range(3)]


def paused(links: list[Link]) -> list[bool]:
    """Who of them is paused."""
    return [link.peer.paused for link in links]


def test_a_binary_that_keeps_up_pauses_nobody(binary: Link, phones: list[Link]) -> None:
    """While nothing waits for it, its phones are read."""
    phones[0].says(b"1")
    binary.peer.drain()
    assert paused(phones) == [False] * 3


def test_what_waits_below_the_mark_pauses_nobody(binary: Link, phones: list[Link]) -> None:
    """A binary may lag a little: up to the mark, its phones are read."""
    binary.peer.buffered_bytes = HIGH_WATER_BYTES
    phones[0].says(b"1")
    assert paused(phones) == [False] * 3
    binary.peer.buffered_bytes += 1
    phones[0].says(b"2")
    assert paused(phones) == [True] * 3


def test_congestion_pauses_all_phones(world: World, binary: Link, phones: list[Link]) -> None:
    """The one that caused it and the others, but nobody of another server-id and not the binary."""
    others = [world.binary(B), world.phone(B), binary]
    binary.peer.block()
    phones[0].says(b"1")
    assert paused(phones) == [True] * 3
    assert paused(others) == [False] * 3


def test_a_drain_resumes_all_phones(binary: Link, phones: list[Link]) -> None:
    """And congestion may come again."""
    for _ in range(2):
        binary.peer.block()
        phones[0].says(b"1")
        assert paused(phones) == [True] * 3
        binary.peer.drain()
        assert paused(phones) == [False] * 3


def test_the_rest_of_a_chunk_is_delivered(binary: Link, phones: list[Link]) -> None:
    """Frames that were received before the pause took hold are sent, in order."""
    binary.peer.block()
    phones[0].says(b"1", b"2")
    phones[1].says(b"3")
    assert binary.peer.sent == [wrapped(phones[0], b"1"), wrapped(phones[0], b"2"), wrapped(phones[1], b"3")]


def test_a_phone_that_joins_meanwhile_is_paused_too(world: World, binary: Link, phones: list[Link]) -> None:
    """It waits with the others, and is resumed with them."""
    binary.peer.block()
    phones[0].says(b"1")
    late = world.phone()
    assert late.peer.paused
    binary.peer.drain()
    assert paused([late, *phones]) == [False] * 4


def test_a_phone_that_joins_before_any_frame_met_the_congestion(world: World, binary: Link) -> None:
    """It is resumed at the drain, even where no frame of a phone ever waited."""
    binary.peer.block()
    late = world.phone()
    binary.peer.drain()
    assert not late.peer.paused


def test_a_phone_that_joins_a_congested_binary_without_frames_and_its_loss(world: World, binary: Link) -> None:
    """The same where the binary is lost instead."""
    binary.peer.block()
    late = world.phone()
    binary.drops()
    assert not late.peer.paused


def test_the_loss_of_a_congested_binary_resumes_its_phones(world: World, binary: Link, phones: list[Link]) -> None:
    """Nobody would do it later; what they send next finds no binary."""
    binary.peer.block()
    phones[0].says(b"1")
    binary.drops()
    assert paused(phones) == [False] * 3
    assert not world.phone().peer.paused
    phones[1].says(b"2")
    assert_closed(phones[1].peer, 1000)


def test_a_takeover_of_a_congested_binary(world: World, binary: Link, phones: list[Link]) -> None:
    """Phones of the new holder are read, whatever still waits for the old one."""
    binary.peer.block()
    phones[0].says(b"1")
    newcomer = world.binary()
    world.clock.advance(10)
    fresh = world.phone()
    fresh.says(b"2")
    assert not fresh.peer.paused
    assert newcomer.peer.sent == [wrapped(fresh, b"2")]


@pytest.mark.parametrize("how", ["drains", "drops"])
def test_an_old_binary_does_not_resume_the_phones_of_the_new_one(
    world: World, binary: Link, phones: list[Link], how: str
) -> None:
    """Congestion is between a binary and its own phones."""
    binary.peer.block()
    phones[0].says(b"1")
    newcomer = world.binary()
    world.clock.advance(10)
    fresh = world.phone()
    newcomer.peer.block()
    fresh.says(b"2")
    if how == "drains":
        binary.peer.drain()
    else:
        binary.drops()
    assert fresh.peer.paused


def test_a_phone_that_left_is_not_resumed(binary: Link, phones: list[Link]) -> None:
    """A drain concerns those who are there."""
    binary.peer.block()
    phones[0].says(b"1")
    phones[0].drops()
    binary.peer.drain()
    assert paused(phones) == [True, False, False]


def test_a_phone_that_joins_while_the_backlog_drains_waits_too(world: World, binary: Link, phones: list[Link]) -> None:
    """Below the mark again, but not empty yet: whoever joined then could fill the binary for ever while others wait."""
    binary.peer.block()
    phones[0].says(b"1")
    binary.peer.buffered_bytes = 1
    late = world.phone()
    assert late.peer.paused
    binary.peer.drain()
    assert paused([*phones, late]) == [False] * 4


def test_what_a_phone_had_waiting_may_fill_the_binary_again(binary: Link, phones: list[Link]) -> None:
    """A phone that is resumed may have more at hand than the binary takes: then nobody after it is resumed."""
    binary.peer.block()
    phones[0].says(b"1")

    def held() -> None:
        binary.peer.block()
        phones[0].says(b"2")

    phones[0].peer.on_resume = held
    binary.peer.drain()
    assert paused(phones) == [True] * 3
    phones[0].peer.on_resume = lambda: None
    binary.peer.drain()
    assert paused(phones) == [False] * 3
