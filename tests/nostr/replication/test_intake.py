"""What is taken in from other hosts, what is not, and what waits."""

from __future__ import annotations

import pytest
from tests.support.nostr_hosts import HostLog
from tests.support.nostr_relay import ALICE, WALL_S, World, event, json_of
from twisted.internet.defer import Deferred

from pyryrelay.broadcast import Entry
from pyryrelay.nostr.events import Event
from pyryrelay.nostr.replication import intake as module
from pyryrelay.nostr.replication.entries import MAX_AGE_S, body_of
from pyryrelay.nostr.replication.intake import AT_ONCE, Intake
from pyryrelay.nostr.replication.totals import Totals
from pyryrelay.nostr.storage.interface import Outcome


class Bench:
    """An intake with a relay of fakes."""

    def __init__(self, **options: object) -> None:
        self.world = World(**options)
        self.totals = Totals()
        self.log = HostLog()
        self.seqs: list[int] = []
        self.intake = Intake(self.world.relay, self.world.relay.store, self.seqs.extend, self.totals, self.log)

    def take(self, *bodies: bytes, age_s: float = 0.0) -> Deferred[None]:
        """Take bodies in."""
        return self.intake.take([Entry(str(place), body, age_s) for place, body in enumerate(bodies)])

    @property
    def stored(self) -> list[bytes]:
        """What is stored."""
        return [json for _, json in self.world.writer.stored]

    @property
    def outcomes(self) -> dict[str, int]:
        """The outcomes that there were."""
        return {outcome: count for outcome, count in self.totals.taken_in.items() if count}


def has_fired(deferred: Deferred[None]) -> bool:
    """Tell whether a Deferred has fired."""
    return bool(deferred.called)


def stored_body(one: Event) -> bytes:
    """Return the body of a stored event."""
    return body_of(json_of(one))


def test_events_are_stored_in_order() -> None:
    """And their numbers are told, so that they are not announced again."""
    bench = Bench()
    events = [event(str(number)) for number in range(AT_ONCE + 10)]
    done = bench.take(*map(stored_body, events))
    bench.world.turn()
    assert done.called
    assert bench.stored == [json_of(one) for one in events]
    assert bench.seqs == [*range(1, AT_ONCE + 11)]
    assert bench.outcomes == {"stored": AT_ONCE + 10}
    assert bench.world.relay.stored_events == AT_ONCE + 10


WRONG_ID = event("x").id.encode()


@pytest.mark.parametrize(
    ("body", "outcome", "is_lie"),
    [
        (b"", "unknown", False),
        (b"!{}", "unknown", False),
        (b"e{", "malformed", True),
        (b"e[]", "malformed", True),
        (stored_body(event("bad", sig="0" * 128)), "signature", True),
        (stored_body(event("bad", author="f" * 64)), "signature", True),
        (stored_body(event("y")).replace(event("y").id.encode(), WRONG_ID), "id", True),
        (stored_body(event("e", kind=20_001)), "malformed", True),
        (body_of(json_of(event("s")), is_ephemeral=True), "malformed", True),
        (stored_body(event("x" * 2000)), "event_size", False),
        (stored_body(event("old", tags=[["expiration", str(WALL_S)]])), "expired", False),
        (stored_body(event("secret", kind=22_242)), "credential", False),
        (stored_body(event("no", author="b0" * 32)), "banned_key", False),
        (stored_body(event("no", kind=7)), "kind", False),
        (stored_body(event("no", kind=5)), "deletion", False),
    ],
)
def test_what_is_not_taken_in(body: bytes, outcome: str, is_lie: bool) -> None:
    """What no event is, what this relay could not serve, and what its own lists refuse; the rest goes on."""
    bench = Bench(nostr_max_event_bytes=1500, nostr_deny_pubkey=frozenset({"b0" * 32}), nostr_deny_kind=frozenset({7}))
    good = event("good")
    assert bench.take(body, stored_body(good)).called
    assert bench.stored == [json_of(good)]
    assert bench.outcomes == {outcome: 1, "stored": 1}
    assert bool(bench.log.lines) == is_lie


def test_no_quota_and_no_access_rule_holds() -> None:
    """Events were paid for, and their authors known, where they were published; old ones come late after an outage."""
    bench = Bench(
        nostr_write="allowed-authors",
        nostr_reject_older_s=60.0,
        nostr_min_pow=20,
        nostr_protected=False,
    )
    for number in range(3):
        assert bench.take(stored_body(event(str(number), created_at=WALL_S - 10_000, tags=[["-"]]))).called
    assert bench.outcomes == {"stored": 3}


def test_what_is_known_is_not_verified_again() -> None:
    """Neither what was stored lately, nor what verifiers find in the store."""
    bench = Bench()
    first, second = event("1"), event("2")
    bench.take(stored_body(first))
    bench.world.verifiers.known.add(second.id)
    bench.take(stored_body(first), stored_body(second))
    assert bench.world.verifiers.asked == 2
    assert bench.outcomes == {"stored": 1, "duplicate": 2}


@pytest.mark.parametrize(
    ("outcome", "word"), [(Outcome.SUPERSEDED, "superseded"), (Outcome.DELETED, "deleted"), (Outcome.FAILED, "failed")]
)
def test_the_store_decides(outcome: Outcome, word: str) -> None:
    """What it does not keep is counted by its reason, and delivered to nobody."""
    bench = Bench()
    client = bench.world.client()
    client.ask(["REQ", "s", {"limit": 0}])
    one = event("x")
    bench.world.writer.outcomes[one.id] = outcome
    assert bench.take(stored_body(one)).called
    assert bench.outcomes == {word: 1}
    assert bench.seqs == []
    assert not [message for message in client.take() if message[0] == "EVENT"]


def test_verifiers_that_fail_are_asked_again() -> None:
    """Everything behind them waits."""
    bench = Bench()
    bench.world.verifiers.is_prompt = False
    done = bench.take(stored_body(event("x")))
    bench.world.verifiers.fail()
    bench.world.clock.advance(module.RETRY_S)
    assert not has_fired(done)
    bench.world.verifiers.answer()
    assert has_fired(done)
    assert bench.outcomes == {"stored": 1}


def test_a_writer_that_fails_is_asked_again() -> None:
    """The signatures are not."""
    bench = Bench()
    bench.world.writer.is_prompt = False
    done = bench.take(stored_body(event("x")))
    for _ in range(3):
        bench.world.writer.fail()
        assert not has_fired(done)
        bench.world.clock.advance(module.RETRY_S)
    bench.world.writer.commit()
    assert has_fired(done)
    assert bench.world.verifiers.asked == 1


@pytest.mark.parametrize("name", ["is_behind", "is_behind_elsewhere"])
def test_nothing_is_stored_while_delivery_is_behind(name: str) -> None:
    """As from publishers, nothing more is taken until subscribers have got what there is."""
    bench = Bench()
    setattr(bench.world.relay.congestion, name, True)
    done = bench.take(stored_body(event("x")))
    bench.world.clock.advance(module.BEHIND_S)
    assert not has_fired(done)
    setattr(bench.world.relay.congestion, name, False)
    bench.world.clock.advance(module.BEHIND_S)
    assert has_fired(done)


def test_nothing_happens_after_the_end() -> None:
    """What was being verified is not stored, and is never done."""
    bench = Bench()
    bench.world.verifiers.is_prompt = False
    done = bench.take(stored_body(event("x")))
    bench.intake.stop()
    bench.world.verifiers.answer()
    bench.world.clock.advance(60)
    assert not has_fired(done)
    assert bench.stored == []


def test_ephemeral_events_are_delivered_once() -> None:
    """If they are young enough, whichever host they come from first."""
    bench = Bench()
    client = bench.world.client()
    client.ask(["REQ", "s", {"kinds": [20_001]}])
    bench.world.readers.running[0].answer()
    client.take()
    one, late = event("1", kind=20_001), event("2", kind=20_001)
    body = body_of(json_of(one), is_ephemeral=True)
    bench.take(body, body)
    bench.take(body)
    bench.take(body_of(json_of(late), is_ephemeral=True), age_s=MAX_AGE_S + 0.1)
    assert [message[2]["id"] for message in client.take()] == [one.id]
    assert bench.outcomes == {"ephemeral": 1, "duplicate": 2, "late": 1}
    assert client.publish(one)[0][3].startswith("duplicate")


def test_an_entry_without_use_lets_others_have_a_turn() -> None:
    """However many there are, each turn of the reactor is short."""
    bench = Bench()
    done = bench.take(*[b"?"] * (3 * AT_ONCE))
    bench.world.one_turn()
    assert not has_fired(done)
    bench.world.one_turn()
    assert has_fired(done)
    assert ALICE not in str(bench.log.lines)
