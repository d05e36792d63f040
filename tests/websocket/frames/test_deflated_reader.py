"""Compressed messages among others, however they are cut, and what is refused."""

from __future__ import annotations

import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.deflate import Deflating, deflated_fragments
from tests.support.frames import BINARY, CONTINUATION, PING, TEXT, close_frame, fragments, frame

from pyryrelay.close_codes import CloseCode
from pyryrelay.protocol import Message
from pyryrelay.protocol_options import Deflate
from pyryrelay.websocket.frames.deflated_reader import READ_BYTES, DeflatedFrameReader
from pyryrelay.websocket.frames.negotiation import Compression, negotiate
from pyryrelay.websocket.frames.reader import BadHeader, Breach, CloseFrame, Stop

LIMIT = 10_000
LONG = "ä text that repeats itself, ".encode() * 20


def agreed(mode: Deflate = "no-context") -> Compression:
    """Return what is agreed upon."""
    found = negotiate(["permessage-deflate; client_max_window_bits"], mode)
    assert found is not None
    return found


def reader(mode: Deflate = "no-context", limit: int = LIMIT) -> DeflatedFrameReader:
    """Return a new reader."""
    return DeflatedFrameReader(limit, 100, agreed(mode))


def outcome(pieces: list[bytes], mode: Deflate) -> tuple[list[Stop], list[Message], list[bytes], int]:
    """Return everything that a new reader reports about a stream in pieces."""
    found, stops = reader(mode), []
    for piece in pieces:
        data = piece
        while (stop := found.read(data)) is not None or found.is_full:
            data = b""
            if stop is not None:
                stops.append(stop)
            if isinstance(stop, CloseFrame):
                return stops, found.messages, found.pings, found.frames
    return stops, found.messages, found.pings, found.frames


def stream(mode: Deflate) -> tuple[bytes, list[Message]]:
    """Return frames of all kinds, compressed and not, and the messages in them."""
    peer = Deflating(agreed(mode))
    first, second = peer.message(LONG), peer.compress(bytes(5000), BINARY)
    pieces = deflated_fragments(second, [1, 3, 3])
    parts = [
        first,
        frame(b"plain"),
        pieces[0],
        frame(b"between", PING),
        *pieces[1:],
        *fragments([b"\xc3", b"\xa4"]),
        peer.message(b""),
        peer.message(LONG),
        frame(LONG, BINARY),
    ]
    messages = [
        (LONG, False),
        (b"plain", False),
        (bytes(5000), True),
        ("ä".encode(), False),
        (b"", False),
        (LONG, False),
        (LONG, True),
    ]
    return b"".join(parts), messages


MODES: tuple[Deflate, ...] = ("no-context", "context")


@given(mode=st.sampled_from(MODES), cuts=st.lists(st.integers(0, 2000), max_size=9))
def test_the_outcome_does_not_depend_on_chunks(mode: Deflate, cuts: list[int]) -> None:
    """However the network cuts the stream, the same messages come, and the same frames are counted."""
    data, messages = stream(mode)
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(ends)]
    assert outcome(pieces, mode) == ([], messages, [b"between"], 12)


@pytest.mark.parametrize("mode", MODES)
def test_byte_by_byte(mode: Deflate) -> None:
    """A stream that comes one byte at a time is the same stream."""
    data, messages = stream(mode)
    assert outcome([data[at : at + 1] for at in range(len(data))], mode)[1] == messages


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, 2_000_000])
@pytest.mark.parametrize("step", [7, 1 << 20])
def test_the_limit_holds_for_what_is_inflated(size: int, step: int) -> None:
    """A message that inflates to more than the largest is refused with 1009, and nothing of it is kept."""
    data = Deflating(agreed()).message(bytes(size), BINARY) + close_frame()
    found = reader()
    stops: list[Stop] = []
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        while (stop := found.read(piece)) is not None:
            stops.append(stop)
            piece = b""
            if isinstance(stop, CloseFrame):
                break
    assert isinstance(stops[-1], CloseFrame)
    if size <= LIMIT:
        assert found.messages == [(bytes(size), True)]
        return
    words = "received WebSocket message exceeds payload limit of 10000 octets"
    assert stops[:-1] == [Breach(CloseCode.MESSAGE_TOO_BIG, words)]
    assert not found.messages
    assert not found._inflated


def test_a_frame_that_is_too_long_even_compressed() -> None:
    """A compressed message may be a little longer than the largest, as noise is, but not much."""
    noise = bytes((number * number) % 251 for number in range(LIMIT))
    stored = b"\x00" + LIMIT.to_bytes(2, "little") + (LIMIT ^ 0xFFFF).to_bytes(2, "little") + noise + b"\x00"
    assert reader().read(frame(stored, BINARY, rsv=4)) is None
    found = reader().read(frame(bytes(LIMIT + 200), BINARY, rsv=4)[:20])
    assert isinstance(found, Breach)
    assert found.code == CloseCode.MESSAGE_TOO_BIG


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(b"\xff" * 10, BINARY, rsv=4), "invalid compressed data"),
        (Deflating(agreed()).message(b"\xff"), None),
        (Deflating(agreed()).message(LONG + b"\xc3"), None),
    ],
)
def test_data_that_is_wrong(data: bytes, reason: str | None) -> None:
    """What cannot be inflated, and texts that are no UTF-8 then, are refused with 1007."""
    found = reader().read(data)
    assert isinstance(found, Breach)
    assert found.code == CloseCode.INVALID_PAYLOAD
    assert reason is None or found.reason == reason


@pytest.mark.parametrize(
    "data",
    [
        frame(b"", PING, rsv=4),
        close_frame()[:1].replace(b"\x88", b"\xc8") + close_frame()[1:],
        frame(b"a", rsv=2),
        frame(b"a", rsv=5),
        frame(b"a", opcode=3, rsv=4),
        frame(b"a", CONTINUATION, rsv=4),
        frame(b"a", fin=False) + frame(b"b", CONTINUATION, rsv=4),
        frame(b"a", TEXT, fin=False) + frame(b"b", TEXT, rsv=4),
        frame(b"a", rsv=4, mask=None),
    ],
)
def test_where_the_bit_is_not_allowed(data: bytes) -> None:
    """RFC 7692 section 6.1: the bit is for the first frame of a message alone, and other rules hold as before."""
    assert isinstance(reader().read(data), BadHeader)


def test_nothing_is_inflated_while_closing() -> None:
    """Once only the close frame matters, compressed messages are skipped."""
    found = reader()
    found.discarding = True
    stop = found.read(frame(b"\xff" * 10, BINARY, rsv=4) + Deflating(agreed()).message(LONG) + close_frame())
    assert isinstance(stop, CloseFrame)
    assert not found.messages


def test_one_call_inflates_a_bounded_amount() -> None:
    """Many small frames that hold a lot are taken in several calls, so that memory is bounded and others get a turn."""
    peer = Deflating(agreed())
    data = b"".join(peer.message(bytes(100_000), BINARY) for _ in range(50))
    found, calls = reader(limit=100_000), 0
    while calls == 0 or found.is_full:
        assert found.read(data) is None
        assert sum(len(payload) for payload, _ in found.messages) < READ_BYTES + 100_000
        found.messages.clear()
        data = b""
        calls += 1
    assert calls == 17
    assert (found.frames, found.kept_bytes) == (50, 0)


def test_a_truncated_stream_holds_no_more_than_it_has() -> None:
    """A message whose last block is not complete is no error that can be seen, and gives what there is of it."""
    data = zlib.compressobj(9, zlib.DEFLATED, -15).compress(b"a")
    found = reader()
    assert found.read(frame(data, BINARY, rsv=4)) is None
    assert found.messages == [(b"", True)]
