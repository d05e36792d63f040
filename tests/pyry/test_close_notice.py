"""What a binary is told when the connection of a phone ends by itself, and when it is told nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from tests.support.pyry import B, FakePeer, Link, World, envelope, notice, wrapped

from pyryrelay.pyry.envelope import close_notice


def test_the_notice_to_the_byte(world: World, binary: Link, phone: Link) -> None:
    """The conn_id and the code, in this order, without spaces and without a frame; one text message."""
    phone.drops(1000)
    assert binary.peer.batches == [[b'{"conn_id":"%s","close_code":1000}' % phone.conn_id.encode()]]
    assert close_notice('a"\\', 4001) == b'{"conn_id":"a\\"\\\\","close_code":4001}'


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1014, 3000, 4001, 4999])
def test_the_code_of_the_close_frame(binary: Link, phone: Link, code: int) -> None:
    """A phone's own code, and the relay's where it closed the phone for a fault of the phone's."""
    phone.drops(code)
    assert binary.peer.sent == [notice(phone, code)]


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535])
def test_a_code_that_is_not_legal_on_the_wire(binary: Link, phone: Link, code: int) -> None:
    """It becomes 1001, and so does the lack of one, which the transport reports as 1005 or 1006."""
    phone.drops(code)
    assert binary.peer.sent == [notice(phone, 1001)]


def test_the_notice_comes_after_every_frame(binary: Link, phone: Link) -> None:
    """Nothing of a phone follows its notice, and there is one."""
    phone.says(b"1", b"2")
    phone.drops()
    phone.says(b"3")
    assert binary.peer.sent == [wrapped(phone, b"1"), wrapped(phone, b"2"), notice(phone, 1001)]


def test_an_invalid_frame_is_noticed_at_once(binary: Link, phone: Link) -> None:
    """The relay closes the phone with 1007, behind its valid frames; that its connection is gone later is no news."""
    phone.says(b"1", b"nope", b"2")
    assert binary.peer.sent == [wrapped(phone, b"1"), notice(phone, 1007)]
    phone.drops(1007)
    assert len(binary.peer.sent) == 2


def test_only_the_phones_own_binary_is_told(world: World, binary: Link, phone: Link) -> None:
    """Neither siblings nor other server-ids learn of it, and siblings that stay do not either."""
    others = [world.phone(), world.binary(B), world.phone(B)]
    phone.drops()
    assert [other.peer.sent for other in others] == [[], [], []]


def test_a_congested_binary_is_told_too(world: World, binary: Link, phone: Link) -> None:
    """The notice waits behind the frames that wait already."""
    binary.peer.block()
    phone.says(b"1")
    assert phone.peer.paused
    phone.drops()
    assert binary.peer.sent == [wrapped(phone, b"1"), notice(phone, 1001)]


def test_the_incumbent_of_a_probe_is_told(world: World, binary: Link, phone: Link) -> None:
    """While it is probed it holds the server-id; the challenger has never heard of the phone."""
    challenger = world.binary()
    phone.drops()
    world.clock.advance(10)
    assert binary.peer.sent == [notice(phone, 1001)]
    assert challenger.peer.sent == []


# No notice


def asked_for(world: World, binary: Link, phone: Link) -> None:
    binary.says(envelope(phone.conn_id, close_code=4401))


def asked_for_behind_a_frame(world: World, binary: Link, phone: Link) -> None:
    binary.says(envelope(phone.conn_id, b"1"), envelope(phone.conn_id, b"2", close_code=4401))


def asked_for_and_not_delivered(world: World, binary: Link, phone: Link) -> None:
    """The phone's backlog is full, so that it fails while its last frames are sent."""
    failing = phone.peer

    def fail(*arguments: object, **keywords: object) -> None:
        del failing.send
        phone.session.closed(1011, "phone backlog full")

    failing.send = fail  # type: ignore[method-assign]
    binary.says(envelope(phone.conn_id, b"1"), envelope(phone.conn_id, b"2", close_code=4401))


def reclaimed(world: World, binary: Link, phone: Link) -> None:
    binary.drops()
    world.binary()


def reclaimed_by_a_challenger(world: World, binary: Link, phone: Link) -> None:
    world.binary()
    binary.drops()


def taken_over(world: World, binary: Link, phone: Link) -> None:
    world.binary()
    world.clock.advance(10)


def in_the_grace(world: World, binary: Link, phone: Link) -> None:
    binary.drops()


def expired(world: World, binary: Link, phone: Link) -> None:
    binary.drops()
    world.clock.advance(30)


def frame_to_nobody(world: World, binary: Link, phone: Link) -> None:
    binary.drops()
    phone.says(b"1")


UNTOLD: list[Callable[[World, Link, Link], None]] = [
    asked_for,
    asked_for_behind_a_frame,
    asked_for_and_not_delivered,
    reclaimed,
    reclaimed_by_a_challenger,
    taken_over,
    in_the_grace,
    expired,
    frame_to_nobody,
]


@pytest.mark.parametrize("ending", UNTOLD)
@pytest.mark.parametrize("leaves", [True, False])
def test_no_notice(
    world: World,
    binary: Link,
    phone: Link,
    ending: Callable[[World, Link, Link], None],
    leaves: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody is told of an end that the binary asked for or that the registry decided, neither then nor when the
    connection is gone; nor does another binary learn of the phones of the one before."""
    peers: list[FakePeer] = [binary.peer]
    connected = world.binary

    def binary_of(server_id: str = "server-a") -> Link:
        link = connected(server_id)
        peers.append(link.peer)
        return link

    monkeypatch.setattr(world, "binary", binary_of)
    ending(world, binary, phone)
    if leaves and world.relay.session(2) is not None:
        phone.drops(1000)
    world.binary()
    world.clock.advance(100)
    assert list(itertools.chain(*(peer.sent for peer in peers))) == []


def test_a_phone_of_the_grace_is_noticed_by_nobody(world: World, binary: Link) -> None:
    """It joined while there was no binary, so no binary was ever its own."""
    binary.drops()
    late = world.phone()
    late.drops()
    newcomer = world.binary()
    assert newcomer.peer.sent == binary.peer.sent == []


@pytest.mark.parametrize("server_id", ["nobody", "server-a"])
def test_a_phone_that_was_turned_away_is_noticed_by_nobody(server_id: str) -> None:
    """With 4404 or 4429 a phone was never registered."""
    world = World(max_phones=1)
    binary = world.binary()
    world.phone()
    surplus = world.phone(server_id)
    assert surplus.peer.closes[0][0] in (4404, 4429)
    surplus.drops()
    assert binary.peer.sent == []
