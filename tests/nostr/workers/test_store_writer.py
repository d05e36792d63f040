"""Events are stored in groups, and every call is answered once, whatever becomes of the writer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.children import FakeChild, FakeChildren
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pyryrelay.nostr.storage.interface import Retention
from pyryrelay.nostr.workers.store_writer import (
    EAGER_WEIGHT,
    MAX_BATCH_BYTES,
    MAX_BATCH_WEIGHT,
    SILENT_LOOKS,
    Stored,
    StoreWriter,
    WriterError,
    pieces,
)
from pyryrelay.nostr.workers.wire import (
    Answer,
    Arrived,
    Call,
    Health,
    Join,
    Ready,
    Removed,
    ToWriter,
    WriterConfig,
    Written,
)

CONFIG = WriterConfig(database="sqlite:x", retention=Retention([]))


class Relay:
    """A writer's client with a fake child, and what it has told."""

    def __init__(self, *, is_started: bool = True) -> None:
        self.children = FakeChildren()
        self.told: list[tuple[object, ...]] = []
        self.writer = StoreWriter(self.children.services, CONFIG, self)
        if is_started:
            self.writer.start()
            self.child.answer(Ready(5, 3))
            self.child.take(ToWriter)

    @property
    def child(self) -> FakeChild:
        """The child that was started last."""
        return self.children.last

    def write(self, name: object, events: Sequence[bytes]) -> None:
        """Write events; what becomes of them is told with a name."""
        self.writer.write(events, lambda stored: self.told.append((name, stored)))

    def is_healthy(self) -> bool:
        """Tell what the writer's client says now."""
        return self.writer.is_healthy

    def sent(self) -> list[Any]:
        """Return what the child was sent since the last call."""
        return self.child.take(ToWriter)

    def take(self) -> list[tuple[object, ...]]:
        """Return what was told since the last call."""
        told, self.told = self.told, []
        return told

    # See `WriterEvents`.

    def writer_ready(self, seq: int, events: int) -> None:
        """Keep that."""
        self.told.append(("ready", seq, events))

    def removed(self, reason: str, ids: Sequence[bytes]) -> None:
        """Keep that."""
        self.told.append(("removed", reason, list(ids)))

    def removed_elsewhere(self, ids: Sequence[bytes]) -> None:
        """Keep that."""
        self.told.append(("removed elsewhere", list(ids)))

    def arrived(self, events: Sequence[bytes], seqs: Sequence[int]) -> None:
        """Keep that."""
        self.told.append(("arrived", list(events), list(seqs)))

    def batch_written(self, events: int, took_s: float) -> None:
        """Keep that."""
        self.told.append(("batch", events, took_s))

    def health_changed(self, is_writable: bool, cause: str) -> None:
        """Keep that."""
        self.told.append(("health", is_writable, cause))


def failures(answer: Deferred[object]) -> list[Failure]:
    """Return a list that gets the failure of a call."""
    failed: list[Failure] = []
    answer.addErrback(failed.append)
    return failed


def test_a_single_event_is_written_at_once() -> None:
    """An idle writer gets what comes, and the answer goes back to who asked."""
    relay = Relay()
    assert relay.take() == [("ready", 5, 3)]
    relay.write("a", [b"1", b"2"])
    (write,) = relay.sent()
    assert write.events == [b"1", b"2"]
    relay.child.answer(Written(write.number, [0, 1], [6, 0], [], 0.25, 2))
    assert relay.take() == [("batch", 2, 0.25), ("a", Stored([0, 1], [6, 0]))]


def test_what_waits_becomes_one_batch() -> None:
    """While a batch is written, the rest waits and goes together; each caller gets its own part of the answer."""
    relay = Relay()
    relay.take()
    for name in ("a", "b", "c"):
        relay.write(name, [name.encode(), name.encode()])
    (first,) = relay.sent()
    assert first.events == [b"a", b"a"]
    relay.child.answer(Written(first.number, [0, 0], [1, 2]))
    (second,) = relay.sent()
    assert second.events == [b"b", b"b", b"c", b"c"]
    relay.child.answer(Written(second.number, [0, 0, 0, 2], [3, 4, 5, 0], [b"old"], 0.5, 4))
    assert relay.take() == [
        ("a", Stored([0, 0], [1, 2])),
        ("removed", "written", [b"old"]),
        ("batch", 4, 0.5),
        ("b", Stored([0, 0], [3, 4])),
        ("c", Stored([0, 2], [5, 0])),
    ]


def test_a_large_batch_does_not_wait_for_the_one_before() -> None:
    """If enough waits, one more batch is sent while another is written, but never a third."""
    relay = Relay()
    relay.write("a", [b"1"])
    relay.write("b", [b"2"] * (EAGER_WEIGHT - 1))
    assert len(relay.sent()) == 1
    relay.write("c", [b"3"])
    (second,) = relay.sent()
    assert len(second.events) == EAGER_WEIGHT
    relay.write("d", [b"4"] * EAGER_WEIGHT)
    assert relay.sent() == []


@pytest.mark.parametrize(
    ("sizes", "first"),
    [
        ([(1, 60), (1, 39), (1, 901), (1, 1)], MAX_BATCH_WEIGHT),
        ([(MAX_BATCH_BYTES // 10, 10), (10, 1)], 10),
        ([(MAX_BATCH_BYTES, 2), (1, 1)], 2),
    ],
)
def test_batches_are_bounded(sizes: list[tuple[int, int]], first: int) -> None:
    """A batch has at most so many events and bytes, but at least one call, which is never split."""
    relay = Relay()
    relay.write("blocks", [b"0"])
    (block,) = relay.sent()
    for size, count in sizes:
        relay.write("waits", [bytes(size)] * count)
    batch = (relay.sent() or [None])[0]
    relay.child.answer(Written(block.number, [0], [1]))
    if batch is None:
        batch = relay.sent()[0]
    assert len(batch.events) == first


def test_what_cannot_be_stored_is_answered_so() -> None:
    """An answer without outcomes means that nothing of the batch was stored; the writer's health is told."""
    relay = Relay()
    relay.take()
    relay.write("a", [b"1"])
    (write,) = relay.sent()
    relay.child.answer(Written(write.number, [], []))
    relay.child.answer(Health(False, "disk full"))
    assert relay.take() == [("a", None), ("health", False, "disk full")]
    health = [relay.writer.is_healthy]
    relay.child.answer(Health(True))
    assert [*health, relay.writer.is_healthy] == [False, True]


def test_a_dead_writer_fails_what_it_had() -> None:
    """What was under way has failed; what waited is written by the next writer, which is started at once."""
    relay = Relay()
    relay.take()
    relay.write("under way", [b"1"])
    relay.write("waits", [b"2"])
    call = failures(relay.writer.call("statistics"))
    relay.child.end("signal 9")
    relay.write("comes", [b"3"])
    assert relay.take() == [("under way", None)]
    assert call[0].check(WriterError)
    health = [relay.writer.is_healthy]
    relay.children.clock.advance(0)
    config, write = relay.sent()
    assert config == CONFIG
    assert write.events == [b"2", b"3"]
    relay.child.answer(Ready())
    assert [*health, relay.writer.is_healthy] == [False, True]
    relay.child.answer(Written(write.number, [0, 1], [1, 0]))
    assert relay.take()[1:] == [("waits", Stored([0], [1])), ("comes", Stored([1], [0]))]


def test_without_a_writer_events_fail() -> None:
    """If the next writer is started only later, nothing waits for it, and what comes meanwhile fails, too."""
    relay = Relay()
    relay.child.end("exit code 1")
    relay.children.clock.advance(0)
    relay.write("a", [b"1"])
    relay.write("b", [b"2"])
    relay.take()
    relay.child.end("exit code 1")
    assert relay.take() == [("a", None), ("b", None)]
    relay.write("c", [b"3"])
    assert relay.take() == []  # never before `write` returns
    relay.children.clock.advance(0)
    assert relay.take() == [("c", None)]
    assert failures(relay.writer.call("compact"))[0].check(WriterError)


def test_calls_for_tools() -> None:
    """A call has its answer, or fails with the writer's reason."""
    relay = Relay()
    results: list[object] = []
    relay.writer.call("delete", {"ids": [b"x"], "forever": True}).addCallback(results.append)
    failed = failures(relay.writer.call("check"))
    first, second = relay.sent()
    assert (first.name, first.arguments, second) == (
        "delete",
        {"ids": [b"x"], "forever": True},
        Call(second.number, "check", {}),
    )
    relay.child.answer(Answer(second.number, None, "disk full"))
    relay.child.answer(Answer(first.number, [b"x"]))
    assert results == [[b"x"]]
    assert failed[0].getErrorMessage() == "disk full"


def test_what_the_writer_removes_by_itself_is_told() -> None:
    """Expired events, for example."""
    relay = Relay()
    relay.take()
    relay.child.answer(Removed("expired", [b"x", b"y"]))
    assert relay.take() == [("removed", "expired", [b"x", b"y"])]


def test_other_rules_are_sent() -> None:
    """A reload changes what is kept."""
    relay = Relay()
    other = WriterConfig(database="sqlite:x", retention=Retention([], max_events=5))
    relay.writer.configure(other)
    assert relay.sent() == [other]


def test_closing_answers_what_was_taken() -> None:
    """What waits is written and answered, then the process ends; what comes later fails."""
    relay = Relay()
    relay.take()
    relay.write("a", [b"1"])
    relay.write("b", [b"2"])
    closed: list[object] = []
    relay.writer.close().addCallback(closed.append)
    relay.write("late", [b"3"])
    relay.children.clock.advance(0)
    assert relay.take() == [("late", None)]
    for _ in range(2):
        assert not relay.child.is_closed
        (write,) = relay.sent()
        relay.child.answer(Written(write.number, [0], [1]))
    assert relay.take() == [("a", Stored([0], [1])), ("b", Stored([0], [1]))]
    assert relay.child.is_closed
    assert closed == []
    relay.child.end("exit code 0")
    assert closed == [None]
    assert not relay.writer.is_healthy


def test_closing_when_the_writer_dies() -> None:
    """Everything has failed then, and no other writer is started."""
    relay = Relay()
    relay.take()
    relay.write("a", [b"1"])
    relay.write("b", [b"2"])
    closed: list[object] = []
    relay.writer.close().addCallback(closed.append)
    relay.child.end("signal 9")
    assert relay.take() == [("a", None), ("b", None)]
    assert closed == [None]
    assert relay.children.clock.getDelayedCalls() == []


def test_closing_before_the_start() -> None:
    """There is nothing to wait for."""
    relay = Relay(is_started=False)
    closed: list[object] = []
    relay.writer.close().addCallback(closed.append)
    assert closed == [None]
    assert not relay.writer.is_healthy


def test_batches_are_bounded_by_weight() -> None:
    """A transaction stays short, whatever the events cost; a single one may weigh anything."""
    relay = Relay()
    relay.write("blocks", [b"0"])
    (block,) = relay.sent()
    for weight in (MAX_BATCH_WEIGHT + 1, MAX_BATCH_WEIGHT - 1, 1, 1):
        relay.writer.write([b"1"], lambda stored: None, weight)
    (heavy,) = relay.sent()
    relay.child.answer(Written(block.number, [0], [1]))
    (second,) = relay.sent()
    assert (len(heavy.events), heavy.weight) == (1, MAX_BATCH_WEIGHT + 1)
    assert (len(second.events), second.weight) == (2, MAX_BATCH_WEIGHT)


@pytest.mark.parametrize(
    ("weights", "lengths"),
    [
        ([], []),
        ([1] * 1001, [1000, 1]),
        ([5000], [1]),
        ([1, 5000, 1], [1, 1, 1]),
        ([500, 500, 500], [2, 1]),
    ],
)
def test_calls_are_divided_by_weight(weights: list[int], lengths: list[int]) -> None:
    """Every event is in one piece, in order."""
    divided = [weights[piece] for piece in pieces(weights)]
    assert [len(piece) for piece in divided] == lengths
    assert [weight for piece in divided for weight in piece] == weights


# Several workers


def test_a_worker_says_what_it_has_heard() -> None:
    """The first frame behind the configuration, at each connection: so it misses nothing, and gets nothing twice."""
    relay = Relay(is_started=False)
    relay.writer = StoreWriter(relay.children.services, CONFIG, relay, is_shared=True)
    relay.writer.start()
    assert relay.sent() == [CONFIG, Join(None)]
    relay.child.answer(Ready(5, 3, "sqlite:/found"))
    assert relay.writer.database == "sqlite:/found"
    relay.child.answer(Arrived([b"x", b"y"], [6, 7]))
    relay.write("mine", [b"z"])
    relay.sent()
    relay.child.answer(Written(1, [0], [8]))
    relay.child.answer(Removed("tool", [b"gone"], False))
    assert relay.take() == [
        ("ready", 5, 3),
        ("arrived", [b"x", b"y"], [6, 7]),
        ("mine", Stored([0], [8])),
        ("removed elsewhere", [b"gone"]),
    ]
    relay.child.end("the connection has ended")
    relay.children.clock.advance(0)
    assert relay.sent() == [CONFIG, Join(8)]


def test_nothing_more_is_taken_while_the_writer_hangs() -> None:
    """As on a disk that hangs: what it was given waits for it, as it may still be stored."""
    relay = Relay()
    relay.take()
    for _ in range(2 * SILENT_LOOKS):
        relay.writer.look()
    relay.write("a", [b"1"])
    (batch,) = relay.sent()
    for _ in range(SILENT_LOOKS):
        assert relay.is_healthy()
        relay.writer.look()
    assert not relay.is_healthy()
    relay.writer.look()
    assert relay.take() == [("health", False, "its writer does not answer")]
    relay.write("b", [b"2"])
    relay.children.clock.advance(0)
    assert relay.take() == [("b", None)]
    relay.child.answer(Written(batch.number, [0], [6], [], 0.1, 1))
    assert relay.take() == [("health", True, ""), ("batch", 1, 0.1), ("a", Stored([0], [6]))]
    assert relay.is_healthy()
    relay.write("c", [b"3"])
    assert len(relay.sent()) == 1
