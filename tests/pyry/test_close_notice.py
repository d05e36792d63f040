"""The close notice that a binary gets when the connection of a phone ends by itself, and when it gets none."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from tests.support.pyry import B, FakePeer, Link, World, envelope, notice, wrapped

from pyryrelay.pyry.envelope import close_notice


def test_the_notice_to_the_byte(world: World, binary: Link, phone: Link) -> None:
    """A notice is one text message with conn_id and code, in this order, without spaces and without a frame."""
    phone.drops(1000)
    assert binary.peer.batches == [[b'{"conn_id":"%s","close_code":1000}' % phone.conn_id.encode()]]
    assert close_notice('a"\\', 4001) == b'{"conn_id":"a\\"\\\\","close_code":4001}'


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1014, 3000, 4001, 4999])
def test_the_code_of_the_close_frame(binary: Link, phone: Link, code: int) -> None:
    """The code is that of the phone's close frame, or of the relay's where the phone was at fault."""
    phone.drops(code)
    assert binary.peer.sent == [notice(phone, code)]


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535])
def test_a_code_that_is_not_legal_on_the_wire(binary: Link, phone: Link, code: int) -> None:
    """A code that must not be sent becomes 1001, and so do 1005 and 1006, which report a missing one."""
    phone.drops(code)
    assert binary.peer.sent == [notice(phone, 1001)]


def test_the_notice_comes_after_every_frame(binary: Link, phone: Link) -> None:
    """The notice is the last message of its phone, and there is only one."""
    phone.says(b"1", b"2")
    phone.drops()
    phone.says(b"3")
    assert binary.peer.sent == [wrapped(phone, b"1"), wrapped(phone, b"2"), notice(phone, 1001)]


def test_an_invalid_frame_is_noticed_at_once(binary: Link, phone: Link) -> None:
    """An invalid frame causes a notice with 1007 behind the valid frames, and the later disconnect causes none."""
    phone.says(b"1", b"nope", b"2")
    assert binary.peer.sent == [wrapped(phone, b"1"), notice(phone, 1007)]
    phone.drops(1007)
    assert len(binary.peer.sent) == 2


def test_only_the_phones_own_binary_gets_the_notice(world: World, binary: Link, phone: Link) -> None:
    """Only the phone's own binary gets a notice, and only for the phone that left."""
    others = [world.phone(), world.binary(B), world.phone(B)]
    phone.drops()
    assert [other.peer.sent for other in others] == [[], [], []]


def test_a_congested_binary_gets_the_notice_later(world: World, binary: Link, phone: Link) -> None:
    """For a congested binary the notice waits behind earlier frames."""
    binary.peer.block()
    phone.says(b"1")
    assert phone.peer.paused
    phone.drops()
    assert binary.peer.sent == [wrapped(phone, b"1"), notice(phone, 1001)]


def test_the_incumbent_of_a_probe_gets_the_notice(world: World, binary: Link, phone: Link) -> None:
    """During a probe the incumbent gets the notice, and the challenger does not."""
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
    """Fail while the last frames are sent, as a phone does whose backlog is full."""
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


def frame_without_a_binary(world: World, binary: Link, phone: Link) -> None:
    binary.drops()
    phone.says(b"1")


WITHOUT_NOTICE: list[Callable[[World, Link, Link], None]] = [
    asked_for,
    asked_for_behind_a_frame,
    asked_for_and_not_delivered,
    reclaimed,
    reclaimed_by_a_challenger,
    taken_over,
    in_the_grace,
    expired,
    frame_without_a_binary,
]


@pytest.mark.parametrize("ending", WITHOUT_NOTICE)
@pytest.mark.parametrize("leaves", [True, False])
def test_no_notice(
    world: World,
    binary: Link,
    phone: Link,
    ending: Callable[[World, Link, Link], None],
    leaves: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No binary gets a notice for an end that the binary or the registry caused.

    Nor does one come when the connection ends later, and a new binary gets none for phones of the old one.
    """
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


def test_no_notice_for_a_phone_of_the_grace(world: World, binary: Link) -> None:
    """A phone that joined during a grace never had a binary, so none gets a notice."""
    binary.drops()
    late = world.phone()
    late.drops()
    successor = world.binary()
    assert successor.peer.sent == binary.peer.sent == []


@pytest.mark.parametrize("server_id", ["unclaimed", "server-a"])
def test_no_notice_for_a_refused_phone(server_id: str) -> None:
    """A phone that was refused with 4404 or 4429 was never registered, and causes no notice."""
    world = World(max_phones=1)
    binary = world.binary()
    world.phone()
    surplus = world.phone(server_id)
    assert surplus.peer.closes[0][0] in (4404, 4429)
    surplus.drops()
    assert binary.peer.sent == []
