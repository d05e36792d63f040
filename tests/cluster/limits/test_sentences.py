"""Sentences and releases that members tell one another."""

from __future__ import annotations

from typing import Any

from tests.support.fake_redis import FakeServer
from twisted.internet.defer import Deferred

from pyryrelay.cluster.keys import Keys
from pyryrelay.cluster.limits.rows import Rows
from pyryrelay.cluster.limits.sentences import PAGE, SentenceExchange
from pyryrelay.cluster.redis.interface import RedisError
from pyryrelay.guard import Jail, JailPolicy, Sentence
from pyryrelay.guard.jail import origin_of_worker

KEYS = Keys("relay", b"0123456789abcdefghij")
OTHER = Rows(KEYS.sealing_key, b"other...")
AHEAD_S = 1_790_000_000.25 - 100.0


class Case:
    """A member whose server a test plays. Its clock is at 100 s, that of the server as `TIME` says."""

    def __init__(self, name: str = "") -> None:
        self.server = FakeServer()
        self.wire = self.server.begin()
        self.jail = Jail(JailPolicy())
        self.is_on = True
        rows = Rows(KEYS.sealing_key, b"me......", name)
        self.exchange = SentenceExchange(self.server.client, KEYS, rows, self.jail, self.server.now, lambda: self.is_on)
        self.failed: list[object] = []

    def sync(self) -> None:
        """Begin an exchange."""
        done: Deferred[Any] = self.exchange.sync()
        done.addErrback(lambda failure: self.failed.append(failure.trap(RedisError)))

    def answer(self, *items: bytes) -> None:
        """Answer a script."""
        self.wire.answer(b"*%d\r\n" % len(items) + b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in items))

    def begin(self) -> None:
        """Learn that nobody is jailed, and that the stream is at its entry 5."""
        self.sync()
        self.answer(b"5-0")
        self.answer(b"5-0", b"5-0")
        self.wire.asked.clear()

    def told(self) -> list[bytes]:
        """Return what was told last: the words after the keys."""
        return self.wire.asked[-1][6:]


def sealed(key: int, until_s: float, times: int | None = 1) -> bytes:
    """Return the row of another member, about an end by our clock."""
    return OTHER.sealed(key, until_s + AHEAD_S, times)


def test_what_others_tell_is_applied() -> None:
    """With the time that is left by our own clock, and without telling it again."""
    case = Case()
    case.begin()
    case.sync()
    assert case.told()[0] == b"5-0"
    case.answer(b"5-0", b"5-0", b"6-0", sealed(500, 160.0), b"7-0", sealed(502, 170.0), b"8-0", sealed(502, 0.0, None))
    assert [(entry.key, round(entry.until_s, 3)) for entry in case.jail.entries(100.0)] == [(500, 160.0)]
    case.sync()
    assert case.told()[0] == b"8-0"
    assert len(case.told()) == 3
    assert case.exchange.heard == 3


def test_who_passed_a_sentence_is_known() -> None:
    """And stays known where another member tells it again, after the server has lost it."""
    case = Case()
    case.begin()
    case.sync()
    rows = Rows(KEYS.sealing_key, b"other...", "10.0.0.2:7000")
    case.answer(b"5-0", b"5-0", b"6-0", rows.sealed(500, 160.0 + AHEAD_S, 1))
    assert [entry.origin for entry in case.jail.entries(100.0)] == ["10.0.0.2:7000"]
    case.sync()
    case.answer(b"", b"")
    case.sync()
    case.answer(b"")
    row = OTHER.opened(case.told()[6])
    assert row is not None
    assert (case.told()[3], row.origin, row.sender) == (b"keep", "10.0.0.2:7000", b"me......")


def test_other_hosts_hear_of_no_worker() -> None:
    """A sentence that a worker of this host has passed is this member's: other hosts have workers, too."""
    case = Case("10.0.0.1:7000")
    case.jail.absorb([Sentence(500, 160.0, 1, origin_of_worker(1))], 100.0)
    case.sync()
    case.answer(b"")
    row = OTHER.opened(case.told()[6])
    assert row is not None
    assert row.origin == "10.0.0.1:7000"


def test_news_are_told() -> None:
    """A sentence with its end by the server's clock, a release without; both sealed."""
    case = Case()
    case.begin()
    case.jail.add(500, 60.0, 100.0)
    case.jail.add(502, 60.0, 100.0)
    case.jail.release(502)
    case.sync()
    first, second = case.told()[3:7], case.told()[7:11]
    assert [first[0], second[0]] == [b"sentence", b"release"]
    assert int(first[2]) == int((160.0 + AHEAD_S) * 1000)
    row = OTHER.opened(first[3])
    assert row is not None
    assert (row.key, row.times, row.sender) == (500, 0, b"me......")
    case.answer(b"6-0", b"5-0", b"6-0", first[3], b"7-0", second[3])
    case.sync()
    assert case.told()[3:] == []
    assert case.exchange.told == 2


def test_a_newcomer_learns_all_that_run_and_tells_its_own() -> None:
    """In pages; only what nobody has told yet is told."""
    case = Case()
    case.jail.restore([Sentence(900, 300.0, 1), Sentence(902, 50.0, 1)], 100.0)
    case.sync()
    case.answer(b"9-1", *[sealed(1000 + 2 * number, 200.0) for number in range(PAGE)])
    assert case.told() == [b"%d" % PAGE, b"%d" % (2 * PAGE - 1)]
    case.answer(b"9-9", sealed(700, 200.0), b"", b"rubbish")
    assert case.jail.running(100.0) == PAGE + 2
    assert case.exchange.unreadable == 1
    assert case.told()[0] == b"9-1"
    kinds = case.told()[3::4]
    assert set(kinds) == {b"keep"}
    while case.exchange._untold or case.wire.asked:
        case.wire.asked.clear()
        case.answer(b"9-1", b"1-0")


def test_a_lost_stream_is_learnt_anew() -> None:
    """After a restart of the server its entries begin again, or there are none."""
    for newest, oldest in ((b"", b""), (b"2-0", b"1-0"), (b"90-0", b"80-0")):
        case = Case()
        case.begin()
        case.jail.add(500, 60.0, 100.0)
        case.sync()
        case.answer(newest, oldest)
        case.wire.asked.clear()
        case.sync()
        assert case.told() == [b"0", b"%d" % (PAGE - 1)]
        case.answer(newest)
        assert case.told()[:1] == [newest or b"0-0"]
        assert case.told()[3] == b"keep"


def test_nothing_is_applied_where_there_is_no_jail() -> None:
    """An operator that has turned it off wants nobody jailed."""
    case = Case()
    case.begin()
    case.is_on = False
    case.sync()
    case.answer(b"5-0", b"5-0", b"6-0", sealed(500, 160.0))
    assert case.jail.entries(100.0) == []
    assert case.exchange._last == "6-0"


def test_rows_of_strangers_are_counted() -> None:
    """They are skipped, and those behind them are read."""
    case = Case()
    case.begin()
    stranger = Rows(b"x" * 32, b"stranger")
    case.sync()
    case.answer(b"5-0", b"5-0", b"6-0", stranger.sealed(500, 1e9, 1), b"7-0", sealed(502, 160.0))
    assert [entry.key for entry in case.jail.entries(100.0)] == [502]
    assert case.exchange.unreadable == 1


def test_a_server_that_is_down_is_not_asked() -> None:
    """What was not told yet waits; what was lost on its way does not come again."""
    case = Case()
    case.begin()
    case.jail.add(500, 60.0, 100.0)
    case.wire.close()
    case.sync()
    assert case.jail.has_news
    assert case.failed == []
    case.server.clock.advance(0.1)
    case.server.wire.greet()
    case.sync()
    case.server.wire.answer(b"-NOPERM no\r\n")
    assert len(case.failed) == 1
    assert not case.jail.has_news


def test_much_that_is_new_is_read_at_once() -> None:
    """A full page asks for the next one."""
    case = Case()
    case.begin()
    case.sync()
    entries = [part for number in range(PAGE) for part in (b"6-%d" % number, sealed(1000 + 2 * number, 200.0))]
    case.answer(b"5-0", b"5-0", *entries)
    assert case.told()[0] == b"6-%d" % (PAGE - 1)
    case.answer(b"6-600", b"5-0", b"6-600", sealed(10, 200.0))
    assert case.jail.running(100.0) == PAGE + 1
