"""What workers tell each other: ephemeral events and who hears them, spent tokens, and that one is behind."""

from __future__ import annotations

from typing import Any

from tests.support.children import FakeChildren
from tests.support.nostr_relay import ALICE, as_dict, event
from tests.support.nostr_workers import Host, received

from pyryrelay.guard import Quota
from pyryrelay.nostr.serving.relay import CHARGE_S
from pyryrelay.nostr.workers.shared.exchange import QUESTION
from pyryrelay.nostr.workers.shared.others import ANSWER_S, LOOK_S, MISSED, Others

NOBODY = [True, "mute: nobody was listening"]


def host(count: int = 2, **options: Any) -> Host:
    """Return workers that know each other."""
    made = Host(count, **options)
    made.settle()
    return made


def test_the_number_of_others_is_known() -> None:
    """It follows connections."""
    assert [worker.others.count for worker in host(3).workers] == [2, 2, 2]


def test_ephemeral_events_reach_all_workers_once() -> None:
    """Whether its publisher's worker has a subscription or not, and whichever copy comes first."""
    workers = host(3)
    listeners = [worker.client() for worker in workers.workers]
    for client in listeners:
        client.send(["REQ", "s", {"kinds": [20001], "limit": 0}])
        client.take()
    one = event("passing", kind=20001)
    publishers = [workers.workers[0].client(), workers.workers[1].client()]
    for publisher in publishers:
        publisher.send(["EVENT", as_dict(one)])
    workers.settle()
    for client in listeners:
        assert received(client.take(), "s") == [one.id]
    assert [publisher.take()[0][2] for publisher in publishers] == [True, True]


def test_a_publisher_is_told_whether_anybody_listens_anywhere() -> None:
    """The answer waits for the other workers if nobody listens in its own."""
    workers = host(3)
    publisher = workers.workers[0].client()
    one, other = event("one", kind=20001), event("other", kind=20001)
    publisher.send(["EVENT", as_dict(one)])
    assert publisher.take() == []
    workers.settle()
    assert publisher.take() == [["OK", one.id, *NOBODY]]
    listener = workers.workers[2].client()
    listener.send(["REQ", "s", {"kinds": [20001], "limit": 0}])
    publisher.send(["EVENT", as_dict(other)])
    workers.settle()
    assert publisher.take() == [["OK", other.id, True, ""]]
    assert workers.workers[0].relay.counts.events["ephemeral"] == 2


def test_a_worker_that_does_not_answer_keeps_nobody_waiting() -> None:
    """After a second, or when it has gone, the publisher is told that the event was delivered, as it may have been."""
    workers = host(2)
    publisher = workers.workers[0].client()
    first, second = event("first", kind=20001), event("second", kind=20001)
    publisher.send(["EVENT", as_dict(first)])
    workers.clock.advance(ANSWER_S)
    workers.workers[0].relay.tick()
    assert publisher.take() == [["OK", first.id, True, ""]]
    publisher.send(["EVENT", as_dict(second)])
    workers.exchange.restart(0)
    for worker in workers.workers:
        worker.others.lost(0)
    assert publisher.take() == [["OK", second.id, True, ""]]


def test_without_others_the_answer_does_not_wait() -> None:
    """One worker that is alone for now answers at once."""
    workers = host(1)
    publisher = workers.workers[0].client()
    one = event("one", kind=20001)
    publisher.send(["EVENT", as_dict(one)])
    assert publisher.take() == [["OK", one.id, *NOBODY]]


def test_kept_ephemeral_events_are_served_by_all_workers() -> None:
    """A REQ and a COUNT find them, whichever worker has accepted them."""
    workers = host(2, nostr_ephemeral_lifetime_s=60.0)
    one = event("kept", kind=20001)
    workers.workers[0].client().send(["EVENT", as_dict(one)])
    workers.settle()
    client = workers.workers[1].client()
    client.send(["REQ", "s", {"kinds": [20001]}])
    workers.settle()
    assert received(client.take(), "s") == [one.id, "EOSE"]


def test_authors_have_one_quota_in_all_workers() -> None:
    """What a worker lets through counts in the others, soon; with the relay's quota and repeated contents as well."""
    workers = host(2, nostr_pubkey_quota=Quota.parse("4/minute"))
    publishers = [worker.client() for worker in workers.workers]
    accepted = 0
    for number in range(10):
        publisher = publishers[number % 2]
        publisher.send(["EVENT", as_dict(event(str(number), author=ALICE))])
        workers.clock.advance(CHARGE_S)
        workers.settle()
        accepted += sum(answer[2] for answer in publisher.take())
    assert accepted == 4


def test_the_quota_of_the_relay_is_one() -> None:
    """Each event of any worker takes a token."""
    workers = host(2, nostr_relay_event_quota=Quota.parse("4/minute"))
    publishers = [worker.client() for worker in workers.workers]
    accepted = 0
    for number in range(10):
        publisher = publishers[number % 2]
        publisher.send(["EVENT", as_dict(event(str(number)))])
        workers.clock.advance(CHARGE_S)
        workers.settle()
        accepted += sum(answer[2] for answer in publisher.take())
    assert accepted == 4


def test_nobody_publishes_while_one_worker_is_behind() -> None:
    """Its slow delivery stops publishers of all workers, until it has caught up or has gone."""
    workers = host(2)
    one, other = workers.workers
    one.relay.fanout.on_behind(True)
    workers.settle()
    assert other.relay.congestion.is_behind_elsewhere
    one.relay.fanout.on_behind(False)
    workers.settle()
    assert [worker.relay.congestion.is_behind_elsewhere for worker in workers.workers] == [False, False]
    one.relay.fanout.on_behind(True)
    workers.settle()
    third = type(one)(workers, one.relay.options)
    workers.settle()
    assert third.relay.congestion.is_behind_elsewhere
    assert other.relay.congestion.is_behind_elsewhere
    one.others.close()
    workers.settle()
    assert not other.relay.congestion.is_behind_elsewhere


def test_an_exchange_that_hangs_is_left() -> None:
    """What it does not read is not kept; the worker goes on alone, and connects again."""
    children = FakeChildren()
    workers = host(2)
    relay = workers.workers[0].relay
    others = Others(children.services, relay)
    others.start()
    hung = children.last
    hung.answer_body(bytes(4) + (1).to_bytes(4, "big"))
    assert others.count == 1
    hung.bodies.clear()
    for number in range(1, 4):
        others.tick(number * LOOK_S)
    assert hung.bodies == [QUESTION]
    hung.answer_body(QUESTION)
    for number in range(4, 5 + MISSED):
        assert not hung.is_killed
        others.tick(number * LOOK_S)
    assert hung.is_killed
    assert others.count == 0
    assert children.restarts == [("hub", "it does not answer", 0.0)]
    children.clock.advance(0)
    assert children.last is not hung
    children.last.answer_body(bytes(4) + (1).to_bytes(4, "big"))
    assert others.count == 1
    others.close()
    others.tick(100.0)


def test_an_exchange_that_goes_on_is_kept() -> None:
    """For hours, and whatever else happens."""
    workers = host(2)
    ends = list(workers.exchange.ends.values())
    for _ in range(3 * MISSED):
        workers.pass_s(LOOK_S)
    assert list(workers.exchange.ends.values()) == ends
    assert [worker.others.count for worker in workers.workers] == [1, 1]
