"""The writer writes what waits in batches, does other work in short pieces, and recovers by itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest
from twisted.internet.task import Clock

from pyryrelay.nostr.storage import interface
from pyryrelay.nostr.storage.interface import Checked, Outcome, Retention, Statistics, StoreError, Swept
from pyryrelay.nostr.workers.wire import Answer, Call, Health, Removed, Write, WriterConfig, Written, encode
from pyryrelay.nostr.workers.writer import (
    IDLE_S,
    MAX_BATCH_BYTES,
    MAX_BATCH_WEIGHT,
    PIECE_S,
    PROBE_S,
    RETENTION_S,
    SWEEP_S,
    Writer,
)

WALL_S = 1_700_000_000
RETENTION = Retention([], max_events=9)


class FakeStore:
    """A store that keeps what it is asked, and fails if the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.fails = False
        self.poison = b"poison"
        self.tending_fails = False
        self.tended: list[bool] = []
        self.swept: list[Swept] = []
        self.rows: list[tuple[int, bytes]] = []
        self.kept: dict[str, str] = {}

    def _ask(self, *asked: object) -> None:
        self.asked.append(asked)
        if self.fails:
            raise StoreError("disk full")

    def write(self, events: Sequence[bytes], *, received_s: int) -> interface.Written:
        """Store all events."""
        self._ask("write", list(events), received_s)
        if self.poison in events:
            raise ZeroDivisionError
        return interface.Written([Outcome.STORED] * len(events), list(range(1, len(events) + 1)), [b"old"])

    def tend(self, *, is_idle: bool = False) -> None:
        """Keep that apart."""
        self.tended.append(is_idle)
        if self.tending_fails:
            raise StoreError("disk full")

    def sweep(self, wall_s: int, budget_s: float) -> Swept:
        """Remove what the test says."""
        self._ask("sweep", wall_s, budget_s)
        return self.swept.pop(0) if self.swept else Swept([], False)

    def retain(self, retention: Retention, wall_s: int, budget_s: float) -> Swept:
        """Remove one event."""
        self._ask("retain", retention, wall_s, budget_s)
        return Swept([b"r"], False)

    def delete(self, ids: Collection[bytes], *, forever: bool) -> list[bytes]:
        """Delete all."""
        self._ask("delete", list(ids), forever)
        return list(ids)

    def since(self, seq: int, most: int) -> list[tuple[int, bytes]]:
        """Find what the test says."""
        self._ask("since", seq, most)
        return self.rows

    def positions(self) -> dict[str, str]:
        """Return what was kept."""
        self._ask("positions")
        return self.kept

    def keep_positions(self, positions: Mapping[str, str]) -> None:
        """Keep positions."""
        self._ask("keep_positions", dict(positions))
        self.kept.update(positions)

    def statistics(self) -> Statistics:
        """Return some numbers."""
        self._ask("statistics")
        return Statistics({"regular": 3}, 4096, 1, 7)

    def check(self, budget_s: float | None = None) -> Checked:
        """Find nothing."""
        self._ask("check", budget_s)
        return Checked(3)

    def compact(self) -> None:
        """Keep that."""
        self._ask("compact")

    def probe(self) -> None:
        """Keep that."""
        self._ask("probe")

    def close(self) -> None:
        """Keep that."""
        self._ask("close")


class Bench:
    """A writer on a clock of the test, with what it has sent."""

    def __init__(self, *, is_settled: bool = True) -> None:
        self.clock = Clock()
        self.store = FakeStore()
        self.sent: list[Any] = []
        config = WriterConfig(database="sqlite:x", retention=RETENTION)
        self.writer = Writer(self.store, config, self.sent.append, self.clock.seconds, lambda: WALL_S + 0.5)
        if is_settled:
            self.work(2)
            self.asked()

    def receive(self, *messages: object) -> None:
        """Let the writer receive messages."""
        for message in messages:
            self.writer.receive(encode(message))

    def work(self, turns: int = 1) -> list[Any]:
        """Work for so many turns, and return what was sent."""
        self.sent.clear()
        for _ in range(turns):
            self.writer.work()
        return list(self.sent)

    def asked(self) -> list[tuple[object, ...]]:
        """Return what the store was asked since the last call."""
        asked, self.store.asked = self.store.asked, []
        return asked


def test_what_waits_is_one_batch() -> None:
    """Frames that wait are written in one transaction, and each has its answer."""
    bench = Bench()
    bench.receive(Write(1, [b"a", b"b"]), Write(2, [b"c"]))
    first, second = bench.work()
    assert bench.asked() == [("write", [b"a", b"b", b"c"], WALL_S)]
    assert (first.number, first.outcomes, first.seqs, first.removed, first.batch_events) == (
        1,
        [0, 0],
        [1, 2],
        [b"old"],
        3,
    )
    assert second == Written(2, [0], [3])


@pytest.mark.parametrize(("size", "count"), [(1, MAX_BATCH_WEIGHT), (MAX_BATCH_BYTES // 2, 2)])
def test_batches_are_bounded(size: int, count: int) -> None:
    """A batch has at most so many events and bytes, but at least one frame."""
    bench = Bench()
    bench.receive(Write(1, [bytes(size)] * count), Write(2, [b"a"]), Write(3, [b"b"]))
    bench.work()
    assert [len(asked[1]) for asked in bench.asked()] == [count, 2]  # type: ignore[arg-type]


def test_batches_are_bounded_by_weight() -> None:
    """Events with many tags make small batches, but at least one frame."""
    bench = Bench()
    most = MAX_BATCH_WEIGHT
    bench.receive(Write(1, [b"a"], most + 1), Write(2, [b"b"], most - 1), Write(3, [b"c"], 1), Write(4, [b"d"], 1))
    bench.work()
    assert [len(asked[1]) for asked in bench.asked()] == [1, 2, 1]  # type: ignore[arg-type]


def test_what_writes_leave_is_done_when_they_are_answered() -> None:
    """Each batch is answered before the store is tended; a second after the last one, everything is done."""
    bench = Bench()
    answered = []
    bench.store.tend = lambda is_idle=False: answered.append((is_idle, len(bench.sent)))  # type: ignore[method-assign, misc]
    bench.receive(Write(1, [b"a"]))
    bench.work()
    bench.clock.advance(IDLE_S / 2)
    bench.receive(Write(2, [b"a"]))
    bench.work()
    assert bench.writer.wait_s() == IDLE_S
    bench.clock.advance(IDLE_S)
    bench.work(2)
    assert answered == [(False, 1), (False, 1), (True, 0)]
    assert bench.writer.wait_s() == SWEEP_S - 1.5 * IDLE_S


@pytest.mark.parametrize("is_idle", [False, True])
def test_tending_that_fails(is_idle: bool) -> None:
    """It is reported as a failed write is, and tried again when the store can be written."""
    bench = Bench()
    if is_idle:
        bench.receive(Write(1, [b"a"]))
        bench.work()
        bench.clock.advance(IDLE_S)
        bench.store.tending_fails = True
        sent = bench.work()
    else:
        bench.store.tending_fails = True
        bench.receive(Write(1, [b"a"]))
        sent = bench.work()[1:]
    assert sent == [Health(False, "disk full")]
    bench.store.tending_fails = False
    bench.clock.advance(PROBE_S)
    assert bench.work() == [Health(True)]
    bench.store.tended.clear()
    bench.clock.advance(IDLE_S)
    bench.work()
    assert bench.store.tended == [True]


def test_a_failed_write_is_answered_and_reported() -> None:
    """The events of the whole batch are not stored, which health tells first; what comes later is tried."""
    bench = Bench()
    bench.store.fails = True
    bench.receive(Write(1, [b"a"]), Write(2, [b"b"]))
    assert bench.work() == [Health(False, "disk full"), Written(1, [], []), Written(2, [], [])]
    bench.receive(Write(3, [b"c"]))
    assert bench.work() == [Written(3, [], [])]
    bench.store.fails = False
    bench.receive(Write(4, [b"d"]))
    assert bench.work()[1:] == [Health(True)]


def test_it_finds_out_that_the_store_works_again() -> None:
    """Without events it tries every few seconds, and nothing else meanwhile."""
    bench = Bench()
    bench.store.fails = True
    bench.receive(Write(1, [b"a"]))
    bench.work()
    bench.asked()
    assert bench.writer.wait_s() == PROBE_S
    assert (bench.work(), bench.asked()) == ([], [])
    for _ in range(2):
        bench.clock.advance(PROBE_S)
        assert bench.writer.wait_s() == 0
        assert (bench.work(), bench.asked()) == ([], [("probe",)])
    bench.store.fails = False
    bench.clock.advance(PROBE_S)
    assert bench.work() == [Health(True)]


def test_one_event_cannot_make_others_fail(capsys: pytest.CaptureFixture[str]) -> None:
    """An error that is not the database's is narrowed down to the event, whose content is not shown."""
    bench = Bench()
    bench.receive(Write(1, [b"a", b"poison", b"b"]))
    (written,) = bench.work()
    assert written.outcomes == [Outcome.STORED, Outcome.FAILED, Outcome.STORED]
    assert written.seqs[1] == 0
    error = capsys.readouterr().err
    assert error.startswith("nostr writer: an event could not be stored: ZeroDivisionError")
    assert "poison" not in error


def test_expired_events_are_removed_in_pieces() -> None:
    """A piece takes 10 ms, and events that have come meanwhile are written before the next."""
    bench = Bench()
    bench.clock.advance(SWEEP_S)
    bench.store.swept = [Swept([b"x"], True), Swept([b"y"], False)]
    assert bench.writer.wait_s() == 0
    assert bench.work() == [Removed("expired", [b"x"])]
    assert bench.writer.wait_s() == 0
    bench.receive(Write(1, [b"a"]))
    assert bench.work()[1:] == [Removed("expired", [b"y"])]
    assert bench.asked() == [
        ("sweep", WALL_S, PIECE_S),
        ("write", [b"a"], WALL_S),
        ("sweep", WALL_S, PIECE_S),
    ]
    bench.clock.advance(IDLE_S)
    bench.work()
    assert bench.writer.wait_s() == SWEEP_S - IDLE_S
    assert bench.work() == []


def test_other_work_starts_at_once_and_is_repeated() -> None:
    """What expired while the relay was down goes first; retention follows, by the rules of the last configuration."""
    bench = Bench(is_settled=False)
    bench.work(3)
    assert [asked[0] for asked in bench.asked()] == ["sweep", "retain"]
    other = Retention([], max_events=5)
    bench.receive(WriterConfig(database="sqlite:x", retention=other))
    bench.clock.advance(RETENTION_S)
    assert bench.work(2) == [Removed("retention", [b"r"])]
    assert bench.asked()[1] == ("retain", other, WALL_S, PIECE_S)


def test_other_work_that_fails() -> None:
    """It is a failed write like others, and is done when the store works again."""
    bench = Bench()
    bench.clock.advance(SWEEP_S)
    bench.store.fails = True
    assert bench.work() == [Health(False, "disk full")]
    bench.store.fails = False
    bench.clock.advance(PROBE_S)
    assert bench.work(2) == [Health(True)]
    assert [asked[0] for asked in bench.asked()] == ["sweep", "probe", "sweep"]


@pytest.mark.parametrize(
    ("name", "arguments", "asked", "result"),
    [
        (
            "statistics",
            {},
            ("statistics",),
            {"events": {"regular": 3}, "database_bytes": 4096, "version": 1, "last_seq": 7},
        ),
        ("delete", {"ids": [b"x"], "forever": True}, ("delete", [b"x"], True), [b"x"]),
        ("check", {"budget_s": 1.5}, ("check", 1.5), {"events": 3, "problems": []}),
        ("check", {}, ("check", None), {"events": 3, "problems": []}),
        ("compact", {}, ("compact",), None),
        ("since", {"seq": 3, "most": 9, "max_bytes": 99}, ("since", 3, 9), []),
        ("keep_positions", {"positions": {"a": "1"}}, ("keep_positions", {"a": "1"}), None),
    ],
)
def test_calls_for_tools(name: str, arguments: dict[str, object], asked: tuple[object, ...], result: object) -> None:
    """Each call has its answer, after the events that wait, or the store's reason why not."""
    bench = Bench()
    bench.receive(Call(5, name, arguments), Write(1, [b"a"]))
    assert bench.writer.wait_s() == 0
    assert bench.work()[1:] == [Answer(5, result)]
    assert bench.asked() == [("write", [b"a"], WALL_S), asked]
    bench.store.fails = True
    bench.receive(Call(6, name, arguments))
    assert bench.work() == [Answer(6, None, "disk full")]


@pytest.mark.parametrize(("name", "arguments"), [("destroy", {}), ("delete", {}), ("delete", {"ids": 5, "forever": 1})])
def test_unknown_calls(name: str, arguments: dict[str, object]) -> None:
    """They are answered as well."""
    bench = Bench()
    bench.receive(Call(5, name, arguments))
    assert bench.work() == [Answer(5, None, "the writer does not know this call")]
    assert bench.asked() == []


def test_closing() -> None:
    """The store is closed with its writer."""
    bench = Bench()
    bench.writer.close()
    assert bench.asked() == [("close",)]


def test_events_since_a_number_are_cut_at_a_size() -> None:
    """The first one is returned whatever its size."""
    bench = Bench()
    bench.store.rows = [(4, b"x" * 60), (7, b"y" * 40), (8, b"z")]
    for number, (max_bytes, seqs) in enumerate(((10, [4]), (100, [4, 7]), (101, [4, 7, 8]))):
        bench.receive(Call(number, "since", {"seq": 3, "most": 9, "max_bytes": max_bytes}))
        (answer,) = bench.work()
        assert [seq for seq, _ in answer.result] == seqs


def test_positions_come_with_the_last_number() -> None:
    """Both are of one moment."""
    bench = Bench()
    bench.store.kept = {"a": "1"}
    bench.receive(Call(1, "positions", {}))
    assert bench.work() == [Answer(1, {"positions": {"a": "1"}, "last_seq": 7})]
