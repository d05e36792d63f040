"""The scripts of shared limits, on a real server."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.support.cluster_members import members
from tests.support.on_reactor import on_reactor
from tests.support.redis_server import RedisServer, needs_redis

from pyryrelay.cluster.limits.scripts import CHARGE, HOLD, LEARN, MEET, TELL
from pyryrelay.cluster.redis.interface import Script

pytestmark = needs_redis
Call = Callable[..., Awaitable[Any]]


def caller(member: Any) -> Call:
    """Return what runs a script by the client of a member."""

    async def call(script: Script, keys: list[bytes], *args: Any) -> Any:
        return await member.membership.shards.of(0).call(script, keys, args)

    return call


@on_reactor
async def test_charging(redis_server: RedisServer) -> None:
    """Charges add up to the longest debt, are paid as time passes, and leave nothing behind."""
    with members(1, redis_server.url) as (member,):
        await member.is_up()
        call = caller(member)
        first = await call(CHARGE, [b"a", b"b"], 1_000_000, 9_000_000, 2_000_000, 9_000_000)
        assert first == [1_000_000, 2_000_000]
        second = await call(CHARGE, [b"a"], 3_000_000, 9_000_000)
        assert 3_000_000 < second[0] <= 4_000_000
        assert await call(CHARGE, [b"a"], 50_000_000, 9_000_000) == [9_000_000]
        assert 8_000 < int(redis_server.ask("PTTL", "a")[1:]) <= 9_001
        # A primary whose clock is behind finds times that are far ahead of it.
        redis_server.ask("SET", "a", str(int((time.time() + 9999) * 1e6)))
        assert await call(CHARGE, [b"a"], 1, 9_000_000) == [9_000_000]
        redis_server.ask("SET", "a", "1")
        assert await call(CHARGE, [b"a"], 5, 9_000_000) == [5]


@on_reactor
async def test_holding(redis_server: RedisServer) -> None:
    """The counts of others add up; those that have ended, or that nobody can have written, do not count."""
    with members(1, redis_server.url) as (member,):
        await member.is_up()
        call = caller(member)
        assert await call(HOLD, [b"a", b"b"], b"one", 60_000, 3, 4) == [0, 0]
        assert await call(HOLD, [b"a"], b"two", 60_000, 5) == [3]
        assert await call(HOLD, [b"a", b"b"], b"one", 60_000, 1, 0) == [5, 0]
        assert redis_server.ask("EXISTS", "b") == b":0\r\n"
        ends = int((time.time() + 30) * 1000)
        for odd in ("x", "9:1", "9:99999999999999", "", f"{'9' * 400}:{ends}", f"9223372036854775807:{ends}"):
            redis_server.ask("HSET", "a", "odd", odd)
            assert await call(HOLD, [b"a"], b"two", 60_000, 5) == [1]
        assert redis_server.ask("HLEN", "a") == b":2\r\n"
        assert int(redis_server.ask("PTTL", "a")[1:]) > 50_000


@on_reactor
async def test_meeting(redis_server: RedisServer) -> None:
    """Members are counted while they repeat their word, and the first secret is the one that counts."""
    with members(1, redis_server.url) as (member,):
        await member.is_up()
        call = caller(member)
        keys = [b"m", b"mark"]
        assert await call(MEET, keys, b"one", 10_000, b"secret") == [1, 1]
        assert await call(MEET, keys, b"two", 10_000, b"secret") == [2, 1]
        assert await call(MEET, keys, b"three", 10_000, b"other") == [3, 0]
        now_ms = int(time.time() * 1000)
        redis_server.ask("ZADD", "m", str(now_ms - 5), "one", str(now_ms + 99_000), "three")
        assert await call(MEET, keys, b"two", 10_000, b"secret") == [1, 1]
        with pytest.raises(Exception, match="ERR"):
            await call(Script("return redis.call('GET')"), [])


LAST_ID = "18446744073709551615-18446744073709551615"


@pytest.mark.parametrize(
    "damage",
    [
        [("DEL", "jail"), ("SET", "jail", "x")],
        [("DEL", "ends"), ("SET", "ends", "x")],
        [("DEL", "rows"), ("SET", "rows", "x")],
        [("XADD", "jail", LAST_ID, "r", "x")],
        [("XADD", "jail", LAST_ID, "r", "x"), ("XDEL", "jail", LAST_ID)],
    ],
)
@on_reactor
async def test_damaged_sentences_are_begun_anew(redis_server: RedisServer, damage: list[tuple[str, ...]]) -> None:
    """Newcomers learn, and members tell and hear, whichever key somebody has spoilt; nobody has to delete it."""
    with members(1, redis_server.url) as (member,):
        await member.is_up()
        client = member.membership.shards.of(0)
        names = ["jail", "ends", "rows"]
        till = 9_000_000_000_000
        await client.call(TELL, names, ("", 100, 100, "sentence", "one", till, "row 1"))
        for words in damage:
            assert not redis_server.ask(*words).startswith(b"-")
        await client.call(LEARN, names, (0, 499))
        for words in damage:
            redis_server.ask(*words)
        await client.call(TELL, names, ("5-0", 100, 100))
        await client.call(TELL, names, ("5-0", 100, 100, "sentence", "two", till, "row 2"))
        assert b"row 2" in await client.call(TELL, names, ("5-0", 100, 100))
        assert b"row 2" in (await client.call(LEARN, names, (0, 499)))[1:]


@pytest.mark.parametrize("damage", [("RPUSH", "key", "x"), ("SET", "key", "nan"), ("SET", "key", "no number")])
@on_reactor
async def test_a_damaged_key_begins_anew(redis_server: RedisServer, damage: tuple[str, ...]) -> None:
    """Whichever limit it is of: the others in the same call are not kept from what they ask."""
    with members(1, redis_server.url) as (member,):
        await member.is_up()
        client = member.membership.shards.of(0)
        for script, keys, args, answer in (
            (CHARGE, ["other", "key"], (5_000_000, 90_000_000, 5_000_000, 90_000_000), [5_000_000, 5_000_000]),
            (HOLD, ["other", "key"], ("me", 10_000, 1, 1), [0, 0]),
            (MEET, ["key", "mark"], ("me", 10_000, "secret"), [1, 1]),
            (MEET, ["members", "key"], ("me", 10_000, "nan" if damage[0] == "SET" else "secret"), None),
        ):
            redis_server.ask("FLUSHALL")
            assert not redis_server.ask(*damage).startswith(b"-")
            found = await client.call(script, keys, args)
            assert answer is None or found == answer
            assert await client.call(script, keys, args)


@on_reactor
async def test_what_is_too_long_for_a_row_is_deleted(redis_server: RedisServer) -> None:
    """Else every member would be sent it each second, and would end the connection because of its length."""
    with members(1, redis_server.url) as (member,):
        await member.is_up()
        client = member.membership.shards.of(0)
        names, till = ["jail", "ends", "rows"], 9_000_000_000_000
        await client.call(TELL, names, ("", 100, 100, "sentence", "one", till, "row 1"))
        last = (await client.call(LEARN, names, (0, 499)))[0]
        for number in range(30):
            redis_server.ask("XADD", "jail", "*", "r", "x" * 10_000)
            redis_server.ask("ZADD", "ends", str(till), f"long {number}")
            redis_server.ask("HSET", "rows", f"long {number}", "x" * 10_000)
        told = await client.call(TELL, names, (last, 100, 100, "sentence", "two", till, "row 2"))
        assert told[3::2] == [b"row 2"]
        assert redis_server.ask("XLEN", "jail") == b":2\r\n"
        learnt = await client.call(LEARN, names, (0, 499))
        assert sorted(filter(None, learnt[1:])) == [b"row 1", b"row 2"]
        assert redis_server.ask("HLEN", "rows") == b":2\r\n"
