"""The frames that the server writes, as an independent implementation decodes them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.frames import decode
from websockets.frames import Opcode

from pyryrelay.websocket.frames.writer import SLICE_BYTES, encode, pongs


def written(slices: list[tuple[bytes, int]]) -> bytes:
    """Return all bytes of the slices, and check their numbers of frames."""
    for data, frames in slices:
        assert len(decode(data)) == frames
    return b"".join(data for data, _ in slices)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 262144, 262144 + 300, 1 << 20])
def test_a_frame_of_each_size(size: int, binary: bool) -> None:
    """RFC 6455 section 5.2: a payload of any size is one final, unmasked frame with the shortest form of its length."""
    payload = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    data = written(encode([payload], binary=binary))
    (found,) = decode(data)
    assert (found.opcode, found.fin) == (Opcode.BINARY if binary else Opcode.TEXT, True)
    assert bytes(found.data) == payload
    assert (found.rsv1, found.rsv2, found.rsv3) == (False, False, False)
    assert len(data) == size + (2 if size <= 125 else 4 if size <= 65535 else 10)


@given(
    payloads=st.lists(st.binary(max_size=300), max_size=8), before=st.binary(max_size=9), after=st.binary(max_size=9)
)
def test_every_frame_is_around_its_payload(payloads: list[bytes], before: bytes, after: bytes) -> None:
    """Each frame holds the common prefix, its payload and the common suffix, in order."""
    found = decode(written(encode(payloads, before=before, after=after)))
    assert [bytes(each.data) for each in found] == [before + payload + after for payload in payloads]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 300])
@pytest.mark.parametrize(("before", "after"), [(b"", b""), (b"<", b""), (b"", b">"), (b"<", b">")])
def test_frames_of_one_size(size: int, before: bytes, after: bytes) -> None:
    """Frames of one size are right in any number, with any prefix and suffix."""
    payloads = [bytes([number]) * size for number in range(9)]
    for count in range(len(payloads) + 1):
        found = decode(written(encode(payloads[:count], before=before, after=after)))
        assert [bytes(each.data) for each in found] == [before + payload + after for payload in payloads[:count]]
    assert encode([]) == []


@given(sizes=st.lists(st.one_of(st.integers(0, 200), st.integers(0, 3 * SLICE_BYTES)), max_size=20))
@example(sizes=[SLICE_BYTES])
@example(sizes=[SLICE_BYTES - 1, 1])
@example(sizes=[SLICE_BYTES, 1])
def test_slices_end_with_the_frame_that_fills_them(sizes: list[int]) -> None:
    """Each slice but the last has its size, and would not have it without its last frame."""
    payloads = [bytes(size) for size in sizes]
    slices = encode(payloads)
    assert [bytes(each.data) for each in decode(written(slices))] == payloads
    for data, _ in slices[:-1]:
        assert len(data) >= SLICE_BYTES
    for data, _ in slices:
        assert sum(len(each.data) for each in decode(data)[:-1]) < SLICE_BYTES


def test_pongs_are_one_write() -> None:
    """Pongs are one write, with the payloads of their pings in order."""
    payloads = [b"", b"a", b"b" * 125]
    assert [(each.opcode, bytes(each.data)) for each in decode(pongs(payloads))] == [
        (Opcode.PONG, payload) for payload in payloads
    ]
