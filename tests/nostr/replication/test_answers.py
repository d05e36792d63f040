"""What others did not read in time is announced again: all of it, about once, at a pace, whatever happens meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.broadcasts import FakeServers
from tests.support.capture import captured
from tests.support.nostr_hosts import HostLog
from tests.support.nostr_relay import event, json_of
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from pyryrelay.broadcast import MAX_BODY_BYTES
from pyryrelay.nostr.replication import answers as module
from pyryrelay.nostr.replication.answers import BUSY, BUSY_S, FIRST_S, MAX_SPANS, PER_S, RETRY_S, SPREAD_S, Answers
from pyryrelay.nostr.replication.entries import ONLY, Wish, body_of
from pyryrelay.nostr.replication.history import History, Span
from pyryrelay.nostr.replication.progress import Progress
from pyryrelay.nostr.replication.totals import Totals
from pyryrelay.nostr.workers.store_writer import WriterError

WALL_S = 100_000
JSONS = [json_of(event(str(seq))) for seq in range(1, 101)]


class Bench:
    """A host that has announced 100 events, one a minute, and the servers. Others are asked 100 s later."""

    def __init__(self, kept: str = "", chance: float = 0.0) -> None:
        self.clock = Clock()
        self.servers = FakeServers(self.clock)
        self.broadcast = self.servers.member()
        self.totals, self.log = Totals(), HostLog()
        self.progress = Progress(0, 0, 0.0)
        self.progress.advance(100, 0.0)
        self.history = History("", 0, 0, is_first=True)
        for seq in range(1, 101):
            self.history.note(seq, seq, 0, WALL_S - 60 * (100 - seq))
        self.jsons = dict(enumerate(JSONS, 1))
        self.is_broken = False
        self.lacking: list[Span] = []
        self.answers = Answers(
            self.broadcast,
            self,
            self.progress,
            self.history,
            lambda: WALL_S + int(self.clock.seconds()),
            self.clock.callLater,
            lambda: chance,
            lambda span: span in self.lacking,
            self.totals,
            self.log,
            kept,
        )

    def call(self, name: str, arguments: dict[str, object] | None = None) -> Deferred[Any]:
        """Return events of the store."""
        assert (name, arguments is not None) == ("since", True)
        if self.is_broken:
            return fail(WriterError("it is broken"))
        asked: Any = arguments
        return succeed([[seq, json] for seq, json in self.jsons.items() if seq > asked["seq"]][: asked["most"]])

    def ask(self, since: int, until: int, age_s: float = 0.0) -> None:
        """Have another host ask."""
        self.answers.asked(Wish(is_answer=False, seconds=since, until=until), age_s)

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.pump([0.5] * int(2 * seconds))
        self.servers.settle()

    @property
    def said(self) -> list[bytes]:
        """What was announced."""
        return self.broadcast.added


def bodies(first: int, last: int) -> list[bytes]:
    """Return what events are announced as."""
    return [body_of(json) for json in JSONS[first - 1 : last]]


def test_a_span_is_announced_again() -> None:
    """With a margin at each end, and as exactly as is known; nothing before or after it, and the end is told."""
    bench = Bench()
    bench.ask(600, 300)
    bench.pass_s(FIRST_S - 1)
    assert bench.said == []
    assert bench.answers.text == f"{WALL_S - 615}-{WALL_S - 285}"
    bench.pass_s(5)
    assert bench.said[:-1] == bodies(90, 96)
    assert bench.said[-1] == ONLY + b"621 291"
    assert bench.log.lines == [("once more", 7)]
    assert (bench.totals.announced, bench.answers.text, bench.progress.announced) == (7, "", 100)


def test_hosts_that_have_come_back_together_are_answered_together() -> None:
    """And a question that comes later, if the answer to it is not under way already."""
    bench = Bench(chance=1.0)
    bench.ask(600, 300)
    bench.pass_s(FIRST_S)
    bench.ask(900, 200)
    bench.ask(600, 300, 6.0)
    bench.pass_s(SPREAD_S + 1)
    assert [line for line in bench.said if line.startswith(ONLY)] == [ONLY + b"925 195"]
    bench.ask(100, 90)
    bench.pass_s(30)
    assert len([line for line in bench.said if line.startswith(ONLY)]) == 2


def test_a_question_that_an_answer_covers_waits_for_its_end() -> None:
    """The entries of that come after the question, or after what is missing there."""
    bench = Bench()
    bench.ask(1000, 300)
    bench.is_broken = True
    bench.pass_s(FIRST_S + 1)
    bench.ask(800, 400)
    bench.ask(800, 0)
    assert len(bench.answers.text.split()) == 2
    bench.is_broken = False
    bench.pass_s(30)
    assert bench.said.count(bodies(90, 90)[0]) == 2


def test_what_another_host_announces_is_left_out() -> None:
    """Also while a server is down; each goes on where the other ends."""
    bench = Bench()
    bench.ask(600, 300)
    bench.answers.heard(bodies(90, 92))
    bench.pass_s(FIRST_S - 1)
    bench.servers.down()
    bench.pass_s(2)
    bench.answers.heard(bodies(95, 96))
    bench.servers.up()
    bench.pass_s(2 * RETRY_S)
    assert bench.said[:-1] == bodies(93, 94)
    bench.answers.heard(bodies(91, 92))
    bench.ask(600, 580)
    bench.pass_s(FIRST_S + 2)
    assert bodies(91, 91)[0] in bench.said


def test_what_is_heard_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten."""
    monkeypatch.setattr(module, "MAX_HEARD", 2)
    bench = Bench()
    bench.ask(600, 300)
    bench.answers.heard(bodies(90, 96))
    bench.pass_s(10)
    assert bench.said[:-1] == bodies(90, 94)


def test_it_goes_at_a_pace_and_after_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients' events are not held up, and servers are not filled."""
    monkeypatch.setattr(module, "MOST", 10)
    monkeypatch.setattr(module, "PER_S", 10)
    bench = Bench()
    bench.progress.stored(100 + BUSY + 1)
    bench.ask(6000, 0)
    bench.pass_s(FIRST_S + 10)
    assert bench.said == []
    bench.progress.advance(101, 0.0)
    bench.pass_s(BUSY_S)
    for passed in range(1, 10):
        assert abs(len(bench.said) - 10 * passed) <= 10
        bench.pass_s(1)
    assert PER_S == 1000


def test_it_is_tried_again() -> None:
    """While the store cannot be read, or a server is away, also at the end."""
    bench = Bench()
    bench.is_broken = True
    bench.ask(600, 300)
    bench.pass_s(FIRST_S + 3 * RETRY_S)
    bench.is_broken = False
    bench.servers.down()
    bench.pass_s(3 * RETRY_S)
    bench.servers.up()
    bench.pass_s(2 * RETRY_S)
    assert bench.said[:-1] == bodies(90, 96)
    quiet = Bench()
    quiet.servers.down()
    quiet.ask(5, 4)
    quiet.jsons.clear()
    quiet.pass_s(FIRST_S + RETRY_S)
    quiet.servers.up()
    quiet.pass_s(2 * RETRY_S)
    assert [line[:1] for line in quiet.said] == [ONLY]


def test_the_next_process_begins_again() -> None:
    """With the answer that was under way, and those that wait."""
    bench = Bench()
    bench.ask(600, 300)
    bench.is_broken = True
    bench.pass_s(FIRST_S + 1)
    bench.ask(60, 0)
    heir = Bench(bench.answers.text)
    heir.answers.start()
    heir.pass_s(3 * FIRST_S)
    assert [body for body in heir.said if not body.startswith(ONLY)] == [*bodies(90, 96), *bodies(99, 100)]


@pytest.mark.parametrize("what", ["lacks", "too far"])
def test_who_cannot_announce_all_does_not_say_so(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But announces what there is, up to a bound."""
    bench = Bench()
    if what == "lacks":
        bench.lacking = [Span(WALL_S - 615, WALL_S - 285)]
    else:
        monkeypatch.setattr("pyryrelay.nostr.replication.history.MAX_AGAIN", 3)
    bench.ask(600, 300)
    bench.pass_s(10)
    assert bench.said[:-1] == (bodies(90, 96) if what == "lacks" else bodies(94, 96))
    assert bench.said[-1] == ONLY + (b"291 291" if what == "lacks" else b"426 291")


def test_odd_questions_and_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions that make no sense are left out, many become few, and what is too large for an entry is passed."""
    bench = Bench()
    bench.ask(100, 200)
    assert bench.answers.text == ""
    for number in range(20):
        bench.ask(1000 * number + 10, 1000 * number)
    assert len(bench.answers.text.split()) == MAX_SPANS
    large = Bench()
    large.jsons[95] = b"x" * MAX_BODY_BYTES
    large.ask(600, 300)
    large.pass_s(10)
    assert len(large.said) == 7


def test_after_the_end_nothing_is_announced() -> None:
    """Whatever it was doing."""
    waiting, trying = Bench(), Bench()
    trying.is_broken = True
    for bench in (waiting, trying):
        bench.ask(600, 300)
    trying.pass_s(FIRST_S + 1)
    trying.is_broken = False
    for bench in (waiting, trying):
        bench.answers.stop()
        bench.ask(600, 300)
        bench.pass_s(60)
        assert bench.said == []


def test_a_failure_does_not_end_it_for_ever() -> None:
    """It is logged, and the next question is answered."""
    bench = Bench()
    bench.jsons[1] = "no bytes"  # type: ignore[assignment]
    bench.ask(10_000, 9_000)
    with captured() as log:
        bench.pass_s(FIRST_S + 1)
    assert len(log.texts) == 1
    del bench.jsons[1]
    bench.ask(600, 300)
    bench.pass_s(FIRST_S + 2)
    assert bench.said[:-1] == bodies(90, 96)
