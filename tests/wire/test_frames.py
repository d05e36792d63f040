"""Server frames, as an independent implementation decodes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.frames import decode
from websockets.frames import Opcode

from pyryrelay.wire.frames import encode


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 262144, 262144 + 300, 1 << 20])
def test_a_frame_of_each_size(size: int, binary: bool) -> None:
    """RFC 6455 section 5.2: every size has its shortest length form, unmasked, in one final frame."""
    payload = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    data = encode(payload, binary=binary)
    (frame,) = decode(data)
    assert (frame.opcode, frame.fin) == (Opcode.BINARY if binary else Opcode.TEXT, True)
    assert bytes(frame.data) == payload
    assert (frame.rsv1, frame.rsv2, frame.rsv3) == (False, False, False)
    assert len(data) == size + (2 if size <= 125 else 4 if size <= 65535 else 10)


@given(payloads=st.lists(st.binary(max_size=300), max_size=8))
def test_frames_can_be_joined(payloads: list[bytes]) -> None:
    """Frames written one after the other are read one after the other."""
    frames = decode(b"".join(map(encode, payloads)))
    assert [bytes(frame.data) for frame in frames] == payloads
