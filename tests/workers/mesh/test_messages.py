"""What workers send each other."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.workers.mesh.messages import (
    MAX_HEAD_BYTES,
    MAX_HEADS,
    MAX_MESSAGE_BYTES,
    Ended,
    HandedOver,
    MessageError,
    decode,
    encode,
    encode_head,
    join_heads,
)

numbers = st.integers(0, 2**64 - 1)
ports = st.integers(0, 65535)
peers = (
    st.none()
    | st.tuples(st.just("192.0.2.1"), ports)
    | st.tuples(st.sampled_from(["2001:db8::1", "fe80::1%eth0"]), ports, st.just(0), st.integers(0, 9))
)
latin = st.text(st.characters(max_codepoint=255), max_size=20)
heads = st.builds(
    HandedOver,
    st.integers(0, 2**16 - 1),
    numbers,
    numbers,
    st.sampled_from(["192.0.2.1", "2001:db8::1", ""]),
    peers,
    latin,
    st.dictionaries(latin, st.lists(latin, min_size=1, max_size=2), max_size=4),
    latin,
    st.binary(max_size=300),
    st.binary(max_size=300),
)


def joined(found: list[HandedOver]) -> bytes:
    """Return one message of these heads."""
    return b"".join(join_heads([encode_head(head) for head in found]))


@given(message=st.builds(Ended, numbers, st.lists(numbers, max_size=50).map(tuple)))
def test_what_is_sent_is_received(message: Ended) -> None:
    """Every message survives its bytes."""
    assert decode(memoryview(encode(message))) == message


@given(found=st.lists(heads, max_size=5) | heads.map(lambda head: [head] * MAX_HEADS))
def test_heads_are_received_in_order(found: list[HandedOver]) -> None:
    """However many there are in one message."""
    assert decode(memoryview(joined(found))) == found


def test_objects_are_json() -> None:
    """Anything else that can be written as JSON."""
    message = {"type": "accepted", "peer": ["192.0.2.1", 5]}
    assert decode(encode(message)) == message


def test_a_message_that_is_too_large() -> None:
    """It is not sent. The largest head that is read fits with what may come behind it, even if all is written twice."""
    fields = {"x" * 100: ["\xff" * 16_284]}
    fits = HandedOver(0, 1, 1, "192.0.2.1", None, "/", fields, "key", b"h" * 16_384, b"r" * 131_072)
    assert len(joined([fits])) < MAX_MESSAGE_BYTES
    whole = b"".join(join_heads([bytes(MAX_HEAD_BYTES // MAX_HEADS)] * MAX_HEADS))
    assert MAX_MESSAGE_BYTES - MAX_HEADS < len(whole) <= MAX_MESSAGE_BYTES
    with pytest.raises(MessageError):
        encode_head(msgspec.structs.replace(fits, rest=bytes(MAX_HEAD_BYTES)))
    with pytest.raises(MessageError):
        encode({"type": "x" * MAX_MESSAGE_BYTES})


@given(data=st.binary(max_size=200) | st.binary(max_size=60).flatmap(lambda x: st.sampled_from([b"H" + x, b"e" + x])))
def test_garbage(data: bytes) -> None:
    """Bytes that are no message are an error, and no other one."""
    try:
        found: Any = decode(data)
    except MessageError:
        return
    assert isinstance(found, list | Ended | dict)


@given(found=st.lists(heads, min_size=1, max_size=3), cut=st.integers(1, 400))
def test_heads_that_are_cut_off(found: list[HandedOver], cut: int) -> None:
    """None of them is taken."""
    with pytest.raises(MessageError):
        decode(joined(found)[:-cut])


@given(head=heads, more=st.binary(min_size=1, max_size=9))
def test_bytes_behind_the_heads(head: HandedOver, more: bytes) -> None:
    """They make it no message."""
    with pytest.raises(MessageError):
        decode(joined([head]) + more)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"x", b"j", b"j[]", b"j" + b"[" * 100_000, b"e", b"H", b"j\xff"),
        b"h" + bytes(40),  # as workers of earlier versions send
        b"H\0\1\0\0\0\1\xc0",
        b"H\0\x21" + bytes(4 * 33),
    ],
)
def test_bytes_that_are_no_message(data: bytes) -> None:
    """Each kind has its rules."""
    with pytest.raises(MessageError):
        decode(data)
