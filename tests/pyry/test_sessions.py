"""What phones send: frames to their own binary, while they are let in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.pyry import B, Link, World, assert_closed, assert_open, envelope, notice, wrapped


@pytest.mark.parametrize("frame", [b'{ "a" : [1,\n2] }', b"1.50", b"null", b' "x" ', b'"\\u00e9"', '"é"'.encode()])
@pytest.mark.parametrize("binary_message", [False, True])
def test_a_frame_is_wrapped_verbatim(
    world: World, binary: Link, phone: Link, frame: bytes, binary_message: bool
) -> None:
    """Text or binary, any JSON value passes unchanged inside one text envelope."""
    phone.says(frame, binary=binary_message)
    assert binary.peer.sent == [wrapped(phone, frame)]
    assert world.counters.phone_to_binary == 1


def test_frames_of_one_chunk_are_one_send(world: World, binary: Link, phone: Link) -> None:
    """Each in its own envelope, in order."""
    phone.says(b"1", b"2", b"3")
    assert binary.peer.batches == [[wrapped(phone, frame) for frame in (b"1", b"2", b"3")]]
    assert world.counters.phone_to_binary == 3


def test_a_frame_reaches_the_binary_alone(world: World, binary: Link, phone: Link) -> None:
    """Neither a sibling nor anybody of another server-id gets it."""
    others = [world.phone(), world.binary(B), world.phone(B)]
    phone.says(b"1")
    assert [other.peer.sent for other in [phone, *others]] == [[], [], [], []]
    assert binary.peer.sent == [wrapped(phone, b"1")]


@pytest.mark.parametrize("invalid", [b"", b"{", b"1 2", b"nope", b"{'a':1}", b"\xef\xbb\xbf1", b"NaN", b"[" * 5000])
def test_an_invalid_frame_closes_its_phone(world: World, binary: Link, phone: Link, invalid: bytes) -> None:
    """With 1007; nothing of it reaches the binary, and the siblings notice nothing."""
    sibling = world.phone()
    phone.says(invalid)
    assert [code for code, _ in phone.peer.closes] == [1007]
    assert binary.peer.sent == [notice(phone, 1007)]
    assert world.registry.phone_count == 1
    sibling.says(b"1")
    assert binary.peer.sent == [notice(phone, 1007), wrapped(sibling, b"1")]
    assert_open(binary.peer)


def test_a_binary_message_must_be_utf8(binary: Link, phone: Link) -> None:
    """Text was checked on arrival, binary messages are checked here."""
    phone.says(b'"\xff"', binary=True)
    assert [code for code, _ in phone.peer.closes] == [1007]
    assert binary.peer.sent == [notice(phone, 1007)]


def test_valid_frames_before_an_invalid_one_go_out(world: World, binary: Link, phone: Link) -> None:
    """And those after it do not."""
    phone.says(b"1", b"2", b"nope", b"3")
    assert binary.peer.batches == [[wrapped(phone, b"1"), wrapped(phone, b"2")], [notice(phone, 1007)]]
    assert [code for code, _ in phone.peer.closes] == [1007]
    assert world.counters.phone_to_binary == 2


def test_a_frame_to_an_absent_binary_closes_the_phone(world: World, binary: Link, phone: Link) -> None:
    """With 1000 as when a send fails, and nothing else: the siblings stay, and the slot keeps its grace."""
    sibling = world.phone()
    binary.drops()
    phone.says(b"1", b"2")
    assert_closed(phone.peer, 1000)
    assert_open(sibling.peer)
    assert phone.peer.sent == sibling.peer.sent == binary.peer.sent == []
    assert world.registry.phone_count == 1
    assert world.timers == [30.0]
    assert world.counters.phone_to_binary == 0


# A phone that was closed, but whose connection still delivers


def close_by_eviction(world: World, binary: Link, phone: Link) -> Link:
    binary.drops()
    return world.binary()


def close_by_takeover(world: World, binary: Link, phone: Link) -> Link:
    newcomer = world.binary()
    world.clock.advance(10)
    return newcomer


def close_by_envelope(world: World, binary: Link, phone: Link) -> Link:
    binary.says(envelope(phone.conn_id, close_code=1000))
    return binary


def close_by_invalid_frame(world: World, binary: Link, phone: Link) -> Link:
    phone.says(b"nope")
    return binary


@pytest.mark.parametrize("close", [close_by_eviction, close_by_takeover, close_by_envelope, close_by_invalid_frame])
def test_a_closed_phone_is_not_heard(world: World, binary: Link, phone: Link, close: object) -> None:
    """What it still sends reaches nobody, is not counted, and does not close it again."""
    assert callable(close)
    holder = close(world, binary, phone)
    assert isinstance(holder, Link)
    closes, sent = list(phone.peer.closes), [list(holder.peer.sent), list(binary.peer.sent)]
    phone.says(b"1")
    phone.drops()
    assert [holder.peer.sent, binary.peer.sent] == sent
    assert phone.peer.closes == closes
    assert len(closes) == 1
    assert world.counters.phone_to_binary == 0


def test_a_phone_that_was_turned_away_is_not_heard() -> None:
    """Neither over the cap nor without a server does a phone get a frame through."""
    world = World(max_phones=1)
    nobodys = world.phone()
    binary, _ = world.binary(), world.phone()
    surplus = world.phone()
    for link in (nobodys, surplus):
        link.says(b"1")
        assert len(link.peer.closes) == 1
    assert binary.peer.sent == []
    assert world.counters.phone_to_binary == 0


# Whatever is sent


@given(st.lists(st.binary() | st.sampled_from([b"{}", b"1", b'"\\ud800"']), min_size=1))
def test_a_phone_may_send_anything(messages: list[bytes]) -> None:
    """Nothing raises; its frames arrive up to the first invalid one, which closes it."""
    world = World()
    binary, phone = world.binary(), world.phone()
    phone.says(*messages, binary=True)
    arrived = world.counters.phone_to_binary
    is_valid = arrived == len(messages)
    end = [] if is_valid else [notice(phone, 1007)]
    assert binary.peer.sent == [*(wrapped(phone, message) for message in messages[:arrived]), *end]
    assert [code for code, _ in phone.peer.closes] == ([] if is_valid else [1007])
    assert_open(binary.peer)
