"""Ask the directory who holds a key, and keep what is held here known to it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.directory_redis import TestRedis
from tests.support.instances import NAMES, SECRET, Held, World
from tests.support.resp import RespClient, needs_resp_server
from twisted.internet.defer import CancelledError, Deferred

from pyryrelay.cluster.directory.directory import HOPE_S, WAIT_S, NoOwner
from pyryrelay.cluster.directory.scripts import LEASE_US
from pyryrelay.cluster.directory.shard import ASSERT_S, BATCH
from pyryrelay.cluster.keys import PARTITIONS
from pyryrelay.cluster.redis.interface import DownError

pytestmark = needs_resp_server
LEASE_S = LEASE_US / 1e6


@pytest.fixture
def world(client: RespClient) -> World:
    """Return instances ``a`` and ``b``, which have been running for a while."""
    world = World(client)
    world.start("a:1")
    world.start("b:1")
    world.settle()
    return world


def outcome(deferred: Deferred[Any]) -> list[Any]:
    """Return a list that the result is added to."""
    found: list[Any] = []
    deferred.addBoth(found.append)
    return found


# Claims and looks


def test_the_first_claim_holds_the_key(world: World) -> None:
    """Another instance is told who holds it, by claims and looks alike."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    assert a.seat("x") == [NoOwner.HERE]
    assert outcome(b.claim("x")) == [a.member]
    assert outcome(b.directory.look("x")) == [a.member]
    assert outcome(b.directory.look("y")) == [NoOwner.NOBODY]
    assert (b.directory.figures.asked["claim", "owner"], b.directory.figures.asked["look", "nobody"]) == (1, 1)
    assert len(a.directory.claims) == 1


def test_a_vacated_key_is_free_at_once(world: World) -> None:
    """A release takes one call, and counts."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    a.seat("x")
    a.vacate("x")
    assert a.directory.figures.released == 1
    assert b.seat("x") == [NoOwner.HERE]


def test_questions_gather_while_a_call_is_under_way(world: World) -> None:
    """One call is in flight; the next has all that was asked meanwhile, in order."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    a.redis.is_held = True
    before = len(a.redis.calls)
    first = a.seat("x")
    others = [a.seat(f"id-{number}") for number in range(BATCH + 1)]
    a.held.keys["z"] = None
    a.vacate("z")
    looks = [outcome(a.directory.look("x")) for _ in range(3)]
    a.redis.let_go()
    assert first == [NoOwner.HERE]
    assert all(answers == [NoOwner.HERE] for answers in others)
    assert looks == [[NoOwner.HERE]] * 3
    assert len(a.redis.calls) - before == 3
    assert outcome(b.directory.look("id-5")) == [a.member]


def test_a_look_can_be_given_up(world: World) -> None:
    """The others that ask for the same key get their answer."""
    a = world.instances["a:1"]
    a.redis.is_held = True
    first, second = a.directory.look("x"), a.directory.look("x")
    found = outcome(first), outcome(second)
    first.cancel()
    a.redis.let_go()
    assert isinstance(found[0][0].value, CancelledError)
    assert found[1] == [NoOwner.NOBODY]


def test_a_client_that_leaves_holds_nothing(world: World) -> None:
    """What was granted to a client that has left is released."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    a.redis.is_held = True
    claim = a.claim("x")
    found = outcome(claim)
    claim.cancel()
    a.redis.let_go()
    assert isinstance(found[0].value, CancelledError)
    assert outcome(b.claim("x")) == [a.member]
    world.pass_time(2.0)
    assert world.entry("x") is None
    assert b.seat("x") == [NoOwner.HERE]


def test_a_client_that_leaves_takes_nothing_from_another(world: World) -> None:
    """The second client of the same key and instance keeps it, and its entry."""
    a = world.instances["a:1"]
    a.redis.is_held = True
    first = a.claim("x")
    outcome(first)
    second = a.seat("x")
    first.cancel()
    a.redis.let_go()
    assert second == [NoOwner.HERE]
    world.pass_time(5.0)
    assert world.entry("x") == "a:1"


def test_a_key_that_is_vacated_while_another_client_waits(world: World) -> None:
    """The entry is not released under the client that waits."""
    a = world.instances["a:1"]
    a.seat("x")
    a.redis.is_held = True
    waiting = a.seat("x")
    a.vacate("x")
    a.redis.let_go()
    assert waiting == [NoOwner.HERE]
    world.pass_time(5.0)
    assert world.entry("x") == "a:1"


def test_an_address_without_proof_is_not_used(world: World) -> None:
    """Who can write to Redis cannot send peers elsewhere."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    a.seat("x")
    partition = NAMES.partitions[NAMES.of("x")[0]]
    boot, until, _, mac, load = world.client("HGET", partition.leases, "a:1").split()
    world.client("HSET", partition.leases, "a:1", f"{boot} {until} 192.0.2.66:1 {mac} {load}")
    assert outcome(b.directory.look("x")) == [NoOwner.FORGED]
    assert outcome(b.claim("x")) == [NoOwner.FORGED]


def test_a_writer_can_end_a_hold_and_no_more(world: World) -> None:
    """An entry with a later epoch counts as taken over: the peers here are closed, and the next claim is served."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    a.seat("x")
    slot = NAMES.of("x")[1]
    world.client("SET", slot, f"b:1 boot1 {2**52}")
    world.pass_time(ASSERT_S + 1.0)
    assert a.held.evicted == ["x"]
    # Only instances are named as owners, and the one that the entry names serves the key if it is asked.
    assert outcome(a.directory.claim("x")) == [b.member]
    assert b.seat("x") == [NoOwner.HERE]
    world.pass_time(ASSERT_S + 1.0)
    assert (b.held.evicted, world.entry("x")) == ([], "b:1")


def test_an_instance_that_lies_cannot_take_what_is_held(world: World) -> None:
    """With the secret, but by the scripts, it gets nothing while the holder lives, whatever it claims or asserts."""
    a, liar = world.instances["a:1"], world.instances["b:1"]
    a.seat("x")
    for _ in range(3):
        assert outcome(liar.directory.claim("x")) == [a.member]
        liar.held.keys["x"] = None  # seated without an answer
        liar.directory.shards[0].release("x", 1)
        world.pass_time(ASSERT_S + 1.0)
        assert liar.held.evicted.pop() == "x"
    assert (a.held.evicted, world.entry("x")) == ([], "a:1")


# Troubles of Redis


def test_a_directory_that_is_away_is_not_waited_for(world: World) -> None:
    """Claims and looks get their answer at once, and an outage counts once."""
    a = world.instances["a:1"]
    a.redis.is_up = False
    assert outcome(a.claim("x")) == [NoOwner.DOWN]
    assert outcome(a.directory.look("x")) == [NoOwner.DOWN]
    assert a.directory.may_serve("x")
    world.pass_time(1.0)
    assert a.directory.figures.outages == 1


def test_a_call_that_fails_is_an_outage(world: World) -> None:
    """A claim whose answer was lost is answered as if it was not made."""
    a = world.instances["a:1"]
    a.redis.is_held = True
    found = outcome(a.claim("x")), outcome(a.directory.look("x"))
    a.redis.fail_held()
    assert found == ([NoOwner.DOWN], [NoOwner.DOWN])


def test_a_claim_whose_answer_was_lost_leaves_nothing(world: World) -> None:
    """It was executed, but its client was refused. One that is served without an answer keeps its entry."""
    a = world.instances["a:1"]
    a.redis.is_held = True
    found = outcome(a.claim("x")), outcome(a.claim("y"))
    a.redis.fail_held()
    assert found == ([NoOwner.DOWN], [NoOwner.DOWN])
    assert world.entry("x") == "a:1"
    a.held.keys["y"] = None
    world.pass_time(2.0)
    a.redis.is_up = True
    a.redis.connections += 1
    world.pass_time(1.0)
    assert (world.entry("x"), world.entry("y")) == (None, "a:1")


def test_what_was_seated_in_an_outage_is_asserted(world: World) -> None:
    """As soon as Redis is back, it is confirmed."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    a.redis.is_up = False
    a.held.keys["x"] = None
    assert a.directory.unconfirmed == 1
    world.pass_time(1.0)
    a.redis.is_up = True
    world.pass_time(0.5)
    assert a.directory.unconfirmed == 0
    assert outcome(b.claim("x")) == [a.member]


def test_of_two_that_seated_a_key_in_an_outage_one_is_left(world: World) -> None:
    """The one that asserts later gives way, and counts that."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    for instance in (a, b):
        instance.redis.is_up = False
        instance.held.keys["x"] = None
    world.pass_time(1.0)
    for instance in (a, b):
        instance.redis.is_up = True
        world.pass_time(0.5)
    assert ("x" in a.held.keys, b.held.evicted) == (True, ["x"])
    assert (a.directory.figures.lost, b.directory.figures.lost) == (0, 1)
    assert world.entry("x") == "a:1"


def test_a_new_data_set_is_filled_before_claims_are_answered(world: World) -> None:
    """A claim for a key that is held elsewhere waits until that is known."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    a.seat("x")
    a.redis.is_up = False
    world.restart_empty()
    world.pass_time(2.0)
    waiting = outcome(b.claim("x"))
    assert waiting == []
    a.redis.is_up = True
    world.pass_time(1.0)
    assert waiting == [a.member]


def test_a_new_data_set_answers_in_the_end(world: World) -> None:
    """A claim for a key that nobody asserts is granted when the warm-up is over."""
    b = world.instances["b:1"]
    world.restart_empty()
    waiting = b.seat("x")
    world.pass_time(2.9)
    assert waiting == []
    world.pass_time(1.0)
    assert waiting == [NoOwner.HERE]


@pytest.mark.parametrize(("early_s", "hangs_s"), [(0.0, 7.0), (1.9, 4.2)])
def test_a_server_that_hung_gives_nothing_away(world: World, early_s: float, hangs_s: float) -> None:
    """The instance that comes back first waits for the holder, whose lease may have lapsed while others' last."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    a.seat("x")
    a.is_stopped = True
    world.pass_time(early_s)
    a.is_stopped = a.redis.is_up = b.redis.is_up = False
    world.pass_time(hangs_s)
    b.redis.is_up = True
    claimed, looked = b.seat("x"), outcome(b.directory.look("x"))
    world.pass_time(1.0)
    assert (claimed, looked) == ([], [])
    a.redis.is_up = True
    world.pass_time(0.5)
    assert (claimed, looked) == ([a.member], [a.member])
    assert (list(a.held.keys), a.held.evicted) == (["x"], [])


def test_the_keys_of_one_that_died_while_the_server_hung(world: World) -> None:
    """They are claimed anew when the warm-up is over."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    a.seat("x")
    a.is_stopped, b.redis.is_up = True, False
    world.pass_time(7.0)
    b.redis.is_up = True
    answers = b.seat("x")
    world.pass_time(2.9)
    assert answers == []
    world.pass_time(1.0)
    assert answers == [NoOwner.HERE]


def test_an_instance_that_is_alone_and_was_stopped(client: RespClient) -> None:
    """What it holds is its own at once; what it does not may be held elsewhere, as far as anybody knows."""
    world = World(client)
    a = world.start("a:1")
    world.settle()
    a.seat("x")
    world.jump(7.0)
    old, looked, new = a.seat("x"), outcome(a.directory.look("x")), a.seat("y")
    assert (old, looked, new) == ([NoOwner.HERE], [NoOwner.HERE], [])
    world.pass_time(3.5)
    assert new == [NoOwner.HERE]


def test_an_instance_that_was_started_again(world: World) -> None:
    """What it held before is void even in a warm-up: nobody else can be its holder."""
    world.instances["a:1"].seat("x")
    world.jump(7.0)
    again = world.start("a:1", boot="boot2")
    assert (again.seat("x"), again.seat("y")) == ([NoOwner.HERE], [])


def test_releases_of_an_outage_are_made_up_for(world: World) -> None:
    """A key that was vacated meanwhile is free afterwards."""
    a = world.instances["a:1"]
    a.seat("x")
    a.seat("y")
    a.redis.is_up = False
    world.pass_time(0.5)
    a.vacate("x")
    a.vacate("y")
    a.redis.is_up = True
    world.pass_time(1.0)
    assert (world.entry("x"), world.entry("y")) == (None, None)


def test_a_server_that_takes_over_without_the_last_writes(world: World) -> None:
    """Releases that it does not know are repeated, and what is held is asserted, although nobody noticed an outage."""
    a = world.instances["a:1"]
    for key in ("x", "y"):
        a.seat(key)
    a.vacate("x")
    a.seat("z")
    assert (world.entry("x"), world.entry("z")) == (None, "a:1")
    # An older entry, with an epoch that was replaced before it was released.
    world.client("SET", NAMES.of("x")[1], "a:1 boot1 5")
    world.client("DEL", NAMES.of("z")[1])
    a.redis.connections += 1
    world.pass_time(1.0)
    assert [world.entry(key) for key in ("x", "y", "z")] == [None, "a:1", "a:1"]
    # That one did not know the entry; the next one does.
    a.redis.connections += 1
    world.pass_time(1.0)
    world.client("SET", NAMES.of("x")[1], "a:1 boot1 5")
    a.redis.connections += 1
    world.pass_time(1.0)
    assert world.entry("x") is None


def test_a_directory_that_is_not_there_yet_is_waited_for(client: RespClient) -> None:
    """A client that comes first after the start waits for the first connection."""
    world = World(client)
    a = world.start("a:1")
    a.redis.is_up = False
    early = outcome(a.directory.look("x"))
    world.pass_time(HOPE_S + 0.2)
    assert early == [NoOwner.DOWN]
    early = outcome(a.directory.look("x"))
    assert early == [NoOwner.DOWN]
    late = world.start("c:1")
    late.redis.is_up = False
    answers = late.seat("x")
    world.pass_time(0.5)
    late.redis.is_up = True
    world.pass_time(WAIT_S)
    assert answers == [NoOwner.HERE]


# Troubles of instances


def test_keys_of_an_instance_that_died_are_free_after_its_lease(world: World) -> None:
    """Until then the others are sent to it."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    a.seat("x")
    a.is_stopped = True
    world.pass_time(3.0)
    assert outcome(b.claim("x")) == [a.member]
    world.pass_time(3.1)
    assert b.seat("x") == [NoOwner.HERE]


def test_an_instance_that_was_stopped_asserts_before_it_serves(world: World) -> None:
    """It loses what others have claimed meanwhile, before anybody is served there."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    a.seat("x")
    a.seat("y")
    a.is_stopped = True
    world.pass_time(LEASE_S + 0.1)
    assert b.seat("x") == [NoOwner.HERE]
    assert not a.directory.may_serve("x")
    assert outcome(a.directory.recover("x")) == [True]
    assert a.directory.may_serve("y")
    assert (a.held.evicted, list(a.held.keys)) == (["x"], ["y"])
    assert outcome(a.claim("x")) == [b.member]


def test_a_claim_after_waking_renews_first(world: World) -> None:
    """No claim is made without a lease, and several wait for one renewal."""
    a = world.instances["a:1"]
    a.is_stopped = True
    world.pass_time(LEASE_S + 0.1)
    a.redis.is_held = True
    before = len(a.redis.calls)
    answers = [a.seat("x"), a.seat("y")]
    assert len(a.redis.calls) - before == 1
    a.redis.let_go()
    assert answers == [[NoOwner.HERE], [NoOwner.HERE]]


def test_a_lease_that_is_gone_from_redis_is_renewed(world: World) -> None:
    """After a failover the lease may be missing although it was renewed."""
    a = world.instances["a:1"]
    for partition in NAMES.partitions:
        world.client("HDEL", partition.leases, "a:1")
    assert a.seat("x") == [NoOwner.HERE]


def test_a_renewal_that_fails_is_tried_again(world: World) -> None:
    """A claim waits while it can, and then goes without the directory."""
    a = world.instances["a:1"]
    a.is_stopped = True
    world.pass_time(LEASE_S + 0.1)
    a.redis.is_held = True
    found = outcome(a.claim("x"))
    a.redis.fail_held()
    world.pass_time(0.5)
    assert found == [NoOwner.DOWN]


def test_everything_is_asserted_once_a_minute(world: World) -> None:
    """An entry that was lost is written again, a few keys in each second."""
    a = world.instances["a:1"]
    for number in range(120):
        a.seat(f"id-{number}")
    for number in range(120):
        world.client("DEL", NAMES.of(f"id-{number}")[1])
    calls = len(a.redis.calls)
    world.pass_time(2 * ASSERT_S + 2)
    assert all(world.entry(f"id-{number}") == "a:1" for number in range(120))
    assert len(a.redis.calls) - calls < 260


def test_an_assertion_that_crosses_a_release(world: World) -> None:
    """An entry is not left behind for a key that was vacated while it was asserted."""
    a = world.instances["a:1"]
    a.seat("x")
    world.restart_empty()
    a.redis.is_held = True
    world.pass_time(2.1)
    a.redis.let_go()
    world.pass_time(1.0)
    a.vacate("x")
    world.pass_time(2.0)
    assert world.entry("x") is None


def test_many_keys_are_asserted_in_batches(world: World) -> None:
    """A batch bounds how long Redis is busy with one call."""
    a = world.instances["a:1"]
    for number in range(2 * BATCH + 1):
        a.held.keys[f"id-{number}"] = None
    a.is_stopped = True
    world.pass_time(LEASE_S + 0.1)
    before = len(a.redis.calls)
    assert outcome(a.directory.recover("x")) == [True]
    assert len(a.redis.calls) - before == 4
    assert a.directory.unconfirmed == 0


def test_a_namesake_is_complained_about(world: World) -> None:
    """Two instances with one address are a mistake of the operator."""
    from tests.support.capture import captured

    namesake = world.start("a:1x")
    with captured() as log:
        namesake.directory.shards[0]._member = world.instances["a:1"].member._replace(boot="boot2")
        world.pass_time(12.0)
    assert any("has the address" in text for text in log.texts)


# The end


def test_an_instance_that_leaves_frees_everything(world: World) -> None:
    """Nobody waits for its lease to end, and later releases are not sent."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    a.seat("x")
    outcome(a.directory.leave())
    assert b.seat("x") == [NoOwner.HERE]
    a.vacate("x")
    world.pass_time(1.0)
    assert world.entry("x") == "b:1"
    assert outcome(a.directory.leave())


def test_a_successor_keeps_the_lease(world: World) -> None:
    """A process that takes over has the same boot id, so what was claimed stays claimed."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    a.seat("x")
    a.directory.hand_over()
    successor = world.start("a:1", boot="boot1")
    a.vacate("x")
    outcome(a.directory.leave())
    world.pass_time(LEASE_S + 1)
    assert outcome(b.claim("x")) == [a.member]
    assert successor.seat("x") == [NoOwner.HERE]
    a.directory.take_back()
    assert not a.directory.is_left


def test_leaving_without_redis_does_not_fail(world: World) -> None:
    """The lease ends by itself."""
    a = world.instances["a:1"]
    a.redis.is_up = False
    assert len(outcome(a.directory.leave())) == 1


# What operators see


def test_instances_are_listed(world: World) -> None:
    """Each with its lease."""
    listed = outcome(world.instances["a:1"].directory.members())[0]
    assert sorted(each.member.name for each in listed) == ["a:1", "b:1"]
    assert all(each.is_genuine and 0 < each.left_s <= LEASE_S for each in listed)


def test_the_age_of_the_lease(world: World) -> None:
    """An instance that has never renewed its lease is infinitely late."""
    a = world.instances["a:1"]
    assert a.directory.lease_age_s < 2.5
    assert world.start("c:1").directory.lease_age_s == float("inf")


def test_partitions_are_shared_by_servers(client: RespClient) -> None:
    """Each partition has one server, and each server its share."""
    from pyryrelay.cluster.directory.directory import Directory
    from pyryrelay.cluster.directory.members import Member

    world = World(client)
    servers = [TestRedis(client), TestRedis(client)]
    directory = Directory(
        servers, Member("a:1", "b", "a:1"), NAMES, SECRET, Held(), world.clock.seconds, world.clock.callLater
    )
    directory.look_after()
    leased = [number for number in range(PARTITIONS) if client("EXISTS", NAMES.partitions[number].leases)]
    assert leased == list(range(PARTITIONS))
    assert [len(redis.calls) for redis in servers] == [1, 1]
    servers[1].is_up = False
    with pytest.raises(DownError):
        raise outcome(servers[1].call(servers[0].calls[0], ()))[0].value


def test_an_instance_that_leaves_is_told_of(world: World) -> None:
    """With what it held before it moved that; the partition of another server has no such record."""
    a, b = world.instances["a:1"], world.instances["b:1"]
    a.directory.leave(7)
    left, here = sorted(outcome(b.directory.members())[0])
    assert (left.member.name, left.has_left, left.load.keys) == ("a:1", True, 7)
    assert left.left_s <= 0
    assert (here.member.name, here.has_left) == ("b:1", False)


def test_old_leases_are_deleted_in_all_partitions(world: World) -> None:
    """An instance that dies under an address that never comes back leaves nothing behind."""
    a = world.instances["a:1"]
    for partition in NAMES.partitions:
        world.client("HSET", partition.leases, "dead:1", "b 1 dead:1 m 0")
    for _ in range(PARTITIONS):
        a.directory.sweep()
    for partition in NAMES.partitions:
        assert sorted(world.client("HKEYS", partition.leases)) == ["a:1", "b:1"]
    a.redis.is_up = False
    assert outcome(a.directory.sweep()) == [None]
