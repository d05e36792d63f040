"""A binary that reads slowly: phones that send more than it takes are paused, and no others."""

from __future__ import annotations

import pytest
from tests.support.pyry import B, Link, World, assert_closed, wrapped

from pyryrelay.pyry.sessions import FULL_BYTES, HIGH_WATER_BYTES, MIN_HIGH_WATER_BYTES


@pytest.fixture
def phones(world: World, binary: Link) -> list[Link]:
    """Three phones of server A."""
    return [world.phone() for _ in range(3)]


def paused(links: list[Link]) -> list[bool]:
    """Return which of them are paused."""
    return [link.peer.paused for link in links]


def fill(world: World, binary: Link) -> None:
    """Let so much wait for the binary that every phone is paused."""
    binary.peer.block(FULL_BYTES)
    world.phone().says(b"0")
    binary.peer.block()


def test_a_binary_that_keeps_up_pauses_no_phone(binary: Link, phones: list[Link]) -> None:
    """While no data waits for the binary, its phones are read."""
    phones[0].says(b"1")
    binary.peer.drain()
    assert paused(phones) == [False] * 3


def test_data_below_the_mark_pauses_no_phone(binary: Link, phones: list[Link]) -> None:
    """A phone is read until more of its data waits than the mark."""
    binary.peer.block(HIGH_WATER_BYTES)
    phones[0].says(b"1")
    assert paused(phones) == [False] * 3
    binary.peer.block(1)
    phones[0].says(b"2")
    assert paused(phones) == [True, False, False]


def test_only_the_phone_that_sends_too_much_is_paused(world: World, binary: Link, phones: list[Link]) -> None:
    """A phone that sends too much is paused, and no other peer is."""
    others = [world.binary(B), world.phone(B), binary]
    binary.peer.block()
    phones[0].says(b"1")
    binary.peer.block(100)
    phones[1].says(b"2")
    assert paused(phones) == [True, False, False]
    assert paused(others) == [False] * 3


def test_frames_of_each_phone_are_a_source_of_their_own(binary: Link, phones: list[Link]) -> None:
    """Frames of a phone and its close notice are one source."""
    for phone in (phones[0], phones[1], phones[0]):
        phone.says(b"1")
    phones[0].drops()
    first, second, third, notice = binary.peer.sources
    assert first == third == notice
    assert first != second


def test_the_more_phones_fill_a_binary_the_less_of_each_may_wait(world: World, binary: Link) -> None:
    """The mark of each phone falls with the number of waiting phones, down to room for some frames."""
    many = [world.phone() for _ in range(16)]
    most = 0
    for number, phone in enumerate(many, 1):
        mark = max(HIGH_WATER_BYTES // number, MIN_HIGH_WATER_BYTES)
        binary.peer.block(mark)
        phone.says(b"1")
        assert paused([phone]) == [False]
        binary.peer.block(1)
        phone.says(b"2")
        assert paused([phone]) == [True]
        most += mark + 1
    assert most < FULL_BYTES / 2


def test_a_phone_goes_on_once_nothing_waits_of_it(binary: Link, phones: list[Link]) -> None:
    """A phone is resumed when none of its data waits, whatever waits of others, and can be paused again."""
    for _ in range(2):
        binary.peer.block()
        for phone in phones:
            phone.says(b"1")
        assert paused(phones) == [True] * 3
        binary.peer.drain_source(list(binary.peer.waiting)[1])
        assert paused(phones) == [True, False, True]
        binary.peer.drain()
        assert paused(phones) == [False] * 3


def test_a_full_binary_pauses_every_phone(world: World, binary: Link, phones: list[Link]) -> None:
    """A full binary pauses all its phones until it is not congested any more."""
    others = [world.binary(B), world.phone(B), binary]
    fill(world, binary)
    assert paused(phones) == [True] * 3
    assert paused(others) == [False] * 3
    late = world.phone()
    assert late.peer.paused
    phones[0].says(b'"held by its chunk"')
    binary.peer.drain_source(next(iter(binary.peer.waiting)))
    assert paused([*phones, late]) == [True] * 4, "as much as one phone may have waits still"
    binary.peer.drain()
    assert paused([*phones, late]) == [False] * 4


def test_after_a_binary_was_full_phones_with_waiting_data_stay_paused(
    world: World, binary: Link, phones: list[Link]
) -> None:
    """When a full binary has room, only phones whose data waits stay paused."""
    binary.peer.block(HIGH_WATER_BYTES // 2 + 1)
    phones[1].says(b"1", b"2")
    fill(world, binary)
    assert paused(phones) == [True] * 3
    binary.peer.buffered_bytes -= HIGH_WATER_BYTES // 2
    binary.peer.drain_source(list(binary.peer.waiting)[1])
    assert paused(phones) == [False, True, False]


def test_the_rest_of_a_chunk_is_delivered(binary: Link, phones: list[Link]) -> None:
    """Frames that were received before the pause are sent, in order."""
    binary.peer.block()
    phones[0].says(b"1", b"2")
    phones[1].says(b"3")
    assert binary.peer.sent == [wrapped(phones[0], b"1"), wrapped(phones[0], b"2"), wrapped(phones[1], b"3")]


@pytest.mark.parametrize("how", ["drains", "drops"])
def test_a_phone_that_joins_a_full_binary_before_any_frame(world: World, binary: Link, how: str) -> None:
    """A phone that joins a full binary is paused at once, and resumed by the drain or the loss of the binary."""
    binary.peer.buffered_bytes = FULL_BYTES + 1
    late = world.phone()
    assert late.peer.paused
    if how == "drains":
        binary.peer.drain()
    else:
        binary.drops()
    assert not late.peer.paused


def test_the_loss_of_a_congested_binary_resumes_its_phones(world: World, binary: Link, phones: list[Link]) -> None:
    """The loss of a congested binary resumes its phones, whose next frame finds no binary."""
    binary.peer.block()
    phones[0].says(b"1")
    binary.drops()
    assert paused(phones) == [False] * 3
    assert not world.phone().peer.paused
    phones[1].says(b"2")
    assert_closed(phones[1].peer, 1000)


def test_a_takeover_of_a_congested_binary(world: World, binary: Link, phones: list[Link]) -> None:
    """Phones of a new holder are read, whatever waits for the old one."""
    fill(world, binary)
    successor = world.binary()
    world.clock.advance(10)
    fresh = world.phone()
    fresh.says(b"2")
    assert not fresh.peer.paused
    assert successor.peer.sent == [wrapped(fresh, b"2")]


@pytest.mark.parametrize("how", ["drains", "drops"])
def test_an_old_binary_does_not_resume_the_phones_of_the_new_one(
    world: World, binary: Link, phones: list[Link], how: str
) -> None:
    """The drain of an old binary does not resume phones of the new one."""
    fill(world, binary)
    successor = world.binary()
    world.clock.advance(10)
    fresh = world.phone()
    successor.peer.block()
    fresh.says(b"2")
    if how == "drains":
        binary.peer.drain()
    else:
        binary.drops()
    assert fresh.peer.paused


def test_a_phone_that_left_is_not_resumed(binary: Link, phones: list[Link]) -> None:
    """The data of a phone that has left is delivered, and the drain does not resume the phone."""
    binary.peer.block()
    phones[0].says(b"1")
    phones[0].drops()
    binary.peer.block(HIGH_WATER_BYTES)
    phones[1].says(b"2")
    assert paused(phones) == [True, True, False], "what is left of one shares the room with others"
    binary.peer.drain()
    assert paused(phones) == [True, False, False]


@pytest.mark.parametrize("size", [HIGH_WATER_BYTES + 1, FULL_BYTES + 1])
def test_what_a_phone_had_waiting_may_fill_the_binary_again(binary: Link, phones: list[Link], size: int) -> None:
    """A resumed phone may fill the binary again: then it is paused again, and so are others."""
    binary.peer.block(size)
    phones[0].says(b"1")

    def held() -> None:
        binary.peer.block(size)
        phones[0].says(b"2")

    before = paused(phones)
    phones[0].peer.on_resume = held
    binary.peer.drain()
    assert paused(phones) == before
    phones[0].peer.on_resume = lambda: None
    binary.peer.drain()
    assert paused(phones) == [False] * 3


def test_a_client_that_reconnects_waits_for_its_earlier_data(world: World, binary: Link) -> None:
    """A client that reconnects is not read from while its earlier data waits; other addresses are."""
    binary.peer.block(MIN_HIGH_WATER_BYTES + 1)
    first = world.phone(source="192.0.2.9")
    first.says(b"1")
    first.drops()
    again, gone = world.phone(source="192.0.2.9"), world.phone(source="192.0.2.9")
    other = world.phone(source="192.0.2.8")
    assert paused([again, gone, other]) == [True, True, False]
    gone.drops()
    binary.peer.drain_source(binary.peer.sources[0])
    assert paused([again, gone, other]) == [False, True, False]


@pytest.mark.parametrize("how", ["drains", "is lost"])
def test_a_client_that_waits_goes_on_with_all_others(world: World, binary: Link, how: str) -> None:
    """A reconnected client is resumed when no data waits any more, or when the binary is lost."""
    binary.peer.block(MIN_HIGH_WATER_BYTES + 1)
    first = world.phone()
    first.says(b"1")
    first.drops()
    again = world.phone()
    assert again.peer.paused
    if how == "drains":
        binary.peer.drain()
    else:
        binary.drops()
    assert not again.peer.paused


def test_reconnects_of_one_client_do_not_fill_a_binary(world: World, binary: Link) -> None:
    """A client that reconnects and sends repeatedly does not get other phones paused."""
    stays = world.phone(source="192.0.2.8")
    binary.peer.block(HIGH_WATER_BYTES - 1)
    for _ in range(20):
        returning = world.phone(source="192.0.2.9")
        if not returning.peer.paused:
            returning.says(b"1")
        returning.drops()
        binary.peer._message_bytes = 100
    assert binary.peer.buffered_bytes < 3 * HIGH_WATER_BYTES < FULL_BYTES
    assert not stays.peer.paused
