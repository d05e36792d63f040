"""What workers send each other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.workers.mesh.messages import MAX_MESSAGE_BYTES, Ended, HandedOver, MessageError, decode, encode

numbers = st.integers(0, 2**64 - 1)
peers = st.none() | st.tuples(st.sampled_from(["192.0.2.1", "2001:db8::1", "fe80::1%eth0"]), st.integers(0, 65535))
heads = st.builds(
    HandedOver,
    st.integers(0, 2**16 - 1),
    numbers,
    numbers,
    st.sampled_from(["192.0.2.1", "2001:db8::1", ""]),
    peers,
    st.binary(max_size=300),
    st.binary(max_size=300),
)


@given(message=heads | st.builds(Ended, numbers, st.lists(numbers, max_size=50).map(tuple)))
def test_what_is_sent_is_received(message: HandedOver | Ended) -> None:
    """Every message survives its bytes."""
    assert decode(memoryview(encode(message))) == message


def test_objects_are_json() -> None:
    """Anything else that can be written as JSON."""
    message = {"type": "accepted", "peer": ["192.0.2.1", 5]}
    assert decode(encode(message)) == message


def test_a_message_that_is_too_large() -> None:
    """It is not sent."""
    fits = HandedOver(0, 1, 1, "192.0.2.1", None, b"h" * 16384, b"r" * 131_072)
    assert len(encode(fits)) < MAX_MESSAGE_BYTES
    with pytest.raises(MessageError):
        encode(fits._replace(rest=bytes(MAX_MESSAGE_BYTES)))


@given(data=st.binary(max_size=200) | st.binary(max_size=60).flatmap(lambda x: st.sampled_from([b"h" + x, b"e" + x])))
def test_garbage(data: bytes) -> None:
    """Bytes that are no message are an error, and no other one."""
    try:
        found: Any = decode(data)
    except MessageError:
        return
    assert isinstance(found, HandedOver | Ended | dict)


@given(message=heads, cut=st.integers(0, 400))
def test_a_head_that_is_cut_off(message: HandedOver, cut: int) -> None:
    """What follows the head may have any size, but the head is whole."""
    data = encode(message)[: -cut or None]
    try:
        found = decode(data)
    except MessageError:
        return
    assert isinstance(found, HandedOver)
    assert found == message._replace(rest=message.rest[: -cut or None])


@pytest.mark.parametrize("data", [b"", b"x", b"j", b"j[]", b"j" + b"[" * 100_000, b"e", b"h", b"j\xff"])
def test_bytes_that_are_no_message(data: bytes) -> None:
    """Each kind has its rules."""
    with pytest.raises(MessageError):
        decode(data)
