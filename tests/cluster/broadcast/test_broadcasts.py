"""What members of a cluster tell each other, by real servers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support.broadcasts import NotingListener
from tests.support.cluster_members import Member, members, until
from tests.support.on_reactor import on_reactor
from tests.support.redis_server import RedisServer, needs_redis, running
from tests.support.source_tree import ROOT

from pyryrelay.broadcast import BroadcastError
from pyryrelay.cluster.broadcast.broadcasts import NOT_FOLLOWED_S, SubjectBroadcast

pytestmark = needs_redis
HOWTO = ROOT / "docs" / "howto" / "cluster-redis.md"
STREAM = "pyry:relay:{0}told:test"
BELL = "pyry:relay:{0}told-bell:test"


async def followed(member: Member, positions: dict[str, str] | None = None) -> tuple[SubjectBroadcast, NotingListener]:
    """Have a member follow a subject, and wait until it can add to all servers, and reads from them."""
    broadcast, listener = member.membership.broadcasts.of("test"), NotingListener()
    await member.is_up()
    broadcast.follow(positions or {}, listener)
    await until(lambda: all(each.client.is_up for each in broadcast.following))
    await until(lambda: listener.told.count("connected") == len(broadcast.following))
    return broadcast, listener


async def add(broadcast: SubjectBroadcast, *bodies: bytes) -> None:
    """Add entries one by one."""
    for body in bodies:
        await broadcast.add(body, body)


async def will_have(heard: NotingListener, *bodies: bytes) -> None:
    """Wait for the last of some entries, which shall be all that was heard."""
    await until(lambda: heard.bodies[-1:] == [*bodies[-1:]], heard.bodies)
    assert heard.bodies == [*bodies]


@on_reactor
async def test_each_member_hears_the_others(redis_server: RedisServer) -> None:
    """All of it, in order, and once. Those who only add open no connection for reading."""
    with members(4, redis_server.url) as four:
        made = [await followed(member) for member in four[:3]]
        bodies = [b"%d" % number for number in range(500)]
        await four[3].is_up()
        silent = four[3].membership.broadcasts.of("test")
        for body in bodies:
            silent.add(body, body)
        await until(lambda: all(len(heard.bodies) == 500 for _, heard in made))
        await add(made[0][0], b"more")
        await until(lambda: all(heard.bodies == [*bodies, b"more"] for _, heard in made[1:]))
        assert made[0][1].bodies == bodies
        await until(lambda: len({heard.positions["0"] for _, heard in made}) == 1)
        assert [heard.told for _, heard in made] == [["connected"]] * 3
        assert max(made[1][1].ages) < 30.0
        assert redis_server.ask("CLIENT", "LIST").count(b"name=pyryrelay-relay-") == 7
        assert [following.reader.behind_s < 30.0 for following in made[1][0].following] == [True]


@on_reactor
async def test_a_member_goes_on_where_it_stopped(redis_server: RedisServer) -> None:
    """With the positions that it has kept; a position that says nothing is none."""
    with members(4, redis_server.url) as (a, b, again, anew):
        told, _ = await followed(a)
        broadcast, heard = await followed(b)
        await add(told, b"1")
        await will_have(heard, b"1")
        broadcast.stop()
        await add(told, b"2")
        await will_have((await followed(again, heard.positions))[1], b"2")
        await will_have((await followed(anew, {"0": "what/ever", "7": "1/1-1"}))[1], b"1", b"2")
        with pytest.raises(BroadcastError, match="stops"):
            await broadcast.add(b"", b"")


@on_reactor
async def test_a_protocol_may_begin_again(redis_server: RedisServer) -> None:
    """With a new broadcast, which knows what this process has added, and goes on counting."""
    with members(2, redis_server.url) as (a, b):
        first, heard = await followed(a)
        await add(first, b"1")
        await until(lambda: heard.positions)
        first.stop()
        first.stop()
        second, heard = await followed(a)
        told, _ = await followed(b)
        await add(second, b"2")
        await add(told, b"3")
        await will_have(heard, b"3")
        assert [figures.added for figures in a.membership.broadcasts.figures(0)] == [2]
        assert a.membership.broadcasts.behind_s(0) < 30.0
        assert redis_server.ask("CLIENT", "LIST").count(b"name=pyryrelay-relay-") == 4


@on_reactor
async def test_a_server_that_returns_empty(redis_server: RedisServer) -> None:
    """Nothing can be added meanwhile; then it is told, and everything that is added arrives."""
    with members(2, redis_server.url) as (a, b):
        told, heard_by_a = await followed(a)
        _, heard = await followed(b)
        await add(told, b"1", b"2")
        await will_have(heard, b"1", b"2")
        redis_server.kill()
        await a.has_lost()
        with pytest.raises(BroadcastError, match="down"):
            await told.add(b"3", b"3")
        redis_server.start()
        await until(lambda: heard_by_a.told.count("connected") == 2)
        await add(told, b"2", b"3")
        await will_have(heard, b"1", b"2", b"2", b"3")
        await until(lambda: heard.told.count("connected") == 2)
        assert told.streams[0].figures.failed == 1


@on_reactor
async def test_a_server_that_hangs_is_noticed_by_readers(redis_server: RedisServer) -> None:
    """Although it is asked to hold back its answers; what is there afterwards is read."""
    with members(2, redis_server.url) as (a, b):
        told, _ = await followed(a)
        broadcast, heard = await followed(b)
        await add(told, b"1")
        await will_have(heard, b"1")
        redis_server.pause()
        client = broadcast.following[0].client
        await until(lambda: not client.is_up)
        assert client.problem == "no answer in 1.5 s"
        redis_server.go_on()
        await until(lambda: client.is_up)
        await a.is_up()
        await add(told, b"2")
        await will_have(heard, b"1", b"2")


@on_reactor
async def test_a_server_that_forgets_everything_while_it_runs(redis_server: RedisServer) -> None:
    """Readers notice within about a second, and what was added last is asked for."""
    with members(2, redis_server.url) as (a, b):
        told, heard_by_a = await followed(a)
        _, heard = await followed(b)
        await add(told, b"1")
        await will_have(heard, b"1")
        await until(lambda: heard_by_a.positions)
        redis_server.ask("FLUSHALL")
        await until(lambda: all(each.told.count("connected") == 2 for each in (heard_by_a, heard)))
        await until(lambda: all(any("lost 0" in one for one in each.told) for each in (heard_by_a, heard)))
        await add(told, b"1", b"2")
        await will_have(heard, b"1", b"1", b"2")
        assert told.streams[0].figures.begun_anew == 1


@on_reactor
async def test_entries_that_were_forgotten_unread_are_missed(redis_server: RedisServer) -> None:
    """The operator is told, the listener, and the metrics; the rest arrives."""
    with members(3, redis_server.url) as (a, b, again):
        told, _ = await followed(a)
        broadcast, heard = await followed(b)
        await add(told, b"1")
        await will_have(heard, b"1")
        broadcast.stop()
        await add(told, b"2", b"3", b"4")
        redis_server.ask("XTRIM", STREAM, "MAXLEN", "2")
        broadcast, after = await followed(again, heard.positions)
        await will_have(after, b"3", b"4")
        oldest = redis_server.ask("XRANGE", STREAM, "-", "+", "COUNT", "1")
        added_at = [int(re.findall(rb"([0-9]{13})-", text)[0]) for text in (heard.positions["0"].encode(), oldest)]
        connected, missed = sorted(after.told)
        since_s, until_s = map(float, missed.removeprefix("missed 0 ").split())
        assert (connected, until_s >= 0.0) == ("connected", True)
        assert since_s - until_s == pytest.approx((added_at[1] - added_at[0]) / 1000, abs=0.01)
        assert broadcast.streams[0].figures.missed == 1
        assert ["did not keep" in warning for warning in again.warnings] == [True]


@on_reactor
async def test_what_no_member_has_made_is_passed(redis_server: RedisServer) -> None:
    """Forged, altered, moved from elsewhere, or huge. A bell that somebody else rings is heard once a second."""
    with members(2, redis_server.url) as (a, b):
        told, _ = await followed(a)
        broadcast, heard = await followed(b)
        other = a.membership.broadcasts.of("other")
        await add(other, b"other")
        elsewhere = redis_server.ask("XRANGE", "pyry:relay:{0}told:other", "-", "+").split(b"\r\n", 8)[-1][:-2]
        await add(told, b"1")
        for body in (b"", b"x" * 41, elsewhere, b"x" * 2_000_000):
            redis_server.ask("XADD", STREAM, "*", "e", body, "more", "fields")
        await add(told, b"2")
        await will_have(heard, b"1", b"2")
        assert broadcast.streams[0].figures.unreadable == 4
        calls = sum(broadcast.following[0].client.figures.counts)
        redis_server.ask("XADD", BELL, "99999999999999-0", "e", "")
        await add(told, b"3")
        await will_have(heard, b"1", b"2", b"3")
        assert sum(broadcast.following[0].client.figures.counts) < calls + 30


@on_reactor
async def test_a_server_without_memory_refuses(redis_server: RedisServer) -> None:
    """Adding fails with its words, the operator is told, and it works again when there is memory."""
    with members(2, redis_server.url) as (a, b):
        told, _ = await followed(a)
        _, heard = await followed(b)
        redis_server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(BroadcastError, match="OOM"):
            await told.add(b"1", b"1")
        assert any("does not take what this relay tells: OOM" in warning for warning in a.warnings)
        redis_server.ask("CONFIG", "SET", "maxmemory", "0")
        await add(told, b"1")
        await will_have(heard, b"1")
        assert b.membership.shards.of(0).is_up


@on_reactor
async def test_a_user_who_may_not_wait_for_entries(redis_server: RedisServer) -> None:
    """The operator is told what is missing, and entries arrive as soon as it is put right."""
    with members(2, redis_server.url) as (a, b):
        told, _ = await followed(a)
        redis_server.ask("ACL", "SETUSER", "default", "-xread")
        _, heard = await followed(b)
        await until(lambda: any("cannot be read" in warning and "NOPERM" in warning for warning in b.warnings))
        redis_server.ask("ACL", "SETUSER", "default", "+xread")
        await add(told, b"1")
        await will_have(heard, b"1")


@on_reactor
async def test_the_permissions_of_the_howto_are_enough(redis_server: RedisServer) -> None:
    """Those of the line that makes a user."""
    found = re.search(r"^ACL SETUSER pyryrelay (.*)$", HOWTO.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    permissions = found[1].replace(">PASSWORD", "nopass").split()
    assert redis_server.ask("ACL", "SETUSER", "default", "reset", *permissions) == b"+OK\r\n"
    with members(2, redis_server.url) as (a, b):
        told, _ = await followed(a)
        _, heard = await followed(b)
        await add(told, b"1")
        await will_have(heard, b"1")
        await add(told, b"2")
        await will_have(heard, b"1", b"2")
        assert a.warnings == b.warnings == []


@on_reactor
async def test_a_server_that_can_be_used_but_not_read(redis_server: RedisServer) -> None:
    """Such as one without room for another connection."""
    with members(1, redis_server.url) as (a,):
        broadcast, _ = await followed(a)
        following = broadcast.following[0]
        following.client.stop()
        following._down_since = following._terms.now() - NOT_FOLLOWED_S - 1.0
        a.membership.broadcasts.judge()
        assert ["cannot be read from server" in warning for warning in a.warnings] == [True]


@on_reactor
async def test_several_servers_share_the_entries(tmp_path: Path) -> None:
    """One that is down holds up nobody else, and refuses its part."""
    first, second = RedisServer(tmp_path / "0"), RedisServer(tmp_path / "1")
    with running(first, second), members(2, first.url, second.url) as (a, b):
        told, _ = await followed(a)
        _, heard = await followed(b)
        bodies = [b"%d" % number for number in range(20)]
        await add(told, *bodies)
        await until(lambda: sorted(heard.bodies) == sorted(bodies))
        assert set(heard.positions) == {"0", "1"}
        second.kill()
        await until(lambda: not a.membership.shards.clients[1].is_up)
        done = [told.add(body, body) for body in bodies]
        failed = [each for each in done if each.called]
        for each in failed:
            each.addErrback(lambda failure: failure.trap(BroadcastError) and None)
        assert 0 < len(failed) < 20
        await until(lambda: len(heard.bodies) == 40 - len(failed))
