"""The four scanners of the frame reader agree: they differ in speed only."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, fragments, frame, header

from pyryrelay.protocol import Message
from pyryrelay.websocket.frames.reader import CloseFrame, FrameReader, Stop

LIMIT = 70_000


class CompleteScannerAlone(FrameReader):
    """A reader without fast paths: `_take_one` takes every frame."""

    __slots__ = ()

    def _take_plain(self, data: bytes | bytearray, at: int) -> int:
        return at

    def _skip_plain(self, data: bytes | bytearray, at: int) -> int:
        return at


class WithoutShortTexts(FrameReader):
    """A reader that leaves short texts to `_take_plain`."""

    __slots__ = ()

    def _take_short_texts(self, data: bytes | bytearray, at: int) -> int:
        return at


Outcome = tuple[list[Stop], list[Message], list[bytes], list[bytes], int]


def outcome(reader: FrameReader, stream: bytes) -> Outcome:
    """Return everything that a reader reports about a stream, up to a close frame."""
    stops: list[Stop] = []
    data = stream
    while not (stops and isinstance(stops[-1], CloseFrame)) and (stop := reader.read(data)) is not None:
        stops.append(stop)
        data = b""
    return stops, reader.messages, reader.pings, reader.pongs, reader.frames


_SIZES = st.sampled_from([0, 1, 2, 124, 125, 126, 127, 300, 4095, 4096, 65535, 65536])
_PAYLOADS = st.one_of(
    _SIZES.map(lambda size: b"x" * size),
    _SIZES.map(lambda size: "ä".encode() * (size // 2)),
    st.binary(max_size=130),
    st.text(max_size=60).map(str.encode),
)
_FRAMES = st.one_of(
    st.builds(frame, _PAYLOADS, st.sampled_from([TEXT, TEXT, TEXT, BINARY])),
    st.builds(frame, st.binary(max_size=125), st.sampled_from([PING, PONG])),
    st.builds(
        frame,
        _PAYLOADS,
        st.integers(0, 15).filter(lambda opcode: opcode != CLOSE),
        fin=st.booleans(),
        rsv=st.sampled_from([0, 0, 0, 1]),
        mask=st.sampled_from([b"\x37\xfa\x21\x3d", bytes(4), None]),
    ),
    st.lists(st.text(max_size=9).map(str.encode), min_size=2, max_size=4).map(lambda parts: b"".join(fragments(parts))),
    st.sampled_from([b"\x81\xfe\x00\x05" + bytes(9), b"\x81\xff" + bytes(6) + b"\xff\xff" + bytes(4 + 65535)]),
    st.sampled_from([header(LIMIT + 1) + bytes(4), close_frame(1000), b"\x81"]),
)
_STREAMS = st.lists(_FRAMES, max_size=8).map(b"".join)


@given(stream=_STREAMS, max_bytes=st.sampled_from([LIMIT, 300, 60]), discarding=st.booleans())
@example(stream=frame(b"a") + frame(b"\xff") + frame(b"b"), max_bytes=LIMIT, discarding=False)
@example(stream=frame(b"a") + frame(b"b", CONTINUATION) + frame(b"c"), max_bytes=LIMIT, discarding=True)
def test_the_scanners_agree(stream: bytes, max_bytes: int, discarding: bool) -> None:
    """Whichever scanner takes a frame, messages, pings, pongs, stops and the number of frames are the same."""
    outcomes = []
    for kind in (FrameReader, WithoutShortTexts, CompleteScannerAlone):
        reader = kind(max_bytes, 4)
        reader.discarding = discarding
        outcomes.append(outcome(reader, stream))
    assert outcomes[1:] == outcomes[:1] * 2


@pytest.mark.parametrize("size", [0, 1, 125, 126, 4095, 4096, 65535, 65536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_whole_messages_take_a_fast_path(opcode: int, size: int) -> None:
    """A whole message in one frame never reaches the complete scanner."""

    class FastPathsAlone(FrameReader):
        __slots__ = ()

        def _take_one(self, data: bytes | bytearray, at: int) -> tuple[int, Stop | None]:
            raise AssertionError("a plain frame missed its fast path")

    reader = FastPathsAlone(LIMIT, 4)
    assert reader.read(frame(b"x" * size, opcode) * 3 + frame(b"", PING) + frame(b"pong", PONG)) is None
    assert reader.messages == [(b"x" * size, opcode == BINARY)] * 3
    assert (reader.pings, reader.pongs) == ([b""], [b"pong"])
