"""The outbox: order, limits and slices, on a transport whose peer does not read."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from math import inf

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.frames import decode
from tests.support.harness import ALICE
from tests.support.transports import HIGH_WATER_BYTES, Transport, tcp_address
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection

from pyryrelay.protocol import PeerPolicy
from pyryrelay.runtime.socket_options import Delivery
from pyryrelay.websocket.frames.writer import SLICE_BYTES, encode
from pyryrelay.websocket.outbox import outbox
from pyryrelay.websocket.outbox.outbox import LOOK_S, PROGRESS_BYTES, UNCUT_BYTES, Outbox

KIB = 1024


class Rig:
    """An outbox on a transport, and its callbacks."""

    def __init__(self, policy: PeerPolicy = PeerPolicy(), *, peer_reads: bool = False) -> None:  # noqa: B008
        self.clock = Clock()
        self.transport = Transport(tcp_address(ALICE), peer_reads=peer_reads)
        self.drained = 0
        self.told: list[object] = []
        self.on_source_drained: Callable[[object], None] = lambda source: None
        self.outbox = Outbox(
            self.transport,  # type: ignore[arg-type]
            policy,
            self.clock.seconds,
            self._drained,
            self._source_drained,
        )

    def _drained(self) -> None:
        assert self.outbox.empty
        assert self.outbox.blocked_since_s is None
        self.drained += 1
        self.told.append("all")

    def _source_drained(self, source: object) -> None:
        assert not self.outbox.waiting_of(source)
        self.told.append(source)
        self.on_source_drained(source)

    def write(self, frames: Sequence[bytes]) -> bool:
        """Send frames, each in a slice of its own."""
        return self.outbox.write([(frame, 1) for frame in frames])

    def block(self) -> None:
        """Fill the transport."""
        self.write([b"#" * (HIGH_WATER_BYTES + 1)])
        assert self.outbox.blocked_since_s is not None


def test_a_peer_that_keeps_up_buffers_nothing() -> None:
    """For a peer that keeps up frames go straight to the transport, and none is counted as waiting."""
    rig = Rig(PeerPolicy(outbox_bytes=10), peer_reads=True)
    assert rig.write([b"a"])
    assert rig.write([b"b" * 1000, b"c", b"d" * 1000])
    assert rig.write([])
    assert bytes(rig.transport.taken) == b"a" + b"b" * 1000 + b"c" + b"d" * 1000
    assert (rig.outbox.buffered_bytes, rig.outbox.waiting_bytes, rig.outbox.empty) == (0, 0, True)


def test_the_outbox_is_the_transports_streaming_producer() -> None:
    """The outbox registers itself as a push producer, once."""
    rig = Rig()
    assert rig.transport.producer is rig.outbox
    assert rig.transport.streaming is True


def test_what_a_full_transport_cannot_take_waits() -> None:
    """From the high-water mark on frames wait, are counted, and are sent when the peer reads."""
    rig = Rig()
    rig.clock.advance(7.0)
    rig.block()
    assert rig.write([b"x" * 100, b"y" * 50])
    assert rig.outbox.waiting_bytes == 150
    assert rig.outbox.buffered_bytes == HIGH_WATER_BYTES + 1 + 150
    assert rig.outbox.blocked_since_s == 7.0
    assert not rig.outbox.empty
    rig.transport.read_all()
    assert bytes(rig.transport.taken[-150:]) == b"x" * 100 + b"y" * 50
    assert (rig.outbox.buffered_bytes, rig.outbox.waiting_bytes, rig.outbox.empty) == (0, 0, True)
    assert rig.drained == 1


def test_the_time_of_blocking_is_that_of_the_first_refusal() -> None:
    """The stall begins with the first pause that the transport asks for."""
    rig = Rig()
    rig.block()
    rig.clock.advance(3.0)
    rig.transport.write(b"a control frame")
    assert rig.outbox.blocked_since_s == 0.0


def test_each_slice_that_is_taken_is_a_sign_of_life() -> None:
    """The stall begins anew with every slice that the peer takes."""
    rig = Rig()
    rig.block()
    rig.write([b"x" * SLICE_BYTES, b"x", b"y" * SLICE_BYTES, b"y"])
    rig.clock.advance(5.0)
    rig.transport.read()
    assert rig.outbox.blocked_since_s == 5.0
    assert rig.drained == 0


@pytest.mark.parametrize(
    ("sizes", "slices"),
    [
        ([1000] * 200, [66_000, 66_000, 66_000, 2000]),
        ([SLICE_BYTES - 1, 1, 1], [SLICE_BYTES + 1]),
        ([SLICE_BYTES - 1, 2, 5], [SLICE_BYTES + 1, 5]),
        ([300_000, 1, 300_000, 2], [300_000, 300_001, 2]),
        ([5] * 10, [50]),
    ],
)
def test_slices_are_cut_between_frames(sizes: list[int], slices: list[int]) -> None:
    """Waiting frames are handed over in slices of about 64 KiB that hold whole frames."""
    rig = Rig()
    rig.block()
    frames = [bytes([at % 251]) * size for at, size in enumerate(sizes)]
    rig.write(frames)
    rig.transport.taken.clear()
    rig.transport.waiting.clear()
    taken = []
    rig.transport.read()
    while rig.transport.waiting:
        taken.append(len(rig.transport.waiting))
        rig.transport.read()
    assert taken == slices
    assert bytes(rig.transport.taken) == b"".join(frames)


def test_a_large_batch_to_an_idle_peer_is_sliced_too() -> None:
    """A batch of megabytes fills the transport with one slice, and the rest waits in the outbox."""
    rig = Rig()
    rig.write([b"x" * 10 * KIB] * 100)
    assert len(rig.transport.waiting) == 70 * KIB
    assert rig.outbox.waiting_bytes == 930 * KIB
    rig.transport.read_all()
    assert len(rig.transport.taken) == 1000 * KIB


@pytest.mark.parametrize("batch", [[b"x"] * 4, [b"x", b"x" * 7, b"x" * 3]])
def test_limits_hold_for_what_waits(batch: list[bytes]) -> None:
    """A write over the limit by a byte, or by a frame's overhead, is refused, and all waiting frames are dropped."""
    rig = Rig(PeerPolicy(outbox_bytes=39, frame_overhead_bytes=10))
    rig.block()
    assert not rig.write(batch)
    assert (rig.outbox.empty, rig.outbox.waiting_bytes) == (True, 0)
    assert rig.outbox.buffered_bytes == HIGH_WATER_BYTES + 1


@pytest.mark.parametrize("batch", [[b"x"] * 3, [b"x" * 23], [b"x", b"x" * 12]])
def test_limits_include_their_value(batch: list[bytes]) -> None:
    """Exactly as much as the limit is kept, whatever the number of frames."""
    rig = Rig(PeerPolicy(outbox_bytes=33, frame_overhead_bytes=10))
    rig.block()
    assert rig.write(batch)
    rig.transport.read_all()
    assert rig.transport.taken.endswith(b"".join(batch))


def test_limits_hold_across_writes() -> None:
    """Frames of earlier writes count for the limit."""
    rig = Rig(PeerPolicy(outbox_bytes=16 * 65, frame_overhead_bytes=64))
    rig.block()
    assert all(rig.write([b"x"]) for _ in range(16))
    assert not rig.write([b"x"])


def test_what_was_handed_over_counts_no_more() -> None:
    """A peer that has taken what waited has the whole limit again, bytes and overhead."""
    rig = Rig(PeerPolicy(outbox_bytes=6 * (64 + 1), frame_overhead_bytes=64))
    for _ in range(3):
        rig.block()
        assert rig.outbox.write([(b"12", 2), (b"3", 1), (b"456", 3)])
        rig.transport.read_all()
    rig.block()
    rig.outbox.clear()
    assert rig.outbox.write([(b"123456", 6)])
    assert not rig.write([b"7"])


def test_the_number_of_frames_has_no_bound_of_its_own() -> None:
    """Small frames are kept as far as their bytes allow, however many they are."""
    limit_bytes = 4 * KIB * KIB
    rig = Rig(PeerPolicy(outbox_bytes=limit_bytes, frame_overhead_bytes=64))
    rig.block()
    assert all(rig.write([b"x" * 64]) for _ in range(limit_bytes // 128))
    assert not rig.write([b""])


def test_without_limits_the_outbox_takes_everything() -> None:
    """A limit of None is unlimited."""
    rig = Rig()
    rig.block()
    assert rig.write([b"x" * 1000] * 5000)
    assert rig.outbox.waiting_bytes == 5_000_000


def test_clearing_forgets_what_waits() -> None:
    """A cleared outbox hands over nothing more."""
    rig = Rig()
    rig.block()
    rig.write([b"x"])
    rig.outbox.clear()
    rig.transport.read_all()
    assert b"x" not in rig.transport.taken


def test_the_end_of_the_connection_only_detaches() -> None:
    """`stopProducing` drops what waits and closes nothing."""
    rig = Rig()
    rig.block()
    rig.write([b"x"])
    rig.transport.lose()
    assert (rig.outbox.empty, rig.outbox.buffered_bytes, rig.drained) == (True, 0, 0)
    assert (rig.transport.disconnecting, rig.transport.aborted) == (False, False)
    assert rig.write([b"y"])
    assert rig.outbox.buffered_bytes == 0


_STEPS = st.lists(
    st.one_of(
        st.lists(st.integers(0, 50_000), min_size=1, max_size=5),
        st.just("read"),
        st.integers(1, 80_000),
        st.just("reads on"),
        st.just("reads off"),
        st.just("control"),
    ),
    max_size=40,
)


@example(steps=[[15529, 50000, 0], "reads on", "control"])
@given(steps=_STEPS)
def test_order_is_kept_whatever_the_peer_does(steps: list[list[int] | int | str]) -> None:
    """Any interleaving of writes, blocking and reading delivers every frame whole, once and in order."""
    rig, sent, number = Rig(), bytearray(), 0
    for step in steps:
        if isinstance(step, list):
            frames = []
            for size in step:
                number += 1
                frames.append(b"(%d:" % number + b"x" * size + b")")
            assert rig.write(frames)
            sent += b"".join(frames)
        elif step == "read":
            rig.transport.read()
        elif isinstance(step, int):
            rig.transport.read(step)
        elif step == "control":
            rig.transport.write(b"!")
        else:
            rig.transport.peer_reads = step == "reads on"
        blocked = rig.outbox.blocked_since_s is not None
        assert rig.outbox.empty or blocked
        assert (rig.outbox.buffered_bytes > 0) == blocked
    rig.transport.peer_reads = False
    rig.transport.read_all()
    assert rig.outbox.empty
    pieces = bytes(rig.transport.taken).split(b"!")
    assert b"".join(pieces) == bytes(sent)
    assert all(piece.count(b"(") == piece.count(b")") for piece in pieces), "a control frame cut a frame"


def test_sources_have_their_turn() -> None:
    """Waiting frames of one source are overtaken by those of another, and frames that do not wait have no turn."""
    rig = Rig(peer_reads=True)
    assert rig.outbox.write(encode([b"first"]), "large")
    rig.transport.peer_reads = False
    rig.block()
    for _ in range(3):
        assert rig.outbox.write(encode([b"g" * 60_000]), "large")
    assert rig.outbox.write(encode([b"s"]), "sibling")
    assert (rig.outbox.waiting_of("large"), rig.outbox.waiting_of("sibling")) == (3 * 60_004, 3)
    rig.transport.taken.clear()
    rig.transport.waiting.clear()
    rig.transport.read_all()
    rig.transport.read()
    rig.transport.read_all()
    assert [bytes(found.data)[:1] for found in decode(bytes(rig.transport.taken))] == [b"s", b"g", b"g", b"g"]


def test_who_is_told_that_nothing_waits_any_more() -> None:
    """Each waiting source is told in the order of their ends, then the drain is; other sources are not told."""
    rig = Rig()
    rig.block()
    for _ in range(2):
        rig.outbox.write(encode([b"g" * 60_000] * 2), "large")
    rig.outbox.write(encode([b"s"]), "sibling")
    rig.transport.read()
    assert rig.told == ["sibling"]
    rig.transport.read_all()
    assert rig.told == ["sibling", "large", "all"]


def test_a_source_that_is_told_may_send_again() -> None:
    """A source may send when it is told; if that has to wait, the drain is not told."""
    rig = Rig()
    rig.block()
    rig.outbox.write(encode([b"1"]), "one")
    rig.outbox.write(encode([b"2"]), "two")
    rig.on_source_drained = lambda source: rig.block() if source == "one" else None
    rig.transport.read()
    assert rig.told == ["one", "two"]
    assert rig.outbox.blocked
    rig.on_source_drained = lambda source: None
    rig.transport.read_all()
    assert rig.told == ["one", "two", "all"]


def test_a_source_that_waits_again_is_not_told() -> None:
    """A source with new waiting frames is not told, such as when another one has blocked the peer meanwhile."""
    rig = Rig()
    rig.block()
    rig.outbox.write(encode([b"1"]), "one")
    rig.outbox.write(encode([b"2"]), "two")

    def again(source: object) -> None:
        rig.block()
        rig.outbox.write(encode([b"3"]), "two")

    rig.on_source_drained = again
    rig.transport.read()
    assert rig.told == ["one"]


# Slow lines


def slow(rig: Rig, bytes_per_s: float = 8000.0) -> None:
    """Find out that the peer takes this much in a second."""
    rig.block()
    rig.clock.advance((HIGH_WATER_BYTES + 1) / bytes_per_s)
    rig.transport.read_all()
    rig.transport.taken.clear()


def test_a_slow_line_gets_small_slices() -> None:
    """For a slow line long frames are cut, and short ones are handed over a few at a time."""
    rig = Rig()
    slow(rig)
    rig.block()
    rig.outbox.write(encode([b"x" * 10_000, *[b"y" * 500] * 10]))
    waiting = len(rig.transport.waiting)
    rig.clock.advance(8.0)
    rig.transport.waiting.clear()
    rig.transport.taken.clear()
    rig.transport.read()
    assert waiting == HIGH_WATER_BYTES + 1
    rig.transport.read_all()
    frames = decode(bytes(rig.transport.taken))
    assert [len(found.data) for found in frames] == [4096, 4096, 10_000 - 2 * 4096, *[500] * 10]
    assert [found.fin for found in frames[:3]] == [False, False, True]


def test_a_frame_too_long_for_a_slow_line_is_cut_although_nothing_waits() -> None:
    """A long frame is cut even if no other waits, since it cannot be recalled."""
    rig = Rig()
    slow(rig)
    rig.outbox.write(encode([b"x" * 4000]))
    rig.outbox.write(encode([b"x" * 10_000]))
    rig.transport.read_all()
    assert [len(found.data) for found in decode(bytes(rig.transport.taken))] == [4000, 4096, 4096, 10_000 - 2 * 4096]


def test_frames_that_were_cut_and_did_not_wait_leave_nothing_behind() -> None:
    """A frame that was cut and did not wait leaves no entry in any list."""
    rig = Rig()
    slow(rig)
    before = rig.told.copy()
    for _ in range(10):
        assert rig.outbox.write(encode([b"x" * 10_000]))
        rig.transport.read_all()
    assert rig.outbox._queue.emptied == []
    assert rig.told == before


def test_a_line_that_is_not_known_yet_gets_the_longest_frames_in_pieces() -> None:
    """On a line of unknown speed the longest frames are cut, until it has proved fast."""
    rig = Rig()
    rig.outbox.write(encode([b"x" * (UNCUT_BYTES - 10)]))
    rig.transport.read_all()
    assert len(decode(bytes(rig.transport.taken))) == 1
    fresh = Rig()
    for fragments in (5, 1):
        fresh.outbox.write(encode([b"x" * (UNCUT_BYTES + 1)]))
        fresh.transport.read_all()
        found = decode(bytes(fresh.transport.taken))
        assert len(found) == fragments
        assert sum(len(frame.data) for frame in found) == UNCUT_BYTES + 1
        fresh.transport.taken.clear()


@pytest.mark.parametrize(
    ("found", "cut"), [(Delivery(0, 0, 0.04), True), (Delivery(0, 0, 0.001), False), (None, False)]
)
def test_nothing_is_cut_for_a_peer_that_is_near(
    kernel: Deliveries, plain: Plain, found: Delivery | None, cut: bool
) -> None:
    """No frame is cut for a peer with a short round trip, or on this machine."""
    kernel.found = found
    payload = b"x" * (UNCUT_BYTES + 1)
    for _ in range(2):
        plain.outbox.write(encode([payload]))
        plain.read_all()
    frames = decode(plain.taken[3:])
    assert (len(frames) > 2) == cut
    assert b"".join(bytes(frame.data) for frame in frames) == payload * 2


def test_a_line_that_recovers_gets_large_slices_again() -> None:
    """A line that recovers gets large slices again."""
    rig = Rig()
    slow(rig)
    for _ in range(2):
        rig.block()
        rig.outbox.write(encode([b"x" * 60_000] * 4))
        rig.transport.read_all()
    rig.transport.taken.clear()
    rig.outbox.write(encode([b"x" * (UNCUT_BYTES + 1)]))
    rig.transport.read_all()
    assert len(decode(bytes(rig.transport.taken))) == 1


class Deliveries:
    """The deliveries that the kernel reports about a socket, and the limits that it gets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: Delivery | None = Delivery(0, 0, 0.04)
        self.limits: list[int | None] = []
        monkeypatch.setattr(outbox, "INHERITS_OPTIONS", True)
        monkeypatch.setattr(outbox, "delivery", lambda handle: self.found)
        monkeypatch.setattr(outbox, "limit_send_buffer", lambda handle, size: self.limits.append(size))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Deliveries:
    """A kernel that reports what the test wants."""
    return Deliveries(monkeypatch)


def fill(plain: Plain) -> None:
    """Write until nothing more is taken."""
    while not plain.outbox.blocked:
        assert plain.outbox.write(encode([b"x" * 10_000]))


def test_a_kernel_that_holds_too_much_for_its_line_is_limited(kernel: Deliveries, plain: Plain) -> None:
    """The limit is set once, not for every small change, and removed as soon as the line is fast."""
    kernel.found = Delivery(0, 500_000, 0.04)
    fill(plain)
    plain.outbox.write(encode([b"x" * 10_000] * 30))
    while plain.outbox.blocked:
        plain.clock.advance(0.5)
        plain.turn()
        plain.read(4096)
    assert len(kernel.limits) == 1
    assert kernel.limits[0] is not None
    assert 8192 <= kernel.limits[0] < 100_000
    for _ in range(3):
        fill(plain)
        plain.outbox.write(encode([b"x" * 10_000] * 30))
        plain.read_all()
    assert kernel.limits[1:] == [None]


def test_a_kernel_that_holds_what_its_line_needs_is_left_alone(kernel: Deliveries, plain: Plain) -> None:
    """A kernel that holds what its line needs, or reports nothing, is not limited."""
    for kernel.found in (Delivery(0, 1000, 0.04), None):
        fill(plain)
        plain.clock.advance(1.0)
        plain.read_all()
    assert kernel.limits == []


def test_the_transport_of_a_slow_line_holds_one_slice(kernel: Deliveries, plain: Plain) -> None:
    """The transport holds what its socket did not take of one slice, and the next slice waits in the outbox."""
    fill(plain)
    plain.clock.advance(20.0)
    plain.read_all()
    before = plain.outbox.waiting_bytes
    assert before == 0
    plain.outbox.write(encode([b"x" * 3000] * 500))
    assert plain.outbox.blocked
    assert plain.outbox._transport_bytes <= 4096 + 1024 + 10


def test_a_peer_that_takes_what_it_was_given_has_not_stalled(kernel: Deliveries) -> None:
    """A slice may take long on its line, as long as some of it is acknowledged."""
    plain = Plain(PeerPolicy(stall_timeout_s=10.0))
    try:
        fill(plain)
        began_s = plain.clock.seconds()
        assert plain.outbox.stalled_at_s == began_s + LOOK_S
        for number in range(5):
            plain.clock.advance(plain.outbox.stalled_at_s - plain.clock.seconds())
            kernel.found = Delivery(PROGRESS_BYTES * number, 0, 0.04)
            assert not plain.outbox.has_stalled()
            assert plain.outbox.stalled_at_s == plain.clock.seconds() + 10.0
        plain.clock.advance(9.9)
        kernel.found = Delivery(5 * PROGRESS_BYTES - 1, 0, 0.04)
        assert not plain.outbox.has_stalled()
        plain.clock.advance(0.2)
        assert plain.outbox.has_stalled(), "a byte now and then is not enough"
    finally:
        plain.close()


def test_a_peer_of_whom_the_kernel_says_nothing_has_its_time(kernel: Deliveries) -> None:
    """Without reports of the kernel the time counts from the last slice."""
    plain = Plain(PeerPolicy(stall_timeout_s=10.0))
    try:
        kernel.found = None
        assert not plain.outbox.has_stalled()
        for _ in range(2):
            fill(plain)
            plain.clock.advance(LOOK_S)
            assert not plain.outbox.has_stalled()
            plain.clock.advance(8.9)
            assert not plain.outbox.has_stalled()
            plain.clock.advance(0.2)
            assert plain.outbox.has_stalled()
            plain.read_all()
            assert not plain.outbox.has_stalled()
    finally:
        plain.close()


def test_where_the_end_of_what_was_handed_over_is(kernel: Deliveries, plain: Plain) -> None:
    """The end is what the peer has acknowledged plus what kernel and transport hold, or unknown."""
    kernel.found = Delivery(1000, 500, 0.04)
    assert plain.outbox.position() == (1000, 1500)
    fill(plain)
    assert plain.outbox._transport_bytes
    assert plain.outbox.position() == (1000, 1500 + plain.outbox._transport_bytes)
    plain.outbox.write_now(b"ping")
    assert plain.outbox.position() == (1000, 1500 + plain.outbox._transport_bytes)
    before = plain.outbox._transport_bytes
    plain.read(100_000)
    plain.turn()
    left = plain.outbox.position()
    assert left is not None
    assert 1500 <= left[1] < 1500 + before
    kernel.found = None
    assert plain.outbox.position() is None


def test_when_a_peer_has_stalled() -> None:
    """A transport that takes nothing has the policy's time from then on; otherwise there is no deadline."""
    rig = Rig(PeerPolicy(stall_timeout_s=10.0))
    rig.clock.advance(7.0)
    assert rig.outbox.stalled_at_s == inf
    rig.block()
    assert rig.outbox.stalled_at_s == 17.0
    rig.clock.advance(9.9)
    assert not rig.outbox.has_stalled()
    rig.clock.advance(0.2)
    assert rig.outbox.has_stalled()
    rig.transport.read_all()
    assert rig.outbox.stalled_at_s == inf
    patient = Rig()
    patient.block()
    assert patient.outbox.stalled_at_s == inf


# On a plain socket


class Selectables:
    """A reactor that only records who wants to write."""

    def __init__(self) -> None:
        self.writers: set[object] = set()

    def addReader(self, selectable: object) -> None:  # noqa: N802
        """Ignore it: nothing is read."""

    def addWriter(self, selectable: object) -> None:  # noqa: N802
        """Record it."""
        self.writers.add(selectable)

    def removeReader(self, selectable: object) -> None:  # noqa: N802
        """Ignore it."""

    def removeWriter(self, selectable: object) -> None:  # noqa: N802
        """Forget it."""
        self.writers.discard(selectable)


class Plain:
    """An outbox on a connected socket of the system, and its peer's end."""

    def __init__(self, policy: PeerPolicy = PeerPolicy()) -> None:  # noqa: B008
        ours, self.peer = socket.socketpair()
        for end in (ours, self.peer):
            end.setblocking(False)
        self.reactor = Selectables()
        self.transport = Connection(ours, Protocol(), self.reactor)  # type: ignore[arg-type]
        self.transport.connected = True
        self.clock = Clock()
        self.drained = 0
        self.outbox = Outbox(self.transport, policy, self.clock.seconds, self._drained)  # type: ignore[arg-type]
        self.taken = b""
        self.outbox.write_now(b"101")

    def _drained(self) -> None:
        self.drained += 1

    def turn(self) -> None:
        """Run one turn of the reactor."""
        if self.transport in self.reactor.writers:
            assert self.transport.doWrite() is None

    def read(self, size: int = 1 << 20) -> None:
        """Read as the peer."""
        with contextlib.suppress(BlockingIOError):
            self.taken += self.peer.recv(size)

    def read_all(self) -> None:
        """Read as the peer, until nothing comes any more."""
        before = -1
        while before != len(self.taken):
            before = len(self.taken)
            self.turn()
            self.read()

    def close(self) -> None:
        """Close both sockets."""
        self.transport.socket.close()
        self.peer.close()


@pytest.fixture
def plain() -> Iterator[Plain]:
    """A plain socket with an outbox."""
    made = Plain()
    yield made
    made.close()


def test_a_plain_socket_is_given_data_at_once(plain: Plain) -> None:
    """While the transport holds nothing, a write needs no turn of the reactor."""
    assert plain.outbox.write([(b"first", 1)])
    assert plain.outbox.write([(b"second", 1), (b"third", 1)])
    plain.outbox.write_now(b"ping")
    assert not plain.reactor.writers
    plain.read()
    assert plain.taken == b"101firstsecondthirdping"


def test_what_was_postponed_is_flushed_once(plain: Plain) -> None:
    """Postponed data and what follows it is flushed in order, once; then data is sent at once again."""
    plain.outbox.postpone(b"later")
    assert plain.outbox.write([(b"frame", 1)])
    plain.outbox.write_now(b"ping")
    plain.read()
    assert plain.taken == b"101"
    for _ in range(2):
        plain.outbox.flush()
        plain.read()
    assert plain.taken == b"101laterframeping"
    plain.outbox.write_now(b"!")
    plain.read()
    assert plain.taken.endswith(b"ping!")


def test_several_writes_come_behind_what_was_postponed(plain: Plain) -> None:
    """Several writes behind postponed data stay in order, however many slices each has."""
    plain.outbox.postpone(b"<")
    for number in range(3):
        assert plain.outbox.write([(b"%d%s" % (number, letter), 1) for letter in (b"a", b"b", b"c")])
    assert not plain.reactor.writers
    plain.outbox.flush()
    plain.read()
    assert plain.taken == b"101<0a0b0c1a1b1c2a2b2c"


@pytest.mark.parametrize("blocking", range(4))
def test_what_is_behind_the_slice_that_blocks_waits(plain: Plain, blocking: int) -> None:
    """Neither the slice that blocks nor the one after it is lost or sent twice."""
    plain.read_all()
    slices = [(b"%d" % number * (2_000_000 if number == blocking else 10), 1) for number in range(4)]
    plain.outbox._uncut_bytes = sys.maxsize
    assert plain.outbox.write(slices)
    assert plain.outbox.blocked
    assert plain.outbox.waiting_bytes == 10 * (3 - blocking)
    plain.read_all()
    assert plain.taken == b"101" + b"".join(data for data, _ in slices)


def test_what_was_postponed_for_a_lost_connection_is_forgotten(plain: Plain) -> None:
    """Postponed data of a lost connection is forgotten."""
    plain.outbox.postpone(b"later")
    plain.outbox.stopProducing()
    plain.outbox.flush()
    plain.read()
    assert plain.taken == b"101"


def test_what_a_plain_socket_does_not_take_waits(plain: Plain) -> None:
    """A peer that does not read blocks the outbox after one slice, and then gets everything in order."""
    plain.read_all()
    sent = b"101"
    number = 0
    while not plain.outbox.blocked:
        number += 1
        frame = b"%08d" % number * 1000
        assert plain.outbox.write([(frame, 1)])
        sent += frame
    assert plain.outbox.empty
    assert plain.outbox.write([(b"waits", 1)])
    assert (plain.outbox.waiting_bytes, plain.drained) == (5, 0)
    plain.outbox.write_now(b"!")
    plain.read_all()
    assert (plain.outbox.blocked, plain.outbox.empty, plain.drained) == (False, True, 1)
    assert plain.taken.replace(b"!", b"") == sent + b"waits"
    assert plain.outbox.write([(b"at once", 1)])
    assert not plain.reactor.writers


def test_a_plain_socket_that_has_failed_is_left_to_its_transport(plain: Plain) -> None:
    """A write to a connection that the peer has cut is no error, since the transport notices at its next turn."""
    plain.read_all()
    plain.peer.close()
    assert plain.outbox.write([(b"lost", 1)])
    assert plain.transport in plain.reactor.writers
    assert isinstance(plain.transport.doWrite(), ConnectionLost)
    plain.outbox.stopProducing()
    assert plain.outbox.write([(b"ignored", 1)])


def finished(plain: Plain) -> list[str]:
    """Finish the outbox, and return what it called and when."""
    said: list[str] = []
    plain.outbox.finish(lambda: said.append(f"after {len(plain.taken)} bytes"))
    return said


def test_the_write_side_of_a_plain_socket_ends_at_once(plain: Plain) -> None:
    """The write side ends behind written and postponed data without a turn of the reactor, and reading goes on."""
    plain.outbox.postpone(b"later")
    said = finished(plain)
    assert said == ["after 0 bytes"]
    assert not plain.reactor.writers
    plain.read()
    assert plain.taken == b"101later"
    assert plain.peer.recv(1) == b""
    plain.peer.send(b"still read")
    assert plain.transport.socket.recv(99) == b"still read"
    assert plain.transport.producer is None


def test_the_write_side_of_a_plain_socket_ends_when_the_peer_has_taken_everything(plain: Plain) -> None:
    """Data in the transport is sent before the end; data in the outbox is given up."""
    plain.read_all()
    frame = b"x" * 100_000
    while not plain.outbox.blocked:
        assert plain.outbox.write([(frame, 1)])
    assert plain.outbox.write([(b"waits", 1)])
    plain.outbox.write_now(b"close")
    said = finished(plain)
    assert said == []
    plain.read_all()
    assert plain.taken.endswith(b"xclose")
    assert len(said) == 1
    assert plain.peer.recv(1) == b""
    assert plain.drained == 0


def test_the_write_side_of_a_lost_connection_is_not_ended(plain: Plain) -> None:
    """For a lost connection nothing is called back."""
    plain.read_all()
    while not plain.outbox.blocked:
        plain.outbox.write([(b"x" * 100_000, 1)])
    said = finished(plain)
    plain.outbox.stopProducing()
    plain.outbox.resumeProducing()
    assert said == []


@settings(deadline=None)
@given(steps=st.lists(st.one_of(st.integers(0, 200_000), st.sampled_from(["read", "turn", "now"])), max_size=30))
def test_order_is_kept_on_a_plain_socket(steps: list[int | str]) -> None:
    """Any interleaving of writes, reading and turns of the reactor delivers everything once and in order."""
    plain = Plain()
    try:
        sent = b"101"
        for number, step in enumerate(steps):
            if step == "read":
                plain.read(50_000)
            elif step == "turn":
                plain.turn()
            elif step == "now":
                plain.outbox.write_now(b"!")
            else:
                frame = b"(%d:" % number + b"x" * int(step) + b")"
                assert plain.outbox.write([(frame, 1)])
                sent += frame
            assert plain.outbox.empty or plain.outbox.blocked
        plain.read_all()
        assert (plain.outbox.blocked, plain.outbox.empty) == (False, True)
        assert plain.taken.replace(b"!", b"") == sent
        assert plain.taken.count(b"!") == steps.count("now")
    finally:
        plain.close()
