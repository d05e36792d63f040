"""Queries go to the reader with the least to do, and every one ends once."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from tests.support.children import FakeChild, FakeChildren

from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.storage.visibility import View
from pyryrelay.nostr.workers.store_readers import CREDIT_BYTES, StoreReaders
from pyryrelay.nostr.workers.wire import (
    Aborted,
    Cancel,
    Counted,
    Credit,
    Done,
    Hint,
    Open,
    Query,
    QueryLimits,
    ReaderConfig,
    Ready,
    Rows,
    Snapshot,
    ToReader,
)

CONFIG = ReaderConfig(database="sqlite:x")
QUERY = Query(
    client="192.0.2.1",
    filters=(Filter(),),
    view=View(frozenset(), frozenset({4}), 1_700_000_000),
    limits=QueryLimits(max_limit=500, default_limit=500, max_results=5000, max_work=None),
    timeout_s=30.0,
)


class Listener:
    """Keeps what it is told about a query."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def snapshot(self, seq: int) -> None:
        """Keep that."""
        self.told.append(("snapshot", seq))

    def rows(self, rows: Sequence[bytes]) -> None:
        """Keep that."""
        self.told.append(("rows", *rows))

    def counted(self, count: int, is_approximate: bool, hll: str | None) -> None:
        """Keep that."""
        self.told.append(("counted", count, is_approximate, hll))

    def done(self, hint: Hint, work: int, aborted: Aborted) -> None:
        """Keep that."""
        self.told.append(("done", hint, work, aborted))


def start(number: int = 1) -> tuple[StoreReaders, FakeChildren]:
    """Return started readers and their fake children."""
    children = FakeChildren()
    readers = StoreReaders(children.services, CONFIG, number)
    readers.start()
    for child in children.started:
        child.answer(Ready())
        child.take(ToReader)
    return readers, children


def opened(child: FakeChild) -> list[int]:
    """Return the numbers of the queries that a child was sent since the last call."""
    return [message.number for message in child.take(ToReader) if isinstance(message, Open)]


def test_a_query_from_start_to_end() -> None:
    """The listener is told of the snapshot, the rows and the end."""
    readers, children = start()
    listener = Listener()
    handle = readers.open(QUERY, listener)
    (message,) = children.last.take(ToReader)
    assert message == Open(message.number, CREDIT_BYTES, QUERY)
    was_open = handle.is_open
    assert readers.queries == 1
    for answer in (Snapshot(1, 9), Rows(1, [b"{}", b"[]"]), Done(1, "finish", 3, None)):
        children.last.answer(answer)
    assert listener.told == [("snapshot", 9), ("rows", b"{}", b"[]"), ("done", "finish", 3, None)]
    assert (was_open, handle.is_open) == (True, False)
    assert readers.queries == 0
    handle.cancel()
    handle.more(1)
    assert children.last.take(ToReader) == []


def test_a_count() -> None:
    """The listener is told the count before the end."""
    readers, children = start()
    listener = Listener()
    readers.open(QUERY, listener)
    children.last.answer(Counted(1, 7, False, None))
    children.last.answer(Done(1, None, 7, None))
    assert listener.told == [("counted", 7, False, None), ("done", None, 7, None)]


def test_nothing_is_heard_of_a_cancelled_query() -> None:
    """What was under way when it was cancelled is ignored."""
    readers, children = start()
    listener = Listener()
    handle = readers.open(QUERY, listener)
    children.last.take(ToReader)
    handle.cancel()
    handle.cancel()
    assert children.last.take(ToReader) == [Cancel(1)]
    for answer in (Snapshot(1, 9), Rows(1, [b"{}"]), Done(1, None, 3, None)):
        children.last.answer(answer)
    assert listener.told == []
    assert readers.queries == 0


def test_a_listener_may_cancel_while_it_is_told() -> None:
    """For example because its client left."""
    readers, children = start()
    listener = Listener()
    handle = readers.open(QUERY, listener)
    listener.rows = lambda rows: handle.cancel()  # type: ignore[method-assign]
    children.last.answer(Rows(1, [b"{}"]))
    children.last.answer(Done(1, None, 3, None))
    assert listener.told == []
    assert readers.queries == 0


def test_queries_go_to_the_reader_with_the_least_to_do() -> None:
    """Those that wait for credit do not count, since they cost nothing then."""
    readers, children = start(2)
    first, second = children.started
    query = msgspec.structs.replace(QUERY, client="")
    handles = [readers.open(query, Listener()) for _ in range(4)]
    assert (opened(first), opened(second)) == ([1, 3], [2, 4])
    second.answer(Rows(2, [bytes(CREDIT_BYTES)]))
    assert readers.queries == 4
    readers.open(query, Listener())
    assert (opened(first), opened(second)) == ([], [5])
    handles[1].more(1000)
    assert second.take(ToReader) == [Credit(2, 1000)]
    readers.open(query, Listener())
    assert opened(first) == [6]
    handles[0].cancel()
    readers.open(query, Listener())
    assert opened(first) == [7]


@pytest.mark.parametrize("number", [2, 3])
def test_a_reader_is_kept_free_of_each_client(number: int) -> None:
    """A client's queries run on all readers but one, and which one depends on the client."""
    readers, children = start(number)
    for _ in range(6):
        readers.open(QUERY, Listener())
    found = [len(opened(child)) for child in children.started]
    assert found == ([6, 0] if number == 2 else [3, 3, 0])
    other = msgspec.structs.replace(QUERY, client="192.0.2.2")
    handles = [readers.open(other, Listener()) for _ in range(2)]
    assert opened(children.started[-1])
    for handle in handles:
        handle.cancel()
    assert all("192.0.2.2" not in reader.clients for reader in readers._readers)


def test_an_only_reader_serves_everybody() -> None:
    """There is none to keep free."""
    readers, children = start(1)
    for _ in range(3):
        readers.open(QUERY, Listener())
    assert opened(children.last) == [1, 2, 3]


def test_a_dead_reader_ends_its_queries() -> None:
    """They end as an error, others go on, and the next reader starts without any."""
    readers, children = start(2)
    first, second = children.started
    listeners = [Listener(), Listener()]
    queries = [msgspec.structs.replace(QUERY, client=client) for client in ("192.0.2.1", "192.0.2.2")]
    handles = [readers.open(query, listener) for query, listener in zip(queries, listeners, strict=True)]
    first.end("signal 9")
    assert [listener.told for listener in listeners] == [[("done", None, 0, "error")], []]
    handles[0].cancel()
    handles[0].more(5)
    readers.open(QUERY, Listener())
    assert opened(second) == [2, 3]
    children.clock.advance(0)
    assert children.last.take(ToReader) == [CONFIG]
    readers.open(msgspec.structs.replace(QUERY, client="192.0.2.3"), Listener())
    assert opened(children.last) == [4]


def test_without_readers_queries_fail_in_a_later_turn() -> None:
    """They can still be cancelled before."""
    children = FakeChildren()
    readers = StoreReaders(children.services, CONFIG, 1)
    listener, cancelled = Listener(), Listener()
    readers.open(QUERY, listener)
    readers.open(QUERY, cancelled).cancel()
    assert listener.told == []
    children.clock.advance(0)
    assert listener.told == [("done", None, 0, "error")]
    assert cancelled.told == []
    assert readers.queries == 0


def test_another_slice() -> None:
    """A reload reaches all readers."""
    readers, children = start(2)
    other = ReaderConfig(database="sqlite:x", slice_s=0.02)
    readers.configure(other)
    assert [child.take(ToReader) for child in children.started] == [[other], [other]]


def test_closing_ends_all() -> None:
    """Queries end as an error when their process has ended, and the Deferred fires after the last one."""
    readers, children = start(2)
    listener = Listener()
    readers.open(QUERY, listener)
    closed: list[object] = []
    readers.close().addCallback(closed.append)
    for child in children.started:
        assert child.is_closed
        assert closed == []
        child.end("exit code 0")
    assert closed == [None]
    assert listener.told == [("done", None, 0, "error")]


LATE: list[tuple[object, ...]] = [("done", None, 0, "timeout")]


def pass_s(children: FakeChildren, seconds: int) -> None:
    """Let time pass in steps of a second, as it does for a reactor that is not held up."""
    for _ in range(seconds):
        children.clock.advance(1)


def test_a_reader_that_hangs_is_replaced() -> None:
    """Queries over their time end as such and the others as an error; the next reader answers."""
    readers, children = start()
    late, young = Listener(), Listener()
    readers.open(QUERY, late)
    pass_s(children, 10)
    readers.open(QUERY, young)
    pass_s(children, 21)
    assert (late.told, young.told) == ([], [])
    hanging = children.last
    pass_s(children, 1)
    assert (late.told, young.told) == (LATE, [("done", None, 0, "error")])
    assert hanging.is_killed
    assert children.restarts == [("reader", "it did not answer", 0.0)]
    children.clock.advance(0)
    listener = Listener()
    readers.open(QUERY, listener)
    children.last.answer(Done(3, None, 1, None))
    pass_s(children, 100)
    assert listener.told == [("done", None, 1, None)]
    assert len(children.started) == 2


def test_a_query_over_its_time_ends_although_its_reader_answers_others() -> None:
    """It is cancelled; the reader goes on."""
    readers, children = start()
    late = Listener()
    readers.open(QUERY, late)
    pass_s(children, 31)
    readers.open(QUERY, Listener())
    children.last.answer(Done(2, None, 1, None))
    children.last.take(ToReader)
    pass_s(children, 1)
    assert late.told == LATE
    assert children.last.take(ToReader) == [Cancel(1)]
    children.last.answer(Done(1, None, 1, None))
    pass_s(children, 100)
    assert (late.told, children.restarts) == (LATE, [])


def test_a_query_may_wait_for_its_client_for_long() -> None:
    """Its time begins again with its next credit."""
    readers, children = start()
    listener = Listener()
    handle = readers.open(QUERY, listener)
    children.last.answer(Rows(1, [bytes(CREDIT_BYTES)]))
    pass_s(children, 100)
    handle.more(1000)
    pass_s(children, 31)
    assert len(listener.told) == 1
    pass_s(children, 1)
    assert listener.told[1:] == LATE
    assert len(children.restarts) == 1


def test_a_cancelled_query_is_owed_its_end() -> None:
    """So a reader that hangs is noticed also if all clients give up before their timeout."""
    readers, children = start()
    readers.open(QUERY, Listener()).cancel()
    children.last.answer(Done(1, None, 1, None))
    pass_s(children, 50)
    assert children.restarts == []
    readers.open(QUERY, Listener()).cancel()
    pass_s(children, 32)
    assert len(children.restarts) == 1
    pass_s(children, 50)
    assert len(children.restarts) == 1


def test_queries_without_a_timeout_are_not_watched() -> None:
    """They may take any time."""
    readers, children = start()
    listener = Listener()
    endless = msgspec.structs.replace(QUERY, timeout_s=None)
    readers.open(endless, listener)
    readers.open(endless, Listener()).cancel()
    pass_s(children, 1000)
    assert (listener.told, children.restarts) == ([], [])


def test_a_reactor_that_was_held_up_reads_first() -> None:
    """What the readers have sent meanwhile is not late."""
    readers, children = start()
    listener = Listener()
    readers.open(QUERY, listener)
    children.clock.advance(60)
    assert listener.told == []
    children.last.answer(Done(1, None, 1, None))
    pass_s(children, 2)
    assert (len(listener.told), children.restarts) == (1, [])


def test_listeners_may_cancel_others_when_their_reader_ends() -> None:
    """A query that was cancelled is not told of the end."""
    readers, children = start()
    first, second = Listener(), Listener()
    readers.open(QUERY, first)
    other = readers.open(QUERY, second)
    first.done = lambda hint, work, aborted: other.cancel()  # type: ignore[method-assign]
    children.last.end("signal 9")
    assert (second.told, readers.queries) == ([], 0)


def test_listeners_may_cancel_others_that_are_late() -> None:
    """The same when both take too long."""
    readers, children = start()
    first, second = Listener(), Listener()
    readers.open(QUERY, first)
    other = readers.open(QUERY, second)
    first.done = lambda hint, work, aborted: other.cancel()  # type: ignore[method-assign]
    pass_s(children, 31)
    readers.open(QUERY, Listener())
    children.last.answer(Done(3, None, 1, None))
    pass_s(children, 1)
    assert (second.told, readers.queries) == ([], 0)
