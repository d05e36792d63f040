"""The numbers of a frame header are those of RFC 6455, and of an independent implementation."""

from __future__ import annotations

import pytest
from websockets.frames import Opcode

from pyryrelay.websocket.frames.header import (
    BINARY,
    BINARY_OPCODE,
    CLOSE,
    FIN,
    MASKED,
    MASKED_16_BIT,
    MASKED_64_BIT,
    MAX_7_BIT,
    PING,
    PONG,
    SHORTEST,
    TEXT,
    header_bytes,
)


def test_first_bytes_are_final_frames() -> None:
    """The first byte of a whole frame is FIN and the opcode."""
    first_bytes = {
        TEXT: Opcode.TEXT,
        BINARY: Opcode.BINARY,
        CLOSE: Opcode.CLOSE,
        PING: Opcode.PING,
        PONG: Opcode.PONG,
    }
    assert first_bytes == {FIN | opcode: opcode for opcode in first_bytes.values()}
    assert int(Opcode.BINARY) == BINARY_OPCODE


@pytest.mark.parametrize(
    ("second", "size"),
    [
        (0, 2),
        (MAX_7_BIT, 2),
        (126, 4),
        (127, 10),
        (MASKED, SHORTEST),
        (MASKED | MAX_7_BIT, 6),
        (MASKED_16_BIT, 8),
        (MASKED_64_BIT, 14),
    ],
)
def test_how_long_a_header_is(second: int, size: int) -> None:
    """The second byte gives the length of the header: two bytes, the extended length, and the mask."""
    assert header_bytes(second) == size
