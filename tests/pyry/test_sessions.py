"""What phones send: frames to their own binary, while they are accepted."""

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
    """Any JSON value, text or binary, passes unchanged inside one text envelope."""
    phone.says(frame, binary=binary_message)
    assert binary.peer.sent == [wrapped(phone, frame)]
    assert world.counters.phone_to_binary == 1


def test_frames_of_one_chunk_are_one_send(world: World, binary: Link, phone: Link) -> None:
    """Frames of one chunk are sent at once, each in its own envelope, in order."""
    phone.says(b"1", b"2", b"3")
    assert binary.peer.batches == [[wrapped(phone, frame) for frame in (b"1", b"2", b"3")]]
    assert world.counters.phone_to_binary == 3


def test_a_frame_reaches_the_binary_alone(world: World, binary: Link, phone: Link) -> None:
    """Only the phone's own binary gets its frame."""
    others = [world.phone(), world.binary(B), world.phone(B)]
    phone.says(b"1")
    assert [other.peer.sent for other in [phone, *others]] == [[], [], [], []]
    assert binary.peer.sent == [wrapped(phone, b"1")]


@pytest.mark.parametrize("invalid", [b"", b"{", b"1 2", b"nope", b"{'a':1}", b"\xef\xbb\xbf1", b"NaN", b"[" * 5000])
def test_an_invalid_frame_closes_its_phone(world: World, binary: Link, phone: Link, invalid: bytes) -> None:
    """An invalid frame closes its phone with 1007, is not delivered, and affects no sibling."""
    sibling = world.phone()
    phone.says(invalid)
    assert [code for code, _ in phone.peer.closes] == [1007]
    assert binary.peer.sent == [notice(phone, 1007)]
    assert world.registry.phone_count == 1
    sibling.says(b"1")
    assert binary.peer.sent == [notice(phone, 1007), wrapped(sibling, b"1")]
    assert_open(binary.peer)


def test_a_binary_message_must_be_utf8(binary: Link, phone: Link) -> None:
    """Binary messages must hold UTF-8; text messages were checked by the transport."""
    phone.says(b'"\xff"', binary=True)
    assert [code for code, _ in phone.peer.closes] == [1007]
    assert binary.peer.sent == [notice(phone, 1007)]


def test_valid_frames_before_an_invalid_one_go_out(world: World, binary: Link, phone: Link) -> None:
    """Valid frames before an invalid one are delivered, and those after it are not."""
    phone.says(b"1", b"2", b"nope", b"3")
    assert binary.peer.batches == [[wrapped(phone, b"1"), wrapped(phone, b"2")], [notice(phone, 1007)]]
    assert [code for code, _ in phone.peer.closes] == [1007]
    assert world.counters.phone_to_binary == 2


def test_a_frame_to_an_absent_binary_closes_the_phone(world: World, binary: Link, phone: Link) -> None:
    """A frame without a binary closes its phone with 1000; siblings stay, and the grace goes on."""
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
    successor = world.binary()
    world.clock.advance(10)
    return successor


def close_by_envelope(world: World, binary: Link, phone: Link) -> Link:
    binary.says(envelope(phone.conn_id, close_code=1000))
    return binary


def close_by_invalid_frame(world: World, binary: Link, phone: Link) -> Link:
    phone.says(b"nope")
    return binary


@pytest.mark.parametrize("close", [close_by_eviction, close_by_takeover, close_by_envelope, close_by_invalid_frame])
def test_a_closed_phone_is_not_heard(world: World, binary: Link, phone: Link, close: object) -> None:
    """Frames of a closed phone are neither delivered nor counted, and do not close it again."""
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


def test_a_refused_phone_is_not_heard() -> None:
    """Frames of a refused phone are not delivered, whether it was over the cap or without a server."""
    world = World(max_phones=1)
    orphan = world.phone()
    binary, _ = world.binary(), world.phone()
    surplus = world.phone()
    for link in (orphan, surplus):
        link.says(b"1")
        assert len(link.peer.closes) == 1
    assert binary.peer.sent == []
    assert world.counters.phone_to_binary == 0


# Whatever is sent


@given(st.lists(st.binary() | st.sampled_from([b"{}", b"1", b'"\\ud800"']), min_size=1))
def test_a_phone_may_send_anything(messages: list[bytes]) -> None:
    """Whatever a phone sends, nothing raises, and its frames arrive up to the first invalid one."""
    world = World()
    binary, phone = world.binary(), world.phone()
    phone.says(*messages, binary=True)
    arrived = world.counters.phone_to_binary
    is_valid = arrived == len(messages)
    end = [] if is_valid else [notice(phone, 1007)]
    assert binary.peer.sent == [*(wrapped(phone, message) for message in messages[:arrived]), *end]
    assert [code for code, _ in phone.peer.closes] == ([] if is_valid else [1007])
    assert_open(binary.peer)
