"""The send queue: turns, order and fragments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.frames import decode
from websockets.frames import Opcode

from pyryrelay.websocket.frames.writer import SLICE_BYTES, encode
from pyryrelay.websocket.outbox.send_queue import SendQueue

MOST = 1000
LARGE, SIBLING = "large", "sibling"


def messages_in(data: bytes) -> list[bytes]:
    """Return the messages of these frames, joined as RFC 6455 section 5.4 says."""
    found: list[bytes] = []
    parts: list[bytes] = []
    for frame in decode(data):
        assert (frame.opcode is Opcode.CONT) == bool(parts)
        parts.append(bytes(frame.data))
        if frame.fin:
            found.append(b"".join(parts))
            parts = []
    assert not parts
    return found


def put(queue: SendQueue, source: str, *messages: bytes) -> None:
    """Put messages, each in a slice of its own."""
    for message in messages:
        queue.put(source, encode([message]))


def drain(queue: SendQueue, *, most: int = MOST, cut: bool = True) -> bytes:
    """Take everything."""
    taken = bytearray()
    while queue.size:
        taken += b"".join(queue.take(most, cut=cut))
    assert queue.take(most, cut=cut) == []
    return bytes(taken)


def order(data: bytes) -> str:
    """Return the first letters of the messages."""
    return "".join(chr(message[0]) for message in messages_in(data))


def test_nothing_comes_out_of_an_empty_queue() -> None:
    """An empty queue gives nothing, before a put and after one of nothing."""
    queue = SendQueue()
    queue.put(LARGE, [])
    assert queue.take(MOST, cut=False) == []
    assert (queue.size, queue.frames, queue.waiting(LARGE)) == (0, 0, 0)


def test_what_waits_is_counted() -> None:
    """Waiting bytes are counted altogether and for each source, frames until the last of their slice is taken."""
    queue = SendQueue()
    queue.put(LARGE, [(encode([b"x" * 100])[0][0] * 3, 3)])
    put(queue, SIBLING, b"y" * 10)
    assert (queue.size, queue.frames) == (3 * 102 + 12, 4)
    assert (queue.waiting(LARGE), queue.waiting(SIBLING)) == (306, 12)
    assert queue.take(1, cut=False) == [encode([b"y" * 10])[0][0]]
    assert queue.take(150, cut=True) == [encode([b"x" * 100])[0][0]]
    assert (queue.size, queue.frames, queue.waiting(LARGE)) == (204, 3, 204)
    drain(queue)
    assert (queue.size, queue.frames, queue.waiting(LARGE)) == (0, 0, 0)


def test_whose_queue_ended_is_told() -> None:
    """Sources whose queue has ended are listed in that order, until the list is cleared."""
    queue = SendQueue()
    put(queue, LARGE, b"g" * 5000)
    put(queue, SIBLING, b"s")
    queue.take(MOST, cut=True)
    assert queue.emptied == [SIBLING]
    drain(queue)
    assert queue.emptied == [SIBLING, LARGE]


def test_a_short_frame_passes_between_long_ones() -> None:
    """A source that begins is next, however much waits of another, and so are its further short frames."""
    queue = SendQueue()
    put(queue, LARGE, *[b"g" * 5000] * 3)
    taken = b"".join(queue.take(MOST, cut=True))
    put(queue, SIBLING, b"s1", b"s2")
    taken += drain(queue)
    assert order(taken) == "gssgg"


def test_a_short_frame_passes_many_sources_with_long_ones() -> None:
    """A short frame passes many sources with long ones, new or served before."""
    queue = SendQueue()
    taken = b""
    for source in range(14):
        put(queue, f"large {source}", *[b"g" * 5000] * 3)
    for _ in range(30):
        before = len(taken)
        put(queue, SIBLING, b"s")
        while taken[before:].count(b"s") == 0:
            taken += b"".join(queue.take(MOST, cut=True))
            assert len(taken) - before < 2 * 5000 + MOST, "more than the message that had begun went first"
    taken += drain(queue)
    assert order(taken).count("g") == 14 * 3


@pytest.mark.parametrize("cut", [True, False])
def test_sources_share_by_bytes(cut: bool) -> None:
    """Sources share bytes and not frames."""
    queue = SendQueue()
    put(queue, LARGE, *[b"g" * 5000] * 100)
    put(queue, SIBLING, *[b"s" * 100] * 5000)
    taken = b""
    while len(taken) < 400_000:
        taken += b"".join(queue.take(MOST, cut=cut))
    large, sibling = taken.count(b"g"), taken.count(b"s")
    assert abs(large - sibling) <= 2 * 5000


def test_who_empties_its_queue_gains_nothing() -> None:
    """A source that puts one long frame whenever it has none waiting gets its share and no more."""
    queue = SendQueue()
    put(queue, SIBLING, *[b"s" * 1000] * 400)
    taken = b""
    while len(taken) < 300_000:
        if not queue.waiting(LARGE):
            put(queue, LARGE, b"g" * 10_000)
        taken += b"".join(queue.take(MOST, cut=True))
    assert taken.count(b"g") < taken.count(b"s") + 2 * 10_000


def test_an_empty_queue_starts_anew() -> None:
    """After the queue was empty, a source that was alone for long has no disadvantage."""
    queue = SendQueue()
    put(queue, LARGE, *[b"g" * 5000] * 50)
    drain(queue)
    put(queue, LARGE, b"a" * 100)
    put(queue, SIBLING, b"b" * 101)
    assert order(drain(queue, most=50)) == "ab"


def test_sources_that_are_gone_are_forgotten() -> None:
    """Sources without frames are forgotten, even while those of another one wait all the time."""
    queue = SendQueue()
    put(queue, LARGE, *[b"g" * 500] * 3000)
    for number in range(1000):
        put(queue, f"passing {number}", b"p" * 500)
        queue.take(MOST, cut=True)
        queue.take(MOST, cut=True)
    assert queue.waiting(LARGE)
    assert len(queue._flows) < 100


def test_many_sources_that_wait_are_rarely_looked_through() -> None:
    """The cost of many short-lived sources is not the square of their number."""
    queue = SendQueue()
    for number in range(1000):
        put(queue, f"passing {number}", b"p")
    looks = 0
    for _ in range(500):
        flows = queue._flows
        queue.take(1, cut=False)
        looks += queue._flows is not flows
    assert looks == 1
    assert len(messages_in(drain(queue))) == 500


def test_clearing_forgets_what_waits() -> None:
    """Clearing forgets everything, also the rest of a message that has begun."""
    queue = SendQueue()
    put(queue, LARGE, b"g" * 5000)
    queue.take(MOST, cut=True)
    queue.clear()
    assert (queue.size, queue.frames, queue.waiting(LARGE)) == (0, 0, 0)
    put(queue, LARGE, b"new")
    assert messages_in(drain(queue)) == [b"new"]


def test_whole_slices_are_taken_where_nothing_is_cut() -> None:
    """Without cutting, slices are taken up to the one that reaches the given size."""
    queue = SendQueue()
    slices = encode([b"x" * 400] * 1000)
    queue.put(LARGE, slices)
    assert queue.take(SLICE_BYTES, cut=False) == [slices[0][0]]
    assert queue.take(2 * SLICE_BYTES, cut=False) == [data for data, _ in slices[1:3]]


@pytest.mark.parametrize("size", [1, 125, 126, 999, 1000, 1250, 1251, 65535, 65536, 200_000])
def test_long_frames_are_cut(size: int) -> None:
    """RFC 6455 section 5.4: the first fragment has the opcode, the others continue it, and the last one is final."""
    queue = SendQueue()
    payload = bytes(index % 251 for index in range(size))
    queue.put(LARGE, encode([payload], binary=True))
    pieces = []
    while queue.size:
        (piece,) = queue.take(MOST, cut=True)
        pieces.append(piece)
    frames = [frame for piece in pieces for frame in decode(piece)]
    assert len(frames) == len(pieces)
    assert frames[0].opcode is Opcode.BINARY
    assert {frame.opcode for frame in frames[1:]} <= {Opcode.CONT}
    assert [frame.fin for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert b"".join(bytes(frame.data) for frame in frames) == payload
    assert max(map(len, pieces)) <= MOST + MOST // 4 + 10
    assert (len(pieces) == 1) == (size <= 1250)


def test_short_frames_of_one_slice_are_not_cut() -> None:
    """A slice is cut between its frames if there is room for some of them."""
    queue = SendQueue()
    queue.put(LARGE, encode([b"x" * 300] * 10 + [b"y" * 5000] + [b"z"] * 3))
    sizes = []
    while queue.size:
        sizes.append([len(frame.data) for piece in queue.take(MOST, cut=True) for frame in decode(piece)])
    assert sizes[:3] == [[300] * 3] * 3
    assert sizes[3] == [300, 1000]
    assert sizes[-1][-3:] == [1, 1, 1]


def test_a_message_that_has_begun_is_ended_where_nothing_is_cut_any_more() -> None:
    """When cutting ends, the rest of a message is taken at once, then the rest of its slice, then others."""
    queue = SendQueue()
    queue.put(LARGE, [(encode([b"g" * 5000])[0][0] + encode([b"h"])[0][0], 2)])
    taken = b"".join(queue.take(MOST, cut=True))
    put(queue, SIBLING, b"s")
    taken += drain(queue, cut=False)
    assert messages_in(taken) == [b"g" * 5000, b"h", b"s"]


class Put(NamedTuple):
    """Put messages of a source."""

    source: str
    sizes: Sequence[int]


class Take(NamedTuple):
    """Take some of them."""

    most: int
    cut: bool


_SIZES = st.one_of(st.integers(1, 40), st.sampled_from([125, 126, 3000, 65535, 65536, 70_000]))
_STEPS = st.lists(
    st.one_of(
        st.builds(Put, st.sampled_from("abc"), st.lists(_SIZES, max_size=5)),
        st.builds(Take, st.integers(1, 100_000), st.booleans()),
    ),
    max_size=25,
)


@given(steps=_STEPS)
def test_every_message_arrives_once_and_in_the_order_of_its_source(
    steps: Sequence[Put | Take],
) -> None:
    """Every message is taken once and in the order of its source, cut or not."""
    queue, sent, taken = SendQueue(), dict[str, list[bytes]](), b""
    for step in steps:
        match step:
            case Put(source, sizes):
                batch = [source.encode() * size for size in sizes]
                sent.setdefault(source, []).extend(batch)
                queue.put(source, encode(batch))
            case Take(most, cut):
                taken += b"".join(queue.take(most, cut=cut))
    taken += drain(queue)
    found = messages_in(taken)
    assert all(_of(source, found) == batch for source, batch in sent.items())
    assert len(found) == sum(map(len, sent.values()))
    assert queue.frames == 0


def _of(source: str, messages: Iterable[bytes]) -> list[bytes]:
    return [message for message in messages if message[:1] == source.encode()]
