"""The scripts of broadcasts, on a real server."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.support.cluster_members import Member, members
from tests.support.on_reactor import on_reactor
from tests.support.redis_server import RedisServer, needs_redis

from pyryrelay.cluster.broadcast.scripts import ADD, ENTRY_BYTES, LOST_MS, MOST_ROUNDS, READ, STEP
from pyryrelay.cluster.redis.interface import AnswerError

pytestmark = needs_redis
KEYS = [b"s", b"state", b"bell"]
LIVES_MS = 60_000
ROOMY = 1_000_000


class Server:
    """The server, by the client of a member."""

    def __init__(self, member: Member) -> None:
        self._client = member.membership.shards.of(0)

    async def add(self, *entries: bytes, limit: int = ROOMY) -> str:
        """Add entries, and return the id of the last one."""
        answer: bytes = await self._client.call(ADD, KEYS, (limit, LIVES_MS, *entries))
        return answer.decode()

    async def read(self, began: str, last: str, most: int = 100, room: int = ROOMY, longest: int = ROOMY) -> Any:
        """Return when the stream began, what was found, whether there is more, the ids and the entries."""
        answer = await self._client.call(READ, KEYS, (began, last, most, room, longest))
        ids = [each.decode() for each in answer[3::2]]
        return answer[0].decode(), answer[1].decode(), answer[2], ids, answer[4::2]


@on_reactor
async def test_adding_and_reading(redis_server: RedisServer) -> None:
    """What was added returns in order, from any entry on, and in pages."""
    with members(1, redis_server.url) as (member,):
        await member.is_up()
        server = Server(member)
        assert await server.read("", "0-0") == ("", "on", 0, [], [])
        assert await server.read("5", "1-1") == ("", "new", 0, [], [])
        await server.add(b"1", b"2")
        last = await server.add(b"3")
        began, what, more, ids, entries = await server.read("", "0-0")
        assert (what, more, entries, ids[-1]) == ("new", 0, [b"1", b"2", b"3"], last)
        assert await server.read(began, ids[0]) == (began, "on", 0, ids[1:], [b"2", b"3"])
        assert await server.read(began, last) == (began, "on", 0, [], [])
        assert await server.read(began, "0-0") == (began, "on", 0, ids, entries)
        assert await server.read(began, "0-0", most=2) == (began, "on", 1, ids[:2], [b"1", b"2"])
        assert await server.read("5", "1-1") == (began, "new", 0, ids, entries)
        for key in KEYS:
            assert 50_000 < int(redis_server.ask("PTTL", key)[1:]) <= LIVES_MS
        assert redis_server.ask("XLEN", "bell") == b":1\r\n"
        assert last.encode() in redis_server.ask("XRANGE", "bell", "-", "+")


@on_reactor
async def test_pages_are_bounded(redis_server: RedisServer) -> None:
    """By their bytes, but for the first entry; an entry that is too long counts as none."""
    with members(1, redis_server.url) as (member,):
        await member.is_up()
        server = Server(member)
        bodies = [b"%d" % number * 10 for number in range(10, 10 + 3 * STEP)]
        await server.add(*bodies)
        began, _, more, ids, entries = await server.read("", "0-0", most=1000)
        assert (more, entries) == (0, bodies)
        assert (await server.read(began, "0-0", room=59))[2:] == (1, ids[:2], bodies[:2])
        assert (await server.read(began, ids[-2], room=5))[2:] == (0, ids[-1:], bodies[-1:])
        assert (await server.read(began, ids[-2], longest=19))[2:] == (0, ids[-1:], [b""])
        assert (await server.read(began, "0-0", most=STEP))[2] == 1


@on_reactor
async def test_the_oldest_are_forgotten(redis_server: RedisServer) -> None:
    """So that everything together stays below the limit; those who have not read them can tell."""
    with members(1, redis_server.url) as (member,):
        await member.is_up()
        server = Server(member)
        each = 100 + ENTRY_BYTES
        limit = 50 * each
        bodies = [b"%03d" % number + b"x" * 97 for number in range(200)]
        first = await server.add(bodies[0], limit=limit)
        for number in range(1, 200, 7):
            await server.add(*bodies[number : number + 7], limit=limit)
        began, _, _, ids, entries = await server.read("", "0-0")
        assert entries == bodies[-50:]
        assert redis_server.ask("GET", "state") == b"$%d\r\n%b\r\n" % (
            len(began) + 1 + len(str(limit)),
            f"{began}:{limit}".encode(),
        )
        assert (await server.read(began, first))[1] == "missed"
        assert (await server.read(began, ids[0]))[1] == "on"
        # A smaller limit is reached little by little, and a larger one is room for more.
        await server.add(b"x" * 100, limit=10 * each)
        assert (await server.read(began, "0-0"))[4] == [*bodies[-9:], b"x" * 100]
        await server.add(b"y" * 100, limit=limit)
        assert len((await server.read(began, "0-0"))[4]) == 11


@on_reactor
async def test_a_server_is_not_held_up_by_forgetting(redis_server: RedisServer) -> None:
    """One call forgets a bounded number of entries."""
    with members(1, redis_server.url) as (member,):
        await member.is_up()
        server = Server(member)
        most = STEP * MOST_ROUNDS
        for _ in range(3):
            await server.add(*[b"x"] * (most // 2))
        await server.add(b"y", limit=1)
        assert redis_server.ask("XLEN", "s") == b":%d\r\n" % (most // 2 + 1)


@on_reactor
async def test_losses_are_told_apart(redis_server: RedisServer) -> None:
    """A stream that was begun anew, one that lost its newest entries, and one that was cut at its old end."""
    with members(1, redis_server.url) as (member,):
        await member.is_up()
        server = Server(member)
        for body in (b"1", b"2", b"3", b"4"):
            last = await server.add(body)
        began, _, _, ids, _ = await server.read("", "0-0")
        redis_server.ask("XDEL", "s", ids[2], ids[3])
        assert await server.read(began, ids[2]) == (began, "lost", 0, ids[:2], [b"1", b"2"])
        assert await server.read(began, last) == (began, "lost", 0, ids[:2], [b"1", b"2"])
        redis_server.ask("XDEL", "s", ids[0])
        assert await server.read(began, ids[0]) == (began, "missed", 0, [ids[1]], [b"2"])
        # A server that evicts keys may forget one of them.
        redis_server.ask("DEL", "s")
        assert await server.read(began, ids[1]) == (began, "on", 0, [], [])
        await server.add(b"5")
        again, what, _, _, entries = await server.read(began, ids[1])
        assert (what, entries) == ("new", [b"5"])
        assert int(again) > int(began)
        redis_server.ask("DEL", "state")
        assert (await server.read(again, "0-0"))[:2] == ("", "new")
        await server.add(b"6")
        assert (await server.read(again, "0-0"))[4] == [b"6"]


@on_reactor
async def test_after_a_loss_not_everything_is_read_again(redis_server: RedisServer) -> None:
    """The ids of new entries are not lower than those that a replica has, which is late by ten minutes at most."""
    with members(1, redis_server.url) as (member,):
        await member.is_up()
        server = Server(member)
        redis_server.ask("SET", "state", "7:400")
        for at_ms in (5, LOST_MS - 1, LOST_MS, LOST_MS + 7):
            redis_server.ask("XADD", "s", f"{at_ms}-3", "e", str(at_ms))
        lost = await server.read("7", f"{2 * LOST_MS}-9")
        assert (lost[1], lost[4]) == ("lost", [b"600000", b"600007"])
        assert (await server.read("7", "6-1"))[1::3] == ("lost", [b"5", b"599999", b"600000", b"600007"])
        assert (await server.read("7", "4-1"))[1] == "missed"


@on_reactor
async def test_what_others_have_written_does_no_lasting_harm(redis_server: RedisServer) -> None:
    """A count that is wrong, a state that makes no sense, a bell that cannot be rung."""
    with members(1, redis_server.url) as (member,):
        await member.is_up()
        server = Server(member)
        await server.add(b"1")
        redis_server.ask("SET", "state", "7:999999999999")
        redis_server.ask("XADD", "bell", "18446744073709551615-1", "e", "")
        await server.add(b"2")
        began, what, _, _, entries = await server.read("7", "0-0")
        assert (what, entries) == ("new", [b"2"])
        assert re.fullmatch(
            rb"\$\d+\r\n%b:%d\r\n" % (began.encode(), 1 + ENTRY_BYTES), redis_server.ask("GET", "state")
        )
        redis_server.ask("SET", "state", "no such thing")
        await server.add(b"3")
        assert (await server.read("", "0-0"))[4] == [b"3"]


LAST_ID = "18446744073709551615-18446744073709551615"


@on_reactor
async def test_a_damaged_key_is_replaced(redis_server: RedisServer) -> None:
    """Whichever it is, the next entry begins the stream anew or hangs up another bell, and readers find it."""
    damages = (
        [("DEL", "state"), ("RPUSH", "state", "x")],
        [("DEL", "s"), ("SET", "s", "x")],
        [("DEL", "bell"), ("SET", "bell", "x")],
        [("XADD", "s", LAST_ID, "e", "x")],
        [("XADD", "s", LAST_ID, "e", "x"), ("XDEL", "s", LAST_ID)],
        [("XADD", "bell", LAST_ID, "e", "x")],
    )
    with members(1, redis_server.url) as (member,):
        await member.is_up()
        server = Server(member)
        for damage in damages:
            await server.add(b"before")
            for words in damage:
                assert not redis_server.ask(*words).startswith(b"-")
            last = await server.add(b"1", b"2", b"3")
            assert (await server.read("", "0-0"))[4][-3:] == [b"1", b"2", b"3"], damage
            assert last.encode() in redis_server.ask("XRANGE", "bell", "-", "+"), damage
            assert redis_server.ask("XLEN", "bell") == b":1\r\n"


@on_reactor
async def test_an_id_that_ends_within_a_call_loses_none_of_its_entries(redis_server: RedisServer) -> None:
    """All entries of the call are added to the new stream."""
    with members(1, redis_server.url) as (member,):
        await member.is_up()
        server = Server(member)
        await server.add(b"before")
        redis_server.ask("XADD", "s", "18446744073709551615-18446744073709551613", "e", "x")
        await server.add(b"1", b"2", b"3")
        assert (await server.read("", "0-0"))[4] == [b"1", b"2", b"3"]


@on_reactor
async def test_a_server_without_memory_keeps_the_stream(redis_server: RedisServer) -> None:
    """What it does not take is no damage."""
    with members(1, redis_server.url) as (member,):
        await member.is_up()
        server = Server(member)
        await server.add(b"1")
        redis_server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(AnswerError, match="OOM"):
            await server.add(b"2")
        redis_server.ask("CONFIG", "SET", "maxmemory", "0")
        assert (await server.read("", "0-0"))[4] == [b"1"]
