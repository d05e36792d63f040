"""Entries on their way from a server."""

from __future__ import annotations

import pytest
from tests.support.broadcasts import NotingListener
from tests.support.capture import captured
from tests.support.scripted_redis import ScriptedRedis
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from pyryrelay.cluster.broadcast.reading import INTERVAL_S, RETRY_S, Reader, Reports
from pyryrelay.cluster.broadcast.scripts import READ
from pyryrelay.cluster.broadcast.seals import Seals
from pyryrelay.cluster.broadcast.stream import stream_of
from pyryrelay.cluster.keys import Keys
from pyryrelay.cluster.redis.interface import AnswerError

KEYS = Keys("relay", b"0123456789abcdefghij")
NOW = 1_790_000_100.0


class Case:
    """One stream that a test plays, which began at 5; it was read up to 1-1. The bell waits after `begin`."""

    def __init__(self, position: str = "5/1-1") -> None:
        self.clock = Clock()
        self.clock.advance(100.0)
        self.redis = ScriptedRedis()
        self.seals = Seals(KEYS.sealing_key)
        self.stream = stream_of(KEYS, "test", 0, self.seals)
        self.other = stream_of(KEYS, "test", 0, Seals(KEYS.sealing_key))
        self.listener = NotingListener()
        self.told: list[str] = []
        self.server_time: float | None = NOW
        reports = Reports(lambda: self.told.append("lost"), lambda: self.told.append("missed"), self.told.append)
        self.reader = Reader(
            self.redis,
            self.stream,
            position,
            self.listener,
            self.clock.seconds,
            lambda: self.server_time,
            self.clock.callLater,
            reports,
        )

    def begin(self) -> None:
        """Read for the first time: there is nothing."""
        self.reader.connected()
        self.read()

    def read(self, *entries: bytes, began: bytes = b"5", what: bytes = b"on", more: int = 0, first: int = 2) -> None:
        """Answer a read with entries, whose ids are 2-1, 3-1 and so on."""
        script, _ = self.redis.asked[0]
        assert script is READ
        pairs = [item for number, each in enumerate(entries, first) for item in (b"%d-1" % number, each)]
        self.redis.answer([began, what, more, *pairs])

    def ring(self, answer: object = b"rung") -> None:
        """Answer the wait for the bell, and let the time pass that a read is put off."""
        assert self.is_waiting
        self.redis.answer(answer)
        self.clock.advance(INTERVAL_S)

    def entry(self, body: bytes, age_s: float = 0.0) -> bytes:
        """Return an entry of another member."""
        return self.other.sealed(body, NOW - age_s)

    @property
    def is_waiting(self) -> bool:
        """Whether the bell is waited for."""
        return [words[0] for script, words in self.redis.asked if script is None] == ["XREAD"]

    @property
    def asked_for(self) -> tuple[object, object]:
        """When the stream began, and the entry from which on the read that waits goes on."""
        ((script, words),) = self.redis.asked
        assert script is READ
        return words[0], words[1]


def test_it_reads_and_then_waits() -> None:
    """The wait begins at the last entry, and ends by itself."""
    case = Case()
    case.reader.connected()
    assert case.asked_for == ("5", "1-1")
    case.read(case.entry(b"one", 7.0), case.entry(b"two"))
    assert case.redis.asked == [(None, ("XREAD", "BLOCK", 1000, "COUNT", 1, "STREAMS", case.stream.bell, "3-1"))]
    assert case.listener.bodies == [b"one", b"two"]
    assert case.listener.ages == pytest.approx([7.0, 0.0], abs=1e-5)
    assert case.listener.positions == {"0": "5/3-1"}
    case.ring(None)
    assert case.asked_for == ("5", "3-1")


def test_more_is_read_at_once_and_what_rings_a_little_later() -> None:
    """Reads after a bell keep their distance, so that entries that come one by one are read together."""
    case = Case()
    case.reader.connected()
    case.read(case.entry(b"one"), more=1)
    assert case.asked_for == ("5", "2-1")
    case.read(case.entry(b"two"), first=3)
    case.redis.answer(b"rung")
    assert case.redis.asked == []
    case.clock.advance(INTERVAL_S)
    assert case.asked_for == ("5", "3-1")
    case.read(case.entry(b"three"), first=4)
    case.clock.advance(INTERVAL_S)
    case.redis.answer(b"rung")
    assert case.asked_for == ("5", "4-1")


def test_own_and_unreadable_entries_are_passed() -> None:
    """The position moves with them, after what the listener takes."""
    case = Case()
    case.begin()
    own = case.stream.sealed(b"own", NOW)
    case.ring()
    case.read(own, b"", b"forged")
    assert case.listener.positions == {"0": "5/4-1"}
    case.ring()
    case.listener.answer = Deferred()
    case.read(case.entry(b"one"), own, first=5)
    assert case.listener.positions == {"0": "5/4-1"}
    case.listener.answer.callback(None)
    assert case.listener.positions == {"0": "5/6-1"}
    figures = case.stream.figures
    assert (figures.read, figures.unreadable) == (1, 2)


def test_nothing_is_asked_while_the_listener_is_busy() -> None:
    """Not even if the connection ends and another one is there meanwhile."""
    case = Case()
    case.begin()
    case.ring()
    case.listener.answer = Deferred()
    case.read(case.entry(b"one"))
    case.redis.end()
    case.redis.is_up = True
    case.reader.connected()
    case.clock.advance(60.0)
    assert case.redis.asked == []
    assert case.reader.behind_s > 60.0
    case.listener.answer.callback(None)
    assert case.is_waiting
    assert case.reader.behind_s == 0.0


def test_a_listener_that_fails_gets_the_same_again() -> None:
    """A second later; the failure is logged."""
    case = Case()
    case.begin()
    case.ring()
    with captured() as log:
        case.listener.answer = fail(ValueError("test"))
        case.read(case.entry(b"one"))
    assert ["could not be taken in" in text for text in log.texts] == [True]
    case.listener.answer = None
    case.clock.advance(RETRY_S)
    assert case.asked_for == ("5", "1-1")
    case.read(case.entry(b"one"))
    assert case.listener.bodies == [b"one", b"one"]


def test_after_an_outage_it_goes_on() -> None:
    """Wherever it was: with the next connection it reads from the last entry that was taken."""
    case = Case()
    case.begin()
    case.redis.end()
    case.clock.advance(60.0)
    assert case.redis.asked == []
    case.redis.is_up = True
    case.reader.connected()
    assert case.asked_for == ("5", "1-1")
    case.redis.end()
    case.redis.is_up = True
    case.reader.connected()
    case.read(case.entry(b"one"))
    assert case.listener.bodies == [b"one"]


@pytest.mark.parametrize("position", ["", "5", "5/", "5/1", "x/1-1", "5/1-1-1", "5/" + "1" * 50 + "-1"])
def test_without_a_position_it_reads_from_the_oldest_entry(position: str) -> None:
    """That is no loss."""
    case = Case(position)
    case.reader.connected()
    assert case.asked_for == ("", "0-0")
    case.read(began=b"", what=b"on")
    assert case.is_waiting
    case.ring()
    case.read(case.entry(b"one"), what=b"new")
    assert (case.listener.bodies, case.told, case.listener.told) == ([b"one"], [], [])
    assert case.listener.positions == {"0": "5/2-1"}


@pytest.mark.parametrize(("what", "began"), [(b"new", b"9"), (b"lost", b"5"), (b"new", b"")])
def test_a_server_that_lost_entries_is_told_again(what: bytes, began: bytes) -> None:
    """Unless that was found out after a connection, after which everybody adds what was lost anyway."""
    case = Case()
    case.begin()
    case.ring()
    case.read(what=what, began=began)
    assert case.told == ["lost"]
    assert case.stream.figures.begun_anew == 1
    case = Case(f"5/{int(NOW * 1000)}-1")
    case.reader.connected()
    case.read(case.entry(b"one"), what=what, began=began)
    assert case.told == []
    assert case.listener.bodies == [b"one"]
    assert case.stream.figures.begun_anew == 1


@pytest.mark.parametrize("began", [b"9", b""])
def test_a_relay_that_was_down_says_since_when(began: bytes) -> None:
    """The server has lost what was added meanwhile. So it is told each time, by the id of what was read last."""
    case = Case(f"5/{int(NOW * 1000) - 70_000}-1")
    case.reader.connected()
    case.read(what=b"new", began=began)
    assert (case.told, case.listener.told, case.stream.figures.missed) == ([], ["lost 0 70"], 0)
    case.clock.advance(5.0)
    case.redis.end()
    case.redis.is_up = True
    case.reader.connected()
    case.read(case.entry(b"one"), what=b"new", began=b"11")
    assert case.listener.told == ["lost 0 70", "lost 0 5"]


def test_a_relay_that_was_cut_off_says_since_when() -> None:
    """By when it had read everything, however old the last entry was."""
    case = Case()
    case.begin()
    case.clock.advance(20.0)
    case.ring(None)
    case.read()
    case.redis.end()
    case.clock.advance(300.0)
    case.redis.is_up = True
    case.reader.connected()
    case.read(what=b"new", began=b"9")
    assert case.listener.told == [f"lost 0 {300.0 + INTERVAL_S:g}"]
    case.ring()
    case.read(what=b"lost", began=b"9")
    assert case.listener.told[1:] == ["lost 0 0"]


def test_without_a_clock_nobody_knows_since_when() -> None:
    """Such as before the server has told its time. So everything is asked for."""
    case = Case()
    case.server_time = None
    case.reader.connected()
    case.read(what=b"new", began=b"9")
    assert case.listener.told == ["lost 0 inf"]


def test_missed_entries_are_told_to_everybody() -> None:
    """The next ones are the oldest that are left."""
    case = Case()
    case.server_time = None
    case.reader.connected()
    case.read(case.entry(b"nine"), what=b"missed", first=9)
    assert (case.told, case.listener.told, case.listener.bodies) == (["missed"], ["missed 0 inf 0"], [b"nine"])
    assert case.stream.figures.missed == 1
    case.ring()
    assert case.asked_for == ("5", "9-1")


@pytest.mark.parametrize(("last_s", "first_s", "told"), [(100, 30, "100 30"), (100, 200, "100 100"), (-5, -7, "0 0")])
def test_when_missed_entries_were_added_is_told(last_s: int, first_s: int, told: str) -> None:
    """Between the last one that was read and the oldest one that is left; nothing is in the future."""
    ids = [int((NOW - ago_s) * 1000) for ago_s in (last_s, first_s)]
    case = Case(f"5/{ids[0]}-1")
    case.reader.connected()
    case.read(case.entry(b"next"), what=b"missed", first=ids[1])
    assert case.listener.told == [f"missed 0 {told}"]


def test_a_listener_that_takes_long_does_not_change_since_when() -> None:
    """What was added while it took entries was not read."""
    case = Case()
    case.begin()
    case.ring()
    case.listener.answer = Deferred()
    case.read(case.entry(b"one"))
    case.clock.advance(60.0)
    case.listener.answer.callback(None)
    assert case.reader.behind_s == 0.0
    case.ring()
    case.read(case.entry(b"nine"), what=b"missed", first=int((NOW - 40.0) * 1000))
    assert case.listener.told == [f"missed 0 {60.0 + INTERVAL_S:g} 40"]


def test_a_listener_that_fails_after_a_miss_is_told_once() -> None:
    """It goes on with the oldest entry, whichever that is then."""
    case = Case()
    case.reader.connected()
    case.listener.answer = fail(ValueError("test"))
    with captured():
        case.read(case.entry(b"nine"), what=b"missed", first=9)
    case.clock.advance(RETRY_S)
    assert case.asked_for == ("5", "0-0")


def test_a_refusal_is_told_and_tried_again() -> None:
    """Both of a read and of a wait."""
    case = Case()
    case.begin()
    case.redis.answer(AnswerError("NOPERM no"))
    assert case.told == ["NOPERM no"]
    case.clock.advance(RETRY_S)
    case.redis.answer(AnswerError("ERR no"))
    assert case.told == ["NOPERM no", "ERR no"]
    case.clock.advance(RETRY_S)
    case.read()
    assert case.is_waiting


def test_odd_answers_end_nothing() -> None:
    """They are logged, and the same is asked again."""
    case = Case()
    case.begin()
    case.ring()
    with captured() as log:
        case.redis.answer([b"5"])
    assert len(log.texts) == 1
    case.clock.advance(RETRY_S)
    case.read(case.entry(b"one"))
    assert case.listener.bodies == [b"one"]


def test_a_bell_that_somebody_else_rings_is_not_heard_for_a_while() -> None:
    """Otherwise it would keep the relay busy."""
    case = Case()
    case.begin()
    case.ring()
    case.read()
    assert case.redis.asked == []
    case.clock.advance(RETRY_S)
    case.read()
    assert case.is_waiting


def test_after_the_end_nothing_happens() -> None:
    """Whatever it was doing."""
    reading, waiting, taking, pausing = Case(), Case(), Case(), Case()
    reading.reader.connected()
    for case in (waiting, taking, pausing):
        case.begin()
    taking.ring()
    taking.listener.answer = Deferred()
    taking.read(b"", taking.entry(b"one"), b"")
    pausing.redis.answer(b"rung")
    for case in (reading, waiting, taking, pausing):
        case.reader.stop()
    reading.read(reading.entry(b"one"))
    waiting.redis.answer(None)
    taking.listener.answer.callback(None)
    for case in (reading, waiting, taking, pausing):
        case.clock.advance(60.0)
        case.reader.connected()
        assert case.redis.asked == []
        assert case.clock.getDelayedCalls() == []
    assert reading.listener.bodies == []
    assert taking.listener.positions == {}
