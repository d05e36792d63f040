"""Charging what was admitted: one round in flight, nothing told twice, nothing waited for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail

from pyryrelay.cluster.keys import Keys
from pyryrelay.cluster.limits.quotas import MOST_KEYS, QuotaPump
from pyryrelay.cluster.redis.interface import AnswerError, DownError
from pyryrelay.cluster.shards import Shards
from pyryrelay.guard import ADDRESS_LADDER, AddressKey, ClusterBuckets, HashLadder, Quota, Tracking
from pyryrelay.guard.client import named

QUOTA = Quota.parse("1/second burst 5")
TRACKING = Tracking(10_000, ADDRESS_LADDER)
KEYS = Keys("relay", b"0123456789abcdefghij")


class FakeClient:
    """A server that adds up what it is charged, and answers when the test says so."""

    def __init__(self) -> None:
        self.is_up = True
        self.waiting: list[tuple[list[bytes], list[int], Deferred[Any]]] = []
        self.owed = Counter[bytes]()
        self.sizes: list[int] = []

    def call(self, script: object, keys: Sequence[Any], args: Sequence[Any]) -> Deferred[Any]:
        """Take a call, or fail."""
        if not self.is_up:
            return fail(DownError("down"))
        answer: Deferred[Any] = Deferred()
        self.waiting.append((list(keys), [int(each) for each in args[::2]], answer))
        self.sizes.append(len(keys))
        return answer

    def answer(self) -> None:
        """Charge what the oldest call asks for, and answer it."""
        keys, charges, answer = self.waiting.pop(0)
        for key, charge in zip(keys, charges, strict=True):
            self.owed[key] += charge
        answer.callback([self.owed[key] for key in keys])


class Case:
    """A pump over servers that a test plays, and the turns of the reactor."""

    def __init__(self, servers: int = 1) -> None:
        self.clients = [FakeClient() for _ in range(servers)]
        self.table: ClusterBuckets[AddressKey] = ClusterBuckets(QUOTA, TRACKING)
        self.tables: dict[str, ClusterBuckets[Any]] = {"upgrade": self.table}
        self.turn: list[Callable[[], object]] = []
        self.problems: list[tuple[int, str]] = []
        shards = Shards(self.clients)  # type: ignore[arg-type]
        self.pump = QuotaPump(
            shards,
            KEYS,
            lambda: self.tables,
            lambda: 0.0,
            self.turn.append,
            lambda number, problem: self.problems.append((number, problem)),
        )
        self.table.ledger.on_change = self.pump.wake

    def run(self) -> None:
        """Run what was put off to the next turn."""
        turn, self.turn[:] = list(self.turn), []
        for call in turn:
            call()

    def spend(self, number: int, tokens: int = 1) -> None:
        """Admit attempts of one of many addresses."""
        for _ in range(tokens):
            self.table.spend(address(number), 0.0)


def address(number: int) -> AddressKey:
    """Return the number under which one of many addresses is counted."""
    return named(f"198.{number >> 16}.{number >> 8 & 255}.{number & 255}").key


def test_one_call_is_in_flight() -> None:
    """What is spent meanwhile goes with the next one, all of it together."""
    case, client = Case(), None
    client = case.clients[0]
    case.spend(1)
    assert client.sizes == []
    case.spend(2, 3)
    case.run()
    assert client.sizes == [2]
    assert client.waiting[0][1] == [1_000_000, 3_000_000]
    for _ in range(3):
        case.spend(1)
        case.spend(3)
        case.run()
    assert client.sizes == [2]
    client.answer()
    case.run()
    assert client.sizes == [2, 2]
    assert client.waiting[0][1] == [3_000_000, 3_000_000]
    client.answer()
    case.run()
    assert (client.waiting, case.pump.pending, case.pump.charged, case.pump.debts) == ([], 0, 4, 4)


def test_a_call_has_at_most_two_hundred_keys() -> None:
    """However many addresses there are, the rest follows."""
    case = Case()
    for number in range(450):
        case.spend(number)
    case.run()
    while case.clients[0].waiting:
        case.clients[0].answer()
        case.run()
    assert case.clients[0].sizes == [MOST_KEYS, MOST_KEYS, 50]
    assert sum(case.clients[0].owed.values()) == 450 * 1_000_000


def test_debts_are_heard() -> None:
    """What others spent is missing here, beyond the empty bucket."""
    case = Case()
    case.spend(1)
    case.run()
    keys, _, answer = case.clients[0].waiting.pop()
    assert len(keys) == 1
    answer.callback([7_000_000])
    assert case.table.wait_s(address(1), 0.0) == 3.0


@pytest.mark.parametrize("error", [DownError("no answer"), AnswerError("NOPERM evalsha")])
def test_what_is_lost_is_dropped_and_counted(error: Exception) -> None:
    """It is not told again; an error that the server answered is told of."""
    case = Case()
    case.spend(1, 3)
    case.spend(2)
    case.run()
    case.spend(2)
    case.clients[0].waiting.pop()[2].errback(error)
    assert case.pump.dropped == 4
    assert case.problems == ([] if isinstance(error, DownError) else [(0, "NOPERM evalsha")])
    case.run()
    assert case.clients[0].waiting[0][1] == [1_000_000]


@pytest.mark.parametrize("answer", [[], [1, 2, 3], None, [b"x"]])
def test_an_odd_answer_is_an_error(answer: Any) -> None:
    """Of the server, not of ours: the pump goes on."""
    case = Case()
    case.spend(1)
    case.run()
    case.clients[0].waiting.pop()[2].callback(answer)
    assert len(case.problems) == 1
    case.spend(1)
    case.run()
    assert len(case.clients[0].waiting) == 1


def test_a_server_that_is_down_is_not_asked() -> None:
    """What it would be told is dropped at once, so nothing piles up; the other server is asked."""
    case = Case(2)
    case.clients[1].is_up = False
    for number in range(100):
        case.spend(number)
    case.run()
    asked = case.clients[0].sizes[0]
    assert 25 < asked < 75
    assert case.pump.dropped == 100 - asked
    case.clients[0].answer()
    case.run()
    assert case.pump.pending == 0
    case.clients[0].is_up = False
    for number in range(500):
        case.spend(number)
    for _ in range(5):
        case.run()
    assert case.pump.pending == 0
    assert case.turn == []


def test_a_stopped_pump_asks_nothing() -> None:
    """Also if it was about to."""
    case = Case()
    case.spend(1)
    case.pump.stop()
    case.run()
    case.spend(2)
    case.run()
    assert case.clients[0].sizes == []


def test_a_new_quota_has_new_buckets() -> None:
    """Members that have another quota meanwhile, during a rolling reload, do not spoil those of each other."""
    case = Case()
    case.spend(1)
    case.run()
    ((first,), _, _) = case.clients[0].waiting[0]
    case.clients[0].answer()
    case.table = case.tables["upgrade"] = ClusterBuckets(Quota.parse("2/second burst 5"), TRACKING)
    case.table.ledger.on_change = case.pump.wake
    case.spend(1)
    case.run()
    ((second,), charges, _) = case.clients[0].waiting[0]
    assert second != first
    assert charges == [500_000]


def test_keys_are_numbers_or_bytes() -> None:
    """Tables of protocols have keys of their own, and a name in common is none."""
    case = Case()
    authors = ClusterBuckets[bytes](QUOTA, Tracking(10_000, HashLadder([b""])))
    authors.ledger.on_change = case.pump.wake
    case.tables["nostr-author"] = authors
    author, number = b"\x01" * 17, int.from_bytes(b"\x01" * 17, "big")
    authors.spend(author, 0.0, 2)
    case.table.spend(number, 0.0)
    case.run()
    ((first, second), charges, answer) = case.clients[0].waiting.pop()
    assert first != second
    assert sorted(charges) == [1_000_000, 2_000_000]
    answer.callback([9_000_000 if charge == 2_000_000 else 1_000_000 for charge in charges])
    assert authors.wait_s(author, 0.0) == 5.0
    assert case.table.wait_s(number, 0.0) == 0.0


def test_no_table_waits_for_ever() -> None:
    """While one has more changes than a call takes, those of another one are told, too."""
    case = Case()
    other = case.tables["other"] = ClusterBuckets[AddressKey](QUOTA, TRACKING)
    other.spend(address(1), 0.0)
    for number in range(2_000):
        case.spend(number)
    case.run()
    for _ in range(3):
        case.clients[0].answer()
        case.run()
    assert (other.pending, case.table.pending > 1_000) == (0, True)


def test_a_quota_that_was_turned_off_is_forgotten() -> None:
    """A reload removed it while a call was in flight: the answer is of no use, and the buckets take no more memory."""
    case = Case()
    case.spend(1)
    case.run()
    case.tables.clear()
    case.clients[0].answer()
    case.run()
    assert case.pump.pending == 0
    other = case.tables["other"] = ClusterBuckets[AddressKey](QUOTA, TRACKING)
    other.ledger.on_change = case.pump.wake
    for _ in range(2):
        other.spend(address(1), 0.0)
        case.run()
        case.clients[0].answer()
    assert set(case.pump._kinds) == {"other"}


@pytest.mark.parametrize("micros", [-(1 << 62), -1, 0, 1 << 62, 10**30, float("nan"), float("inf"), True])
def test_a_lying_server_locks_nobody_out_for_long(micros: Any) -> None:
    """Two full buckets at most, and it makes no bucket fuller."""
    case = Case()
    case.spend(1, 5)
    case.run()
    case.clients[0].waiting.pop()[2].callback([micros])
    assert 1.0 <= case.table.wait_s(address(1), 0.0) <= 2 * QUOTA.full_after_s - QUOTA.emission_interval_s * 4
    assert case.problems == []
    case.spend(2)
    case.run()
    assert len(case.clients[0].waiting) == 1


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("spend"), st.integers(0, 5)),
            st.tuples(st.sampled_from(["turn", "answer", "lose", "down", "up"]), st.integers(0, 1)),
        ),
        max_size=80,
    )
)
def test_each_token_is_charged_once_or_counted_as_dropped(steps: list[tuple[str, int]]) -> None:
    """In whatever order calls are made, answered and lost."""
    case, admitted = Case(2), 0
    for action, number in steps:
        client = case.clients[number % 2]
        if action == "spend":
            admitted += case.table.spend(address(number), 0.0).allowed
        elif action == "turn":
            case.run()
        elif action == "answer" and client.waiting:
            client.answer()
        elif action == "lose" and client.waiting:
            client.waiting.pop(0)[2].errback(DownError("lost"))
        elif action in ("up", "down"):
            client.is_up = action == "up"
        assert all(len(each.waiting) <= 1 for each in case.clients)
    for _ in range(9):
        case.run()
        for client in case.clients:
            if client.waiting:
                client.answer()
    charged = sum(sum(client.owed.values()) for client in case.clients)
    assert charged == (admitted - case.pump.dropped) * 1_000_000
    assert case.pump.pending == 0
