"""What waits for a peer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_relay import FakePeer

from pyryrelay.nostr.messages import SENT_VERBS, eose, notice, ok
from pyryrelay.nostr.serving.outgoing import LOW_WATER_BYTES, OVERHEAD_BYTES, Outboxes, Outgoing, Stream


def outboxes(max_bytes: int | None = None, max_total_bytes: int | None = None) -> tuple[Outboxes, list[Outgoing]]:
    """Return the outboxes of a relay, and where the slow ones are noted."""
    slow: list[Outgoing] = []
    made = Outboxes(slow.append, dict.fromkeys(SENT_VERBS, 0))
    made.max_bytes, made.max_total_bytes = max_bytes, max_total_bytes
    return made, slow


def blocked(all_outboxes: Outboxes | None = None) -> tuple[FakePeer, Outgoing]:
    """Return a peer that does not read."""
    peer = FakePeer(blocks=True, buffered_bytes=1)
    return peer, Outgoing(peer, all_outboxes or outboxes()[0])


def test_a_peer_that_keeps_up_is_sent_everything_at_once() -> None:
    """Nothing waits, and events are spliced between what is before and after them."""
    peer = FakePeer()
    outgoing = Outgoing(peer, outboxes()[0])
    outgoing.send([b"a"])
    outgoing.send_events(Stream(b"<"), [b"1", b"2"])
    assert peer.wire == [b"a", b"<1]", b"<2]"]
    assert peer.sends == 2
    assert outgoing.unread_bytes == 0


def test_messages_that_wait_stay_in_order() -> None:
    """What comes later waits behind them, and consecutive ones of a stream are sent together."""
    peer, outgoing = blocked()
    stream = Stream(b"<")
    outgoing.send_events(stream, [b"1"])
    outgoing.send_events(stream, [b"2"])
    outgoing.send([b"a"])
    outgoing.send_events(stream, [b"3"])
    assert peer.wire == []
    assert stream.queued == 3
    peer.drain()
    assert peer.wire == [b"<1]", b"<2]", b"a", b"<3]"]
    assert peer.sends == 3
    assert stream.queued == outgoing.waiting_bytes == 0


def test_a_peer_that_falls_behind_again_is_not_sent_more() -> None:
    """Each time the peer has read, it is sent about one slice."""
    peer, outgoing = blocked()
    outgoing.send([b"x" * 50_000, b"y" * 50_000, b"z"])
    peer.trickle()
    assert len(peer.wire) == 2
    assert outgoing.waiting_bytes == 1 + OVERHEAD_BYTES
    peer.trickle()
    assert len(peer.wire) == 3


def test_what_waits_of_a_stream_can_be_dropped() -> None:
    """Its messages are gone, those of others stay, and the bytes are free."""
    all_outboxes, _ = outboxes()
    peer, outgoing = blocked(all_outboxes)
    gone, other = Stream(b"<"), Stream(b">")
    outgoing.send_events(gone, [b"1", b"2"])
    outgoing.send_events(other, [b"3"])
    outgoing.send([b"end"], gone)
    outgoing.drop(gone)
    outgoing.drop(gone)
    assert all_outboxes.waiting_bytes == outgoing.waiting_bytes == 2 + OVERHEAD_BYTES
    peer.drain()
    assert peer.wire == [b">3]"]
    outgoing.send([b"direct"])
    assert peer.wire[-1] == b"direct"


def test_dropping_everything_leaves_nothing_behind() -> None:
    """An outbox that is emptied by a drop sends directly once the peer keeps up."""
    peer, outgoing = blocked()
    stream = Stream(b"<")
    outgoing.send_events(stream, [b"1"])
    outgoing.drop(stream)
    assert outgoing.waiting_bytes == 0
    peer.drain()
    outgoing.send([b"a"])
    assert peer.wire == [b"a"]


def test_a_peer_that_reads_too_slowly_is_closed() -> None:
    """Exactly the limit may wait; one byte more closes with 1008, and nothing of it waits any more."""
    all_outboxes, slow = outboxes(max_bytes=1000 + OVERHEAD_BYTES)
    peer, outgoing = blocked(all_outboxes)
    outgoing.send([b"x" * 1000])
    assert peer.close_code is None
    outgoing.send([b"x"])
    assert peer.closed_with == (1008, "reads too slowly")
    assert slow == [outgoing]
    assert all_outboxes.waiting_bytes == 0
    outgoing.send([b"x"])
    assert all_outboxes.waiting_bytes == 0


def test_the_fullest_outboxes_are_closed_first() -> None:
    """Above the total, those go that hold the most, and no more than necessary."""
    all_outboxes, slow = outboxes(max_total_bytes=3000)
    peers = [blocked(all_outboxes) for _ in range(3)]
    for size, (_, outgoing) in zip((500, 1500, 800), peers, strict=True):
        outgoing.send([b"x" * size])
    assert slow == []
    peers[0][1].send([b"x"])
    assert slow == [peers[1][1]]
    assert [peer.close_code for peer, _ in peers] == [None, 1008, None]


def test_the_one_who_is_told_to_go_on_is_told_once() -> None:
    """`on_low` is called when less than the mark waits, here and in the peer together."""
    peer, outgoing = blocked()
    calls: list[int] = []
    outgoing.send([b"x" * LOW_WATER_BYTES, b"y" * LOW_WATER_BYTES])
    outgoing.on_low = lambda: calls.append(outgoing.unread_bytes)
    peer.trickle()
    assert calls == []
    peer.trickle()
    peer.trickle()
    peer.trickle()
    assert calls == [0]


def test_on_low_is_called_if_only_the_peer_holds_something() -> None:
    """What waits in the connection counts, although nothing waits here."""
    peer = FakePeer(blocks=True)
    outgoing = Outgoing(peer, outboxes()[0])
    outgoing.send([b"x" * LOW_WATER_BYTES])
    calls: list[None] = []
    outgoing.on_low = lambda: calls.append(None)
    peer.drain()
    assert calls == [None]


def test_sending_while_draining_stays_behind_what_waits() -> None:
    """A callback that sends more in the middle of it does not overtake."""
    peer, outgoing = blocked()
    outgoing.send([b"a" * LOW_WATER_BYTES])
    outgoing.on_low = lambda: outgoing.send([b"c"])
    outgoing.send([b"b"])
    peer.drain()
    assert [one[:1] for one in peer.wire] == [b"a", b"b", b"c"]


def test_a_closed_outbox_takes_nothing() -> None:
    """After the end nothing is kept or sent."""
    all_outboxes, _ = outboxes()
    peer, outgoing = blocked(all_outboxes)
    outgoing.send([b"x"])
    outgoing.clear()
    outgoing.clear()
    outgoing.send([b"y"])
    assert all_outboxes.waiting_bytes == outgoing.waiting_bytes == 0
    peer.drain()
    assert peer.wire == []


def test_many_streams_are_dropped_without_a_look_at_each_entry_for_each_of_them() -> None:
    """The queue is gone through only when half of it is dropped, and its memory is free then."""
    all_outboxes, _ = outboxes()
    peer, outgoing = blocked(all_outboxes)
    streams = [Stream(b"<%d" % number) for number in range(8)]
    for stream in streams:
        outgoing.send_events(stream, [b"x" * 100])
    queues = set()
    for stream in streams:
        outgoing.drop(stream)
        queues.add(id(outgoing._queue))
        assert len(outgoing._queue or ()) <= 2 * outgoing.waiting_bytes / (100 + 2 + OVERHEAD_BYTES)
    assert len(queues) <= 5
    assert all_outboxes.waiting_bytes == 0
    outgoing.send([b"y"])
    assert peer.wire == []


def test_what_is_held_elsewhere_counts_for_the_limits() -> None:
    """It closes the connection that is over its limit, or the fullest one, and does not stop scans."""
    all_outboxes, slow = outboxes(max_bytes=1000, max_total_bytes=1500)
    (_, first), (_, second) = blocked(all_outboxes), blocked(all_outboxes)
    first.hold(900)
    first.hold(-100)
    assert (first.held_bytes, all_outboxes.waiting_bytes, first.waiting_bytes) == (800, 800, 0)
    second.hold(750)
    assert slow == [first]
    assert all_outboxes.waiting_bytes == 750
    second.hold(251)
    assert slow == [first, second]
    second.hold(-251)
    assert all_outboxes.waiting_bytes == 0


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.integers(0, 3), st.integers(1, 80_000)),
            st.tuples(st.just("drop"), st.integers(0, 2), st.just(0)),
            st.tuples(st.just("read"), st.just(0), st.just(0)),
        ),
        max_size=30,
    )
)
def test_order_and_sizes_hold_whatever_happens(steps: list[tuple[str, int, int]]) -> None:
    """Everything that was not dropped arrives once and in order, and the sizes add up."""
    all_outboxes, _ = outboxes()
    peer = FakePeer(blocks=True)
    outgoing = Outgoing(peer, all_outboxes)
    streams = [Stream(b"%d:" % number) for number in range(3)]
    sent: list[list[bytes]] = [[], [], [], []]
    for number, (step, which, size) in enumerate(steps):
        payload = b"%d" % number + b"." * size
        if step == "send" and which == 3:
            outgoing.send([payload])
            sent[3].append(payload)
        elif step == "send":
            outgoing.send_events(streams[which], [payload])
            sent[which].append(b"%d:%b]" % (which, payload))
        elif step == "drop":
            outgoing.drop(streams[which])
            streams[which] = Stream(b"%d:" % which)
            sent[which] = [one for one in sent[which] if one in peer.wire]
        else:
            peer.trickle()
        assert all_outboxes.waiting_bytes == outgoing.waiting_bytes
        assert outgoing._dropped_bytes <= outgoing.waiting_bytes
    for _ in range(len(steps) + 1):
        peer.trickle()
    assert outgoing.waiting_bytes == 0
    expected = sorted((one for stream in sent for one in stream), key=_number)
    assert peer.wire == expected


def _number(message: bytes) -> int:
    head = message.split(b".", 1)[0]
    return int(head.rpartition(b":")[2])


@pytest.mark.parametrize("count", [1, 3])
def test_an_event_that_waits_for_many_is_in_memory_once(count: int) -> None:
    """Outboxes hold references to the event's bytes."""
    json = b"e" * 1000
    peers = [blocked() for _ in range(count)]
    for _, outgoing in peers:
        outgoing.send_events(Stream(b"<"), [json])
        assert outgoing._queue is not None
        assert outgoing._queue[0][1] is json


def test_messages_are_counted_by_their_verb() -> None:
    """Whether they wait or not."""
    all_outboxes, _ = outboxes()
    for blocks in (False, True):
        outgoing = Outgoing(FakePeer(blocks=blocks, buffered_bytes=int(blocks)), all_outboxes)
        outgoing.send([ok("e" * 64, True), eose(b'"s"'), notice("x"), ok("e" * 64, False, "x: y")])
        outgoing.send_events(Stream(b"<"), [b"{}", b"{}"])
    counted = {verb: count for verb, count in all_outboxes.sent.items() if count}
    assert counted == {"OK": 4, "EOSE": 2, "NOTICE": 2, "EVENT": 4}
