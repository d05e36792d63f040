"""A reader works on many queries in turns, and sends no more than it is let."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.task import Clock

from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.storage.interface import StoreError
from pyryrelay.nostr.storage.reading import Hint, ScanLimits
from pyryrelay.nostr.storage.visibility import View
from pyryrelay.nostr.workers.reader import CHUNK_BYTES, EXPIRY_S, LOOK_S, MOST_WARM, SOON_S, Reader
from pyryrelay.nostr.workers.schedule import YOUNG_S
from pyryrelay.nostr.workers.wire import (
    Cancel,
    Counted,
    CountLimits,
    Credit,
    Done,
    Open,
    Query,
    QueryLimits,
    ReaderConfig,
    Rows,
    Snapshot,
    encode,
)

ROW = bytes(1024)
LIMITS = QueryLimits(max_limit=500, default_limit=100, max_results=5000, max_work=99)
WALL_S = 1_700_000_000
PLENTY = 1 << 30


class FakeQuery:
    """A scan, or a counting, of so many rows, each of which takes the same time."""

    def __init__(self, clock: Clock, rows: int, row_s: float) -> None:
        self._clock = clock
        self._row_s = row_s
        self.left = rows
        self.done = not rows
        self.snapshot = 7
        self.work = 0
        self.over_work = False
        self.pauses = 0
        self.error: StoreError | None = None
        self.hint: Hint = "finish"
        self.looked_at_s = 0

    def step(self, is_over: Callable[[], bool], max_bytes: int = PLENTY) -> list[bytes]:
        """Return rows until the time or the bytes are used up."""
        if self.error is not None:
            raise self.error
        rows: list[bytes] = []
        while self.left and not self.over_work and not is_over() and (len(rows) + 1) * len(ROW) <= max_bytes:
            self._clock.advance(self._row_s)
            self.work += 1
            self.left -= 1
            rows.append(ROW)
        self.done = not self.left
        return rows

    def look_at(self, wall_s: int) -> None:
        """Note the time."""
        self.looked_at_s = wall_s

    def pause(self) -> None:
        """Count the pauses."""
        self.pauses += 1


class FakeCounting:
    """A counting that takes its time as a scan does."""

    def __init__(self, scan: FakeQuery) -> None:
        self._scan = scan
        self.work = 0
        self.done = False
        self.over_work = scan.over_work
        self.count = 42
        self.is_approximate = False
        self.hll: str | None = None

    def step(self, is_over: Callable[[], bool]) -> None:
        """Count on."""
        self._scan.step(is_over)
        self.work, self.done = self._scan.work, self._scan.done


class FakeStore:
    """A store whose queries the test makes."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.next: list[FakeQuery] = []
        self.asked: list[tuple[Any, ...]] = []
        self.is_closed = False

    def scan(self, filters: Sequence[Filter], view: View, limits: ScanLimits) -> FakeQuery:
        """Return the next query."""
        self.asked.append((filters, view, limits))
        return self.next.pop(0)

    def count(
        self, filters: Sequence[Filter], view: View, max_count: int, hll: bool, max_work: int | None = None
    ) -> FakeCounting:
        """Return the next query."""
        self.asked.append((filters, view, max_count, hll, max_work))
        return FakeCounting(self.next.pop(0))

    def snapshot(self) -> int:
        """Return the number of the last event."""
        return 7

    def known(self, ids: Sequence[bytes]) -> set[bytes]:
        """Know none."""
        return set()

    def close(self) -> None:
        """Keep that."""
        self.is_closed = True


def query_of(client: str, timeout_s: float | None = 30.0, count: CountLimits | None = None) -> Query:
    """Return a query of a client."""
    return Query(
        client=client,
        filters=(Filter(),),
        view=View(frozenset(), frozenset({4}), 1),
        limits=LIMITS,
        timeout_s=timeout_s,
        count=count,
    )


class Bench:
    """A reader on a clock of the test, with what it has sent."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = FakeStore(self.clock)
        self.sent: list[Any] = []
        self.wall_s = WALL_S + 0.5
        config = ReaderConfig(database="sqlite:x", slice_s=0.010)
        self.interrupted_s = 0.0
        self.sendings = 0
        self.ways: list[float] = []
        """When the reader has let other processes run, which take no time."""
        self.reader = Reader(
            *(self.store, config, self.send, self.clock.seconds, lambda: self.wall_s),
            processor=lambda: self.clock.seconds() - self.interrupted_s,
            give_way=self.give_way,
        )

    def send(self, *messages: object) -> None:
        """Keep messages."""
        self.sent += messages
        self.sendings += 1

    def give_way(self) -> None:
        """Note the time."""
        self.ways.append(self.clock.seconds())

    def open(
        self,
        number: int,
        client: str = "a",
        *,
        rows: int = 0,
        row_s: float = 0.001,
        credit: int = PLENTY,
        timeout_s: float | None = 30.0,
        count: CountLimits | None = None,
    ) -> FakeQuery:
        """Open a query of so many rows."""
        query = query_of(client, timeout_s, count)
        self.reader.receive(encode(Open(number, credit, query)))
        fake = FakeQuery(self.clock, rows, row_s)
        self.store.next.append(fake)
        return fake

    def lose(self, time_s: float) -> list[bytes]:
        """Let the system take the processor from the reader for so long."""
        self.clock.advance(time_s)
        self.interrupted_s += time_s
        return []

    def work(self, turns: int = 1) -> list[Any]:
        """Work for so many turns, and return what was sent."""
        self.sent.clear()
        for _ in range(turns):
            self.reader.work()
        return list(self.sent)

    def finish(self) -> list[Any]:
        """Work as long as a query could run, and return what was sent."""
        self.sent.clear()
        while self.reader.wait_s() == 0:
            self.reader.work()
        return list(self.sent)


def test_a_query_that_ends_in_its_first_slice() -> None:
    """The snapshot comes first, then the rows, then the end; the view has the time of the beginning."""
    bench = Bench()
    assert bench.reader.wait_s() is None
    bench.open(1, rows=2)
    assert bench.reader.wait_s() == 0
    assert bench.work() == [Snapshot(1, 7), Rows(1, [ROW, ROW]), Done(1, "finish", 2, None)]
    assert bench.reader.wait_s() is None
    ((filters, view, limits),) = bench.store.asked
    assert filters == (Filter(),)
    assert view == View(frozenset(), frozenset({4}), WALL_S)
    assert limits == ScanLimits(max_limit=500, default_limit=100, max_results=5000, max_work=99)


def test_a_long_query_works_in_slices() -> None:
    """A slice ends with its time, and the query goes on where it was."""
    bench = Bench()
    bench.open(1, rows=25)
    sizes = [[len(message.rows) for message in bench.work() if isinstance(message, Rows)] for _ in range(3)]
    assert sizes == [[10], [10], [5]]
    bench.reader.receive(encode(ReaderConfig(database="sqlite:x", slice_s=0.005)))
    bench.open(2, rows=25)
    assert [len(message.rows) for message in bench.work() if isinstance(message, Rows)] == [5]


def test_chunks_are_bounded() -> None:
    """No message has more rows than about 32 KiB."""
    bench = Bench()
    bench.open(1, rows=100, row_s=0.0)
    chunks = [sum(map(len, message.rows)) for message in bench.finish() if isinstance(message, Rows)]
    assert chunks == [CHUNK_BYTES] * 3 + [100 * 1024 - 3 * CHUNK_BYTES]


def test_most_queries_are_answered_at_once() -> None:
    """The reactor's process wakes up once for the snapshot, the rows and the end, also if there is a second chunk."""
    bench = Bench()
    bench.open(1, rows=40, row_s=SOON_S / 10)
    assert [type(message) for message in bench.work()] == [Snapshot, Rows, Rows, Done]
    assert bench.sendings == 1


def test_a_first_chunk_waits_for_no_more_than_what_comes_soon() -> None:
    """A query that goes on for long sends what it has, and its later chunks at once."""
    bench = Bench()
    sent_s: list[float] = []
    bench.send = lambda *messages: sent_s.append(bench.clock.seconds())  # type: ignore[method-assign]
    bench.reader._send = bench.send
    bench.open(1, rows=32 * 4, row_s=SOON_S / 4)
    bench.reader.work()
    assert sent_s[0] == pytest.approx((32 + 4) * SOON_S / 4, abs=SOON_S / 2)
    assert sent_s[1] - sent_s[0] == pytest.approx(32 * SOON_S / 4)


def test_other_processes_run_while_a_query_works_that_is_not_urgent() -> None:
    """They wait no longer than until the next look; that of a client with several queries, or a long one, can wait."""
    bench = Bench()
    bench.open(1, "greedy", rows=1000, row_s=LOOK_S / 3)
    bench.reader.work()
    assert bench.ways == []
    bench.reader.work()
    times = [bench.clock.seconds(), *bench.ways]
    assert len(bench.ways) >= 0.9 * 0.01 / (2 * LOOK_S)
    assert max(later - earlier for earlier, later in pairwise(sorted(times))) <= 2 * LOOK_S


def test_other_processes_run_between_short_slices() -> None:
    """Many short queries are not urgent if they have one client, and its last one is."""
    bench = Bench()
    for number in range(10):
        bench.open(number, rows=1, row_s=LOOK_S / 2)
    bench.work(10)
    began, *_, ended = bench.ways
    assert len(bench.ways) == pytest.approx((ended - began) / LOOK_S + 1, abs=1)
    bench.ways.clear()
    bench.open(11, rows=1, row_s=LOOK_S)
    bench.work()
    assert bench.ways == []


def test_a_slice_ends_when_a_query_arrives_that_goes_first() -> None:
    """A long query makes room within the time between two looks, and goes on afterwards; a later look is not due."""
    bench = Bench()
    bench.open(1, "greedy", rows=1000, row_s=LOOK_S / 3)
    bench.reader.work()
    assert bench.clock.seconds() > YOUNG_S
    arriving = [encode(Open(2, PLENTY, query_of("other")))]
    bench.store.next.append(FakeQuery(bench.clock, 1, 0.0))
    looks = []

    def poll() -> list[bytes]:
        looks.append(bench.clock.seconds())
        frames, arriving[:] = list(arriving), []
        return frames

    began = bench.clock.seconds()
    bench.sent.clear()
    bench.reader.work(poll)
    assert bench.clock.seconds() - began <= 2 * LOOK_S
    assert len(looks) == 1
    assert Done(2, "finish", 1, None) in bench.work()

    assert Done(1, "finish", 1000, None) in bench.finish()


def test_a_young_query_makes_room_for_others_like_it() -> None:
    """Its first slice ends when it is not young any more, if others wait."""
    bench = Bench()
    bench.open(1, "greedy", rows=1000, row_s=LOOK_S / 3)
    bench.open(2, "other", rows=1)
    bench.work()
    assert YOUNG_S <= bench.clock.seconds() <= YOUNG_S + 2 * LOOK_S
    assert Done(2, "finish", 1, None) in bench.work()


def test_an_interruption_does_not_make_a_query_old() -> None:
    """A query from which the system has taken the processor is not put behind others for that."""
    bench = Bench()
    slow = bench.open(1, rows=3, row_s=YOUNG_S / 4)
    bench.open(2, "greedy", rows=1000)
    bench.open(3, "greedy", rows=1000)
    step = slow.step

    def interrupted(is_over: Callable[[], bool], max_bytes: int = PLENTY) -> list[bytes]:
        slow.step = step  # type: ignore[method-assign]
        bench.lose(0.1)
        return step(lambda: slow.left < 3, max_bytes)

    slow.step = interrupted  # type: ignore[method-assign]
    assert Done(1, "finish", 3, None) in bench.work(3)


def test_an_interruption_is_hardly_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client pays for the time that the reader had for it, or waited for the disk for it, within reason."""
    bench = Bench()
    charged: list[float] = []
    monkeypatch.setattr(bench.reader._schedule, "spent", lambda client, took_s: charged.append(took_s))
    for number, interrupted_s in enumerate((0.0, 0.0005, 0.1)):
        bench.open(number, rows=2)
        began_s = bench.clock.seconds()
        bench.reader.work(lambda lost_s=interrupted_s: bench.lose(lost_s))  # type: ignore[misc]
        assert bench.clock.seconds() - began_s == pytest.approx(0.002 + interrupted_s)
    assert charged == pytest.approx([0.002, 0.0025, 0.006])


def test_an_interrupted_young_query_keeps_its_turn() -> None:
    """It ends in its first slice, though that took longer than usual."""
    bench = Bench()
    query = bench.open(1, rows=2, row_s=YOUNG_S / 4)
    bench.open(2, "other", rows=1)
    step = query.step

    def interrupted(is_over: Callable[[], bool], max_bytes: int = PLENTY) -> list[bytes]:
        bench.lose(0.02)
        return step(is_over, max_bytes)

    query.step = interrupted  # type: ignore[method-assign]
    assert Done(1, "finish", 2, None) in bench.work()


@pytest.mark.parametrize("count", [None, CountLimits(max_count=9, hll=False)])
def test_a_query_may_be_cancelled_within_its_slice(count: CountLimits | None) -> None:
    """Nothing is heard of it any more but its end, and its slice ends."""
    bench = Bench()
    bench.open(1, rows=100, row_s=LOOK_S, count=count)
    bench.sent.clear()
    bench.reader.work(lambda: [encode(Cancel(1))])
    (end,) = [message for message in bench.sent if not isinstance(message, Snapshot)]
    assert isinstance(end, Done)
    assert bench.finish() == []


def test_only_some_paused_queries_keep_what_they_have_read() -> None:
    """The others forget it, so that many of them take little memory."""
    bench = Bench()
    queries = [bench.open(number, str(number), rows=100) for number in range(MOST_WARM + 3)]
    bench.work(2 * MOST_WARM)
    assert sum(query.pauses > 0 for query in queries) >= 3
    bench.reader.receive(encode(Cancel(MOST_WARM)))
    assert len(bench.finish()) > MOST_WARM


def test_no_more_is_sent_than_there_is_credit() -> None:
    """Without credit a query waits, and costs nothing; more credit lets it go on."""
    bench = Bench()
    bench.open(1, rows=10, credit=3 * 1024)
    assert bench.finish() == [Snapshot(1, 7), Rows(1, [ROW] * 3)]
    assert bench.reader.wait_s() == EXPIRY_S
    bench.reader.receive(encode(Credit(1, 2048)))
    bench.reader.receive(encode(Credit(1, 2048)))
    assert bench.finish() == [Rows(1, [ROW] * 4)]
    bench.reader.receive(encode(Credit(1, PLENTY)))
    assert bench.finish() == [Rows(1, [ROW] * 3), Done(1, "finish", 10, None)]
    bench.reader.receive(encode(Credit(1, PLENTY)))
    assert bench.finish() == []


def test_a_scan_that_goes_on_knows_the_time() -> None:
    """It may have waited for its client for long: what has expired meanwhile is not sent."""
    bench = Bench()
    query = bench.open(1, rows=10, credit=1024)
    bench.finish()
    assert query.looked_at_s == WALL_S
    bench.wall_s += 60
    bench.reader.receive(encode(Credit(1, 1024)))
    bench.finish()
    assert query.looked_at_s == WALL_S + 60


def test_a_cancelled_query_is_not_heard_of() -> None:
    """It may be new, paused, waiting for credit, or over. Only its end is confirmed, once."""
    bench = Bench()
    bench.open(1, rows=100)
    bench.work()
    bench.open(2, rows=5, credit=1024)
    bench.work()
    bench.open(3, rows=5)
    bench.sent.clear()
    for number in (1, 2, 3, 3, 4):
        bench.reader.receive(encode(Cancel(number)))
    bench.reader.work()
    ends = [message for message in bench.sent if isinstance(message, Done)]
    assert ([end.number for end in ends], len(bench.sent)) == ([1, 2, 3], 3)
    assert bench.finish() == []
    assert bench.reader.wait_s() is None


def test_another_client_waits_for_one_slice_at_most() -> None:
    """One client's hundred queries do not delay another's first by more than a slice."""
    bench = Bench()
    for number in range(100):
        bench.open(number, "greedy", rows=1000)
    bench.work(300)
    bench.open(1000, "other", rows=1)
    began = bench.clock.seconds()
    assert Done(1000, "finish", 1, None) in bench.work(2)
    assert bench.clock.seconds() - began <= 0.022


def test_too_much_work() -> None:
    """With rows it is a correct newest part, and the client may ask for more; without any it is an error."""
    bench = Bench()
    bench.open(1, rows=100).over_work = True
    assert bench.work() == [Snapshot(1, 7), Done(1, None, 0, "expensive")]
    query = bench.open(2, rows=100)
    bench.work()
    query.over_work = True
    assert bench.work() == [Done(2, "more", 10, None)]


def test_a_count() -> None:
    """It takes turns as scans do, whatever its credit, and its result comes before its end."""
    bench = Bench()
    bench.open(1, rows=15, count=CountLimits(max_count=9, hll=True), credit=0)
    assert bench.work() == []
    assert bench.work() == [Counted(1, 42, False, None), Done(1, None, 15, None)]
    assert bench.store.asked[0][2:] == (9, True, 99)
    bench.open(2, rows=15, count=CountLimits(max_count=9, hll=True)).over_work = True
    assert bench.work() == [Done(2, None, 0, "expensive")]


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_store_that_cannot_be_read(has_begun: bool) -> None:
    """The query ends as an error, and others go on."""
    bench = Bench()
    query = bench.open(1, rows=20)
    if has_begun:
        bench.work()
    query.error = StoreError("damaged")
    assert bench.work()[-1] == Done(1, None, query.work, "error")
    bench.open(2)
    assert bench.work()[-1] == Done(2, "finish", 0, None)


def test_queries_that_take_too_long_end() -> None:
    """Waiting for a turn counts as running does. Some may take as long as they like."""
    bench = Bench()
    bench.open(1, "a", rows=100_000, row_s=0.01, timeout_s=3.0)
    bench.open(2, "b", rows=100_000, row_s=0.01, timeout_s=None)
    sent = []
    while bench.clock.seconds() < 6:
        sent += [message for message in bench.work() if isinstance(message, Done)]
    assert [(message.number, message.aborted) for message in sent] == [(1, "timeout")]
    assert Cancel not in map(type, sent)


def test_waiting_for_credit_is_the_clients_own_time() -> None:
    """A query that waits until its client has read does not run out of time, but the time that it ran counts."""
    bench = Bench()
    bench.open(1, rows=10_000, row_s=0.01, timeout_s=3.0, credit=2 * 1024)
    bench.finish()
    bench.clock.advance(1000)
    assert bench.work() == []
    bench.reader.receive(encode(Credit(1, PLENTY)))
    assert isinstance(bench.work()[0], Rows)
    bench.clock.advance(2.5)
    assert isinstance(bench.work()[0], Rows)
    bench.clock.advance(1.5)
    assert bench.work() == [Done(1, None, 4, "timeout")]


def test_closing() -> None:
    """The store is closed with its reader."""
    bench = Bench()
    bench.reader.close()
    assert bench.store.is_closed
