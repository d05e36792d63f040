"""Members of a cluster, on real servers: what one lets through, the others know."""

from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv6Address
from random import Random
from typing import Any

from tests.support.cluster_members import Member, members
from tests.support.nostr_policies import BOB, client, event
from tests.support.on_reactor import on_reactor
from tests.support.redis_server import RedisServer, needs_redis, running
from tests.support.worker_jails import World

from pyryrelay.guard import (
    CidrSet,
    GateConfig,
    JailPolicy,
    Lease,
    LeaseLimits,
    Quota,
    Refusal,
    Sentence,
    address_key,
)
from pyryrelay.guard.jail import MAX_DURATION_S
from pyryrelay.mounts import Settings
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.policies.quotas.quotas import NostrQuotas
from pyryrelay.nostr.policies.quotas.tables import ConnectionQuotas, Sharing

pytestmark = needs_redis
QUOTA = Quota.parse("1/hour burst 20")
CONFIG = GateConfig(
    upgrade_quota=QUOTA, jail=JailPolicy(), limits=LeaseLimits(max_connections_per_address=16, max_connections=1000)
)
CLIENT, OTHER = "198.51.100.7", "198.51.100.8"


@on_reactor
async def test_a_quota_holds_for_all_members(redis_server: RedisServer) -> None:
    """What is spent at one is missing at the others, for that address alone."""
    with members(3, redis_server.url, config=CONFIG) as (first, second, third):
        for member in (first, second, third):
            await member.is_up()
        admitted = 0
        for number in range(60):
            member = (first, second, third)[number % 3]
            admitted += isinstance(member.gate.admit(CLIENT, "/", time.monotonic()), Lease)
            await member.is_idle()
            await member.is_idle()
        assert 20 <= admitted <= 22
        refusals = [member.gate.peek(CLIENT, "/", time.monotonic()) for member in (first, second, third)]
        assert sum(isinstance(refusal, Refusal) for refusal in refusals) >= 2
        assert first.gate.peek(OTHER, "/", time.monotonic()) is None
        quotas = first.membership.quotas
        assert quotas is not None
        assert quotas.charged == quotas.debts <= 20
        assert quotas.dropped == 0


def nostr_quotas(member: Member, **changes: Any) -> NostrQuotas:
    """Return the quotas of a protocol of a member which is one of several workers."""
    made = NostrQuotas()
    made.share(Sharing(lambda: None, member.membership.share(made.cluster_tables)))
    made.configure(NostrOptions(**changes))
    return made


@on_reactor
async def test_quotas_of_a_protocol_hold_for_all_members(redis_server: RedisServer) -> None:
    """Two relays of two workers each, which also tell each other: one author, and nothing counts twice."""
    quota, note = Quota.parse("1/hour burst 20"), event()
    with members(4, redis_server.url) as found:
        workers = [nostr_quotas(member, nostr_pubkey_quota=quota) for member in found]
        for member in found:
            await member.is_up()
        random, admitted = Random(1), 0
        for number in range(80):
            place = number % 4
            admitted += workers[place].events.spend_author(note, frozenset(), time.monotonic()) is None
            if random.random() < 0.5:
                await found[place].is_idle()
            for quota_name, keys, tokens in workers[place].changes() if random.random() < 0.5 else ():
                workers[place ^ 1].absorb(quota_name, keys, tokens, time.monotonic())
            await found[place].is_idle()
        assert 20 <= admitted <= 23
        assert all(worker.events.spend_author(note, frozenset(), time.monotonic()) for worker in workers)
        assert workers[0].events.spend_author(event(pubkey=BOB), frozenset(), time.monotonic()) is None
        assert b"pyry:relay:{" in redis_server.ask("KEYS", "*q:*")


@on_reactor
async def test_quotas_of_clients_of_a_protocol_are_shared(redis_server: RedisServer) -> None:
    """Whichever relay a client comes to; a reload that changes, adds or removes one is followed."""
    note, me = event(), client()
    few, more = Quota.parse("1/hour burst 3"), Quota.parse("1/hour burst 4")

    async def published(member: Member, quotas: NostrQuotas) -> int:
        count = 0
        for _ in range(9):
            count += quotas.events.spend(me, note, ConnectionQuotas(), time.monotonic()) is None
            await member.is_idle()
        return count

    with members(2, redis_server.url) as (first, second):
        one, other = (nostr_quotas(member, nostr_event_quota=few) for member in (first, second))
        for member in (first, second):
            await member.is_up()
        assert await published(first, one) == 3
        assert await published(second, other) == 1
        reloads: list[tuple[dict[str, Any], list[int]]] = [
            ({"nostr_event_quota": more}, [4, 1]),
            ({"nostr_event_quota": None}, [9, 9]),
            ({"nostr_event_quota": None, "nostr_relay_event_quota": few}, [3, 1]),
        ]
        for changes, expected in reloads:
            for quotas in (one, other):
                quotas.configure(NostrOptions(**changes))
            found = [await published(first, one), await published(second, other)]
            assert found == expected
        assert second.membership.quotas is not None
        assert second.membership.quotas.dropped == 0


@on_reactor
async def test_no_address_reaches_the_server(redis_server: RedisServer) -> None:
    """Neither in the clear nor as the number under which it is counted."""
    with members(1, redis_server.url, config=CONFIG) as (member,):
        await member.is_up()
        client = member.gate.admit(CLIENT, "/", time.monotonic())
        assert isinstance(client, Lease)
        member.gate.admit(CLIENT, "/", time.monotonic())
        member.gate.jail.add(client.key or 0, 60.0, time.monotonic())
        await member.is_idle()
        await member.sync()
        keys = redis_server.ask("KEYS", "*")
        assert b"pyry:relay:{" in keys
        dump = keys + redis_server.ask("XRANGE", "pyry:relay:{0}jail", "-", "+")
        dump += redis_server.ask("HGETALL", "pyry:relay:{0}jail-rows")
        number = client.key or 0
        for hidden in (CLIENT.encode(), bytes([198, 51, 100, 7]), str(number).encode(), number.to_bytes(5, "big")):
            assert hidden not in dump


@on_reactor
async def test_several_servers_share_the_keys(redis_server: RedisServer) -> None:
    """Each has a part of them, and none has all."""
    other = RedisServer(redis_server.folder)
    with running(other), members(2, redis_server.url, other.url, config=CONFIG) as (first, second):
        for member in (first, second):
            await member.is_up()
        now = time.monotonic()
        addresses = [f"198.51.{number // 250}.{number % 250}" for number in range(400)]
        for address in addresses:
            for _ in range(20):
                lease = first.gate.admit(address, "/", now)
                assert isinstance(lease, Lease)
                lease.release()
        await first.is_idle()
        counts = [int(server.ask("DBSIZE")[1:]) for server in (redis_server, other)]
        assert all(100 < count < 300 for count in counts)
        for address in addresses:
            second.gate.admit(address, "/", now)
        await second.is_idle()
        refused = [second.gate.peek(address, "/", time.monotonic()) is not None for address in addresses]
        assert all(refused)


@on_reactor
async def test_sentences_and_releases_reach_all(redis_server: RedisServer) -> None:
    """Those that are there, and those that come later."""
    with members(2, redis_server.url, config=CONFIG) as (first, second):
        for member in (first, second):
            await member.is_up()
            await member.sync()
        lease = first.gate.admit(CLIENT, "/", time.monotonic())
        assert isinstance(lease, Lease)
        key = lease.key or 0
        first.gate.jail.add(key, 600.0, time.monotonic())
        await first.sync()
        await second.sync()
        refusal = second.gate.peek(CLIENT, "/", time.monotonic())
        assert isinstance(refusal, Refusal)
        assert refusal.reason == "jailed"
        sentence = second.gate.jail.sentence(key, time.monotonic())
        assert sentence is not None
        assert 590 < sentence.until_s - time.monotonic() < 601
        with members(1, redis_server.url, config=CONFIG) as (late,):
            await late.is_up()
            await late.sync()
            assert late.gate.jail.is_jailed(key, time.monotonic())
            assert second.gate.jail.release(key)
            for _ in range(3):
                for member in (second, first, late):
                    await member.sync()
            assert not any(member.gate.jail.is_jailed(key, time.monotonic()) for member in (first, second, late))
        entries = redis_server.ask("XLEN", "pyry:relay:{0}jail")
        assert entries == b":2\r\n"
        assert redis_server.ask("HLEN", "pyry:relay:{0}jail-rows") == b":1\r\n"


@on_reactor
async def test_what_was_released_is_not_told_again_by_a_file(redis_server: RedisServer) -> None:
    """A relay that was away has the sentence in its file, and learns that it is over. Others are told all the same."""
    now, prefix = time.monotonic(), address_key(IPv6Address("2001:db8::"), 48)
    lasting = address_key(IPv4Address("192.0.2.9"), 32)
    with members(2, redis_server.url, config=CONFIG) as (first, second):
        for member in (first, second):
            await member.is_up()
            await member.sync()
        first.gate.jail.add(prefix, MAX_DURATION_S, now)
        await first.sync()
        await second.sync()
        assert second.gate.jail.is_jailed(prefix, now)
        assert second.gate.jail.release(prefix)
        await second.sync()
        await first.sync()
        assert first.gate.jail.entries(now) == []
        with members(1, redis_server.url, config=CONFIG) as (late,):
            late.gate.jail.restore([Sentence(prefix, now + 9e6, 0), Sentence(lasting, now + 60.0, 1)], now)
            await late.is_up()
            for _ in range(2):
                for member in (late, first, second):
                    await member.sync()
            for member in (late, first, second):
                assert [each.key for each in member.gate.jail.entries(now)] == [lasting]
        assert redis_server.ask("XLEN", "pyry:relay:{0}jail") == b":3\r\n"


@on_reactor
async def test_a_jail_is_shared_when_it_is_loaded(redis_server: RedisServer) -> None:
    """A worker, or a process that takes over, is in the cluster before it has sentences, and tells them when it has.

    What was decided in its last second is told at its end.
    """
    now = time.monotonic()
    keys = [address_key(IPv4Address(f"192.0.2.{number}"), 32) for number in range(2)]
    with members(2, redis_server.url, config=CONFIG) as (first, second):
        for member in (first, second):
            await member.is_up()
        first.membership._is_jail_shared = False
        await first.sync()
        await first.membership.leave()
        first.gate.jail.restore([Sentence(keys[0], now + 60.0, 1)], now)
        first.membership.share_jail()
        await second.sync()
        await first.sync()
        await second.sync()
        assert second.gate.jail.is_jailed(keys[0], now)
        first.gate.jail.add(keys[1], 60.0, now)
        await first.membership.leave()
        await second.sync()
        assert second.gate.jail.is_jailed(keys[1], now)


@on_reactor
async def test_operators_of_relays_with_workers(redis_server: RedisServer) -> None:
    """Two relays of two workers each: what is done at one supervisor holds everywhere, and is in the stream once."""
    with members(4, redis_server.url, config=CONFIG) as found:
        for member in found:
            await member.is_up()
        jails = [member.gate.jail for member in found]
        hosts = [World(2, jails=jails[:2]), World(2, jails=jails[2:])]
        for world in hosts:
            world.clock.advance(time.monotonic())
            world.common.configure(Settings(cluster=(redis_server.url,), cluster_secret_file="-"), CidrSet())
        key = address_key(IPv4Address("192.0.2.9"), 32)

        async def settle() -> None:
            for _ in range(3):
                for member in found:
                    await member.sync()
                for world in hosts:
                    world.settle()

        def ends() -> list[list[int]]:
            everywhere = [*jails, *(world.common.jail for world in hosts)]
            now = time.monotonic()
            return [[100 * round((each.until_s - now) / 100) for each in jail.entries(now)] for jail in everywhere]

        await settle()
        here, there = (world.common for world in hosts)
        for jail, duration_s, entries in ((here, 9000, 1), (there, 5000, 3), (here, 7000, 4)):
            jail.jail.add(key, duration_s, time.monotonic())
            jail.spread()
            await settle()
            assert ends() == [[duration_s]] * 6
            assert redis_server.ask("XLEN", "pyry:relay:{0}jail") == b":%d\r\n" % entries
        there.jail.release(key)
        there.spread()
        await settle()
        hosts[0].start()
        await settle()
        assert ends() == [[]] * 6
        assert redis_server.ask("XLEN", "pyry:relay:{0}jail") == b":5\r\n"


@on_reactor
async def test_an_empty_server_learns_the_sentences_again(redis_server: RedisServer) -> None:
    """After a kill -9 every member tells what it knows, and newcomers hear it."""
    with members(2, redis_server.url, config=CONFIG) as (first, second):
        for member in (first, second):
            await member.is_up()
            await member.sync()
        for number in range(700):
            first.gate.jail.add((1 << 32 | number) << 1, 600.0, time.monotonic())
        while first.gate.jail.has_news:
            await first.sync()
        await second.sync()
        assert second.gate.jail.running(time.monotonic()) == 700
        redis_server.kill()
        redis_server.start()
        for member in (first, second):
            await member.has_lost()
            await member.is_up()
            await member.sync()
            await member.sync()
        with members(1, redis_server.url, config=CONFIG) as (late,):
            await late.is_up()
            await late.sync()
            assert late.gate.jail.running(time.monotonic()) == 700


@on_reactor
async def test_the_cap_per_address_holds_for_all(redis_server: RedisServer) -> None:
    """It may be exceeded only by what is below the threshold of the others."""
    with members(2, redis_server.url, config=GateConfig(upgrade_quota=None, limits=CONFIG.limits)) as (first, second):
        for member in (first, second):
            await member.is_up()
        for member in (first, second, first):
            await member.sync()
        held = []
        for _ in range(10):
            for member in (first, second):
                taken = member.gate.admit(CLIENT, "/", time.monotonic())
                if isinstance(taken, Lease):
                    held.append(taken)
                await first.sync()
                await second.sync()
        assert 16 <= len(held) <= 16 + 3
        refusal = first.gate.peek(CLIENT, "/", time.monotonic())
        assert isinstance(refusal, Refusal)
        for lease in held:
            lease.release()
        for member in (first, second, first, second):
            await member.sync()
        assert first.gate.peek(CLIENT, "/", time.monotonic()) is None


@on_reactor
async def test_an_outage_costs_nobody_anything(redis_server: RedisServer) -> None:
    """Admission goes on at once, limits hold for each member, and afterwards they are shared again."""
    with members(2, redis_server.url, config=CONFIG) as (first, second):
        for member in (first, second):
            await member.is_up()
        redis_server.kill()
        for member in (first, second):
            await member.has_lost()
            admitted = [isinstance(member.gate.admit(CLIENT, "/", time.monotonic()), Lease) for _ in range(15)]
            assert admitted == [True] * 15
            await member.is_idle()
            await member.sync()
            assert member.membership.quotas is not None
            assert member.membership.quotas.dropped == 15
        redis_server.start()
        for member in (first, second):
            await member.is_up()
        for _ in range(5):
            assert isinstance(first.gate.admit(OTHER, "/", time.monotonic()), Lease)
        await first.is_idle()
        second.gate.admit(OTHER, "/", time.monotonic())
        await second.is_idle()
        assert second.gate.shared_tables()["upgrade"].level(_key(OTHER), time.monotonic()).tokens == 14


def _key(address: str) -> int:
    """Return the number under which an address is counted."""
    from ipaddress import IPv4Address

    return (1 << 32 | int(IPv4Address(address))) << 1


@on_reactor
async def test_a_stopped_server_makes_nobody_wait(redis_server: RedisServer) -> None:
    """Calls in flight are given up after half a second; what they charged is counted as dropped."""
    with members(1, redis_server.url, config=CONFIG) as (member,):
        await member.is_up()
        redis_server.pause()
        try:
            began = time.monotonic()
            assert isinstance(member.gate.admit(CLIENT, "/", time.monotonic()), Lease)
            assert time.monotonic() - began < 0.4
            await member.is_idle()
            quotas = member.membership.quotas
            assert quotas is not None
            assert quotas.dropped == 1
        finally:
            redis_server.go_on()
        await member.is_up()


@on_reactor
async def test_another_secret_is_told(redis_server: RedisServer) -> None:
    """Two clusters with one name: a warning, at most once a minute, and nothing is shared."""
    with members(1, redis_server.url, config=CONFIG) as (ours,):
        await ours.is_up()
        await ours.sync()
        with members(1, redis_server.url, config=CONFIG, secret=b"another secret......") as (theirs,):
            await theirs.is_up()
            for _ in range(3):
                await theirs.sync()
                await ours.sync()
            assert ours.warnings == []
            (warning,) = theirs.warnings
            assert warning.startswith("another cluster named 'relay' uses 127.0.0.1")
            ours.gate.jail.add(_key(CLIENT), 600.0, time.monotonic())
            await ours.sync()
            await theirs.sync()
            assert not theirs.gate.jail.is_jailed(_key(CLIENT), time.monotonic())
            assert theirs.membership.sentences is not None
            assert theirs.membership.sentences.unreadable == 1


@on_reactor
async def test_clocks_apart_are_told(redis_server: RedisServer) -> None:
    """Ends of sentences do not depend on the clocks of the machines."""
    with members(1, redis_server.url, config=CONFIG, wall=lambda: time.time() - 60.0) as (member,):
        await member.is_up()
        for _ in range(3):
            await member.sync()
        (warning,) = member.warnings
        server = f"127.0.0.1:{redis_server.port}"
        assert warning.startswith(f"the clock of server {server} of the cluster is 60.0 s ahead of this machine's")


@on_reactor
async def test_a_user_that_may_too_little_is_told(redis_server: RedisServer) -> None:
    """One line says which command is missing, and admission goes on."""
    redis_server.ask("ACL", "SETUSER", "default", "-evalsha", "-eval")
    with members(1, redis_server.url, config=CONFIG) as (member,):
        await member.is_up()
        assert isinstance(member.gate.admit(CLIENT, "/", time.monotonic()), Lease)
        await member.is_idle()
        await member.sync()
        (warning,) = member.warnings
        assert "refuses a script: NOPERM" in warning
