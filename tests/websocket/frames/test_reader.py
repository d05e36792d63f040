"""The frames that the server reads, however they are cut; test_against_autobahn.py compares with Autobahn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    close_frame,
    fragments,
    frame,
    header,
)

from pyryrelay.close_codes import CloseCode
from pyryrelay.protocol import Message
from pyryrelay.websocket.frames.reader import (
    MANY_FRAMES,
    BadHeader,
    Breach,
    CloseFrame,
    FrameReader,
    Stop,
)

LIMIT = 100_000


def read(reader: FrameReader, data: bytes) -> list[Stop]:
    """Read everything up to a close frame, and return the messages and control frames on the way."""
    stops: list[Stop] = []
    while not (stops and isinstance(stops[-1], CloseFrame)) and (stop := reader.read(data)) is not None:
        stops.append(stop)
        data = b""
    return stops


def outcome(pieces: list[bytes]) -> tuple[list[Stop], list[Message], list[bytes], list[bytes], int]:
    """Return everything that a new reader reports about a stream in pieces."""
    reader = FrameReader(LIMIT, 4)
    stops: list[Stop] = []
    for piece in pieces:
        stops += read(reader, piece)
        if any(isinstance(stop, CloseFrame) for stop in stops):
            break
    return stops, reader.messages, reader.pings, reader.pongs, reader.frames


def held(reader: FrameReader) -> int:
    """Return how many bytes of incomplete frames are kept."""
    return len(reader._kept) + sum(map(len, reader._parts))


PLAIN = b"".join(
    (
        frame(b"text"),
        frame(b"\xff", BINARY),
        frame(b"", PING),
        frame(b"ping", PING),
        frame(b"x" * 126),
        fragments([b"\xc3", b"\xa4", b""])[0],
        frame(b"between", PING),
        *fragments([b"\xc3", b"\xa4", b""])[1:],
        frame(b"pong", PONG),
        frame(b"\xfe" * 300, BINARY),
        frame(b"y" * 65536, BINARY),
        frame("ö".encode()),
        *fragments([b"\xff", b"\xfe"], BINARY),
    )
)


def test_what_a_client_may_send() -> None:
    """Messages, pings and pongs are collected by kind, and every frame is counted."""
    assert outcome([PLAIN]) == (
        [],
        [
            (b"text", False),
            (b"\xff", True),
            (b"x" * 126, False),
            ("ä".encode(), False),
            (b"\xfe" * 300, True),
            (b"y" * 65536, True),
            ("ö".encode(), False),
            (b"\xff\xfe", True),
        ],
        [b"", b"ping", b"between"],
        [b"pong"],
        15,
    )


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 13, 1000, 65536])
def test_pieces_of_one_size(size: int) -> None:
    """Pieces of any size, down to single bytes, give the same result as the whole."""
    assert outcome([PLAIN[at : at + size] for at in range(0, len(PLAIN), size)]) == outcome([PLAIN])


STOPS: list[tuple[bytes, Stop]] = [
    (frame(b"\xff"), Breach(CloseCode.INVALID_PAYLOAD, "encountered invalid UTF-8")),
    (frame(b"\xc3"), Breach(CloseCode.INVALID_PAYLOAD, "UTF-8 text message payload ended within")),
    (frame(b"x" * 200 + b"\xff"), Breach(CloseCode.INVALID_PAYLOAD, "encountered invalid UTF-8")),
    (b"".join(fragments([b"a", b"\xff", b"b"])), Breach(CloseCode.INVALID_PAYLOAD, "encountered invalid UTF-8")),
    (frame(b"x" * (LIMIT + 1)), Breach(CloseCode.MESSAGE_TOO_BIG, f"received WebSocket message size {LIMIT + 1}")),
    (
        b"".join(fragments([b"x" * LIMIT, b"x"])),
        Breach(CloseCode.MESSAGE_TOO_BIG, f"received WebSocket message size {LIMIT + 1}"),
    ),
    (b"".join(fragments([b""] * 5)), Breach(CloseCode.POLICY_VIOLATION, "too many fragments")),
    (frame(b"", rsv=1), BadHeader(b"", False)),
    (frame(b"a", mask=None), BadHeader(b"", False)),
    (frame(b"x" * 70_000, mask=None), BadHeader(b"", False)),
    (frame(b"", 3), BadHeader(b"", False)),
    (frame(b"", 11), BadHeader(b"", False)),
    (frame(b"a", CONTINUATION), BadHeader(b"", False)),
    (frame(b"a", fin=False) + frame(b"a"), BadHeader(b"", True)),
    (frame(b"", PING, fin=False), BadHeader(b"", False)),
    (frame(b"a" * 126, PING), BadHeader(b"", False)),
    (frame(b"a", CLOSE), BadHeader(b"", False)),
    (b"\x81\xfe\x00\x7d" + bytes(4 + 125), BadHeader(b"", False)),
    (b"\x81\xff" + (65535).to_bytes(8, "big") + bytes(4 + 65535), BadHeader(b"", False)),
]


@pytest.mark.parametrize(("data", "expected"), STOPS)
@pytest.mark.parametrize("size", [1, 4, 1 << 20])
def test_a_protocol_error_is_reported_once(data: bytes, expected: Stop, size: int) -> None:
    """A protocol error is reported once, and frames after it are discarded up to the close frame."""
    stream = frame(b"before") + frame(b"1", PING) + data + PLAIN + close_frame(1001, b"bye")
    stops, messages, pings, pongs_, _ = outcome([stream[at : at + size] for at in range(0, len(stream), size)])
    stop, last = stops
    assert type(stop) is type(expected)
    if isinstance(stop, Breach) and isinstance(expected, Breach):
        assert stop.code == expected.code
        assert stop.reason.startswith(expected.reason)
    if isinstance(stop, BadHeader) and isinstance(expected, BadHeader):
        assert stop.inside_message == expected.inside_message
        assert 2 <= len(stop.raw) <= 14
        assert stop.raw in data
    assert last == CloseFrame(b"\x03\xe9bye")
    assert (messages, pings, pongs_) == ([(b"before", False)], [b"1"], [])


@pytest.mark.parametrize("first", range(256))
@pytest.mark.parametrize(
    ("opcode", "payload"),
    [(TEXT, b"x"), (TEXT, b"x" * 125), (TEXT, b"x" * 126), (BINARY, b"y" * 300), (TEXT, b"z" * 65536), (PING, b"ping")],
)
def test_every_mask(opcode: int, payload: bytes, first: int) -> None:
    """A mask may have any four bytes, whole or in pieces, which are never taken for a part of the header."""
    mask = bytes((first, 255 - first, first ^ 0x55, 0x81))
    data = frame(payload, opcode, mask=mask)
    cut = len(data) - len(payload) - 2
    for pieces in ([data], [data[:cut], data[cut:]]):
        stops, messages, pings, _, frames = outcome([*pieces, frame(b"next", mask=mask)])
        assert (stops, frames) == ([], 2)
        assert [*messages, *((ping, True) for ping in pings)] == [
            *([] if opcode == PING else [(payload, opcode == BINARY)]),
            (b"next", False),
            *([(payload, True)] if opcode == PING else []),
        ]


WRONG_TEXTS = {
    "never valid": (b"abc", b"\xff"),
    "overlong": (b"\xc3\xa4", b"\xc0"),
    "cut short by another": ("ä".encode() + b"\xe2", b"("),
    "a surrogate": (b"\xed", b"\xa0"),
    "beyond Unicode": (b"\xce\xba\xf4", b"\x90"),
    "at the end of much": (b"x" * 70_000 + b"\xe2\x82", b"\xff"),
}
"""What may still become a text, and what makes it invalid."""


@pytest.mark.parametrize("fragmented", [False, True])
@pytest.mark.parametrize("name", WRONG_TEXTS)
def test_invalid_text_is_found_at_its_first_wrong_byte(name: str, fragmented: bool) -> None:
    """Invalid UTF-8 is found before the end of its message or frame (Autobahn testsuite, cases 6.4)."""
    right, wrong = WRONG_TEXTS[name]
    before = frame(b"\xe2\x82\xac", fin=False) + frame(b"\xe2", CONTINUATION, fin=False) if fragmented else b""
    right = b"\x82\xac" + right if fragmented else right
    data = frame(right + wrong + b"x" * 1000, CONTINUATION if fragmented else TEXT)
    at = len(data) - 1001
    for pieces in ([data[:at]], [data[:1], data[1 : at - 1], data[at - 1 : at]]):
        reader = FrameReader(LIMIT, 4)
        assert [read(reader, piece) for piece in [before, *pieces]] == [[]] * (1 + len(pieces))
        (stop,) = read(reader, data[at : at + 1])
        assert isinstance(stop, Breach)
        assert stop.code == CloseCode.INVALID_PAYLOAD
        assert stop.reason.endswith(f"octet index {len(right) + (4 if fragmented else 0)}")
        assert held(reader) == 0
        assert read(reader, data[at + 1 :] + frame(b"ghost") + close_frame()) == [CloseFrame(b"\x03\xe8")]
        assert reader.messages == []


@given(
    text=st.text(max_size=40), cuts=st.lists(st.integers(0, 200), max_size=8).map(sorted), wrong=st.binary(max_size=3)
)
def test_pieces_of_texts(text: str, cuts: list[int], wrong: bytes) -> None:
    """A text is accepted or refused with the same words, however it is cut."""
    data = frame(text.encode() + wrong, fin=False) + frame("ß".encode(), CONTINUATION)
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, max(200, len(data))], strict=True)]
    assert outcome(pieces)[:2] == outcome([data])[:2]


def test_a_large_message_in_small_pieces_takes_no_more_than_its_size() -> None:
    """A message in single bytes uses memory and time in proportion to its size."""
    payload = bytes(range(256)) * 300
    data = frame(payload, BINARY)
    reader = FrameReader(LIMIT, 4)
    for at in range(len(data)):
        read(reader, data[at : at + 1])
        assert len(reader._parts) <= len(payload) // 32768 + 1
    assert reader.messages == [(payload, True)]


def test_refused_frames_count() -> None:
    """Refused frames are counted, since quotas are for what was sent."""
    stream = frame(b"a") + frame(b"", rsv=1) + frame(b"b") + frame(b"", PING) + close_frame(1000)
    assert outcome([stream])[4] == 5


def test_an_endless_frame_is_skipped_and_not_kept() -> None:
    """A frame of 2^63 bytes is refused by its header, and its payload uses no memory."""
    reader = FrameReader(LIMIT, 4)
    (stop,) = read(reader, header((1 << 63) - 1) + bytes(4))
    assert isinstance(stop, Breach)
    for _ in range(10):
        assert read(reader, bytes(65536)) == []
        assert held(reader) == 0
    assert reader.incomplete


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1])
def test_length_with_its_highest_bit(size: int) -> None:
    """RFC 6455 section 5.2: the most significant bit of a 64-bit length must be 0, whatever the limits are."""
    data = header(size, BINARY) + bytes(4)
    assert outcome([data])[0] == outcome([data[:9], data[9:]])[0] == [BadHeader(data, False)]


def test_limits_are_of_one_message() -> None:
    """Each message may have all its bytes in all its fragments."""
    parts = [b"x" * (LIMIT - 3), b"y", b"y", b"z"]
    stream = b"".join(b"".join(fragments(parts, opcode)) for opcode in (BINARY, TEXT, BINARY, TEXT))
    stops, messages, *_ = outcome([stream])
    assert stops == []
    assert messages == [(b"".join(parts), is_binary) for is_binary in (True, False, True, False)]


def test_discarding_leaves_the_close_frame() -> None:
    """While frames are discarded only a close frame is reported."""
    reader = FrameReader(LIMIT, 4)
    assert read(reader, frame(b"a", fin=False)) == []
    reader.discarding = True
    stops = read(reader, frame(b"b", CONTINUATION, fin=False) + PLAIN + frame(b"\xff") + close_frame(1000))
    assert stops == [CloseFrame(b"\x03\xe8")]
    assert (reader.messages, reader.pings, reader.pongs) == ([], [], [])


@pytest.mark.parametrize(
    "data",
    [
        frame(b"", 3),
        frame(b"", 11),
        frame(b"", rsv=1),
        frame(b"a", mask=None),
        frame(b"", PING, fin=False),
        frame(b"a" * 126, PONG),
        frame(b"a", CLOSE),
        b"\x81\xfe\x00\x7d" + bytes(4 + 125),
    ],
)
def test_invalid_headers_are_reported_while_discarding(data: bytes) -> None:
    """An invalid header is reported even while frames are discarded."""
    reader = FrameReader(LIMIT, 4)
    reader.discarding = True
    bad, last = read(reader, frame(b"a") + data + close_frame(1000))
    assert isinstance(bad, BadHeader)
    assert data.startswith(bad.raw)
    assert last == CloseFrame(b"\x03\xe8")


@pytest.mark.parametrize(
    ("data", "incomplete"),
    [
        (b"", False),
        (PLAIN, False),
        (b"\x81", True),
        (frame(b"abc")[:-1], True),
        (frame(b"a", fin=False), True),
        (frame(b"a", fin=False) + frame(b"b", CONTINUATION), False),
    ],
)
def test_whether_something_has_begun(data: bytes, incomplete: bool) -> None:
    """From the first byte of a message to its last, the reader reports something incomplete."""
    reader = FrameReader(LIMIT, 4)
    read(reader, data)
    assert reader.incomplete is incomplete


_CUTS = st.lists(st.integers(0, 400), max_size=12).map(sorted)
_STREAMS = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([frame(b"text"), frame(b"", PING), frame(b"x" * 126, BINARY), close_frame(1000)]),
        st.sampled_from([data for data, _ in STOPS if len(data) < 400]),
    ),
    max_size=8,
).map(b"".join)


@given(stream=_STREAMS, cuts=_CUTS)
def test_cuts_make_no_difference(stream: bytes, cuts: list[int]) -> None:
    """Arbitrary bytes give the same result whole or in pieces, and raise nothing but `Stop`."""
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, max(400, len(stream))], strict=True)]
    assert outcome(pieces) == outcome([stream])


@given(pieces=st.lists(st.binary(max_size=64), max_size=50), size=st.integers(0, LIMIT))
def test_what_is_kept_is_bounded(pieces: list[bytes], size: int) -> None:
    """An incomplete frame keeps at most the largest message, or control frame, and a header."""
    reader = FrameReader(size, 4)
    read(reader, header(size, BINARY) + bytes(4))
    for piece in pieces:
        read(reader, piece)
        assert held(reader) <= max(size, 125) + 14


@pytest.mark.parametrize("piece", [frame(b"1"), frame(b"1", BINARY), frame(b"", PING), frame(b"", PONG), frame(b"")])
def test_no_more_than_many_frames_are_taken_at_once(piece: bytes) -> None:
    """Frames over the number for one turn are kept and taken later, with and without new bytes."""
    reader, sent, turns = FrameReader(LIMIT, 4), 3 * MANY_FRAMES, 0
    assert reader.read(piece * sent) is None
    taken = reader.frames
    while reader.is_full:
        assert reader.frames in (MANY_FRAMES, MANY_FRAMES + 1)
        assert reader.incomplete
        reader.frames, turns = 0, turns + 1
        assert reader.read(piece if turns == 1 else b"") is None
        taken += reader.frames
    assert taken == sent + 1
    assert (len(reader.messages) + len(reader.pings) + len(reader.pongs)) == taken
    assert turns >= 2
    assert not reader.incomplete


def test_what_is_discarded_takes_turns_too() -> None:
    """Discarding stops at about the same number of frames, and the rest is kept."""
    reader = FrameReader(LIMIT, 4)
    reader.discarding, reader.most_frames = True, 5
    assert reader.read(frame(b"1") * 12) is None
    assert (reader.frames, reader.is_full, reader.kept_bytes) == (6, True, 6 * len(frame(b"1")))
    reader.frames = 0
    assert reader.read(b"") is None
    assert (reader.frames, reader.is_full, reader.kept_bytes) == (6, False, 0)


def test_the_beginning_of_a_header_is_kept() -> None:
    """An incomplete header is kept until there is enough of it."""
    reader = FrameReader(LIMIT, 4)
    assert reader.read(frame(b"1")[:1]) is None
    assert reader.kept_bytes == 1
