"""What workers tell each other: ephemeral events and who hears them, spent tokens, and that one is behind."""

from __future__ import annotations

from typing import Any

from tests.support.nostr_relay import ALICE, as_dict, event
from tests.support.nostr_workers import Host, received

from pyryrelay.guard import Quota
from pyryrelay.nostr.serving.relay import CHARGE_S
from pyryrelay.nostr.workers.shared.others import ANSWER_S

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
