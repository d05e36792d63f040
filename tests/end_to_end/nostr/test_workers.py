"""Several workers are one Nostr relay: one store, one stream of live events, whatever dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.generations import Generations, adopted_orphans
from tests.end_to_end.harness import Launch, Relay, asynchronous, eventually, until
from tests.end_to_end.nostr.conftest import OPEN
from tests.end_to_end.nostr.peers import Author, Event, Peer, client, ids_of
from tests.end_to_end.processes import children_of, runs
from websockets.exceptions import ConnectionClosed, InvalidMessage

from pyryrelay.workers.steering import steer

WORKERS = 2
SOURCES = [f"127.0.{number}.1" for number in range(1, 13)]
"""Addresses of different networks, which are steered to different workers."""
BY_WORKER = [[one for one in SOURCES if steer(ip_address(one), WORKERS) == index] for index in range(WORKERS)]
DATABASE = "pyryrelay-nostr.sqlite"
LAUNCH = Launch(environment={"PYRYRELAY_WORKERS": str(WORKERS)})


@pytest.fixture
def workers(start_relay: StartRelay) -> Relay:
    """A relay of two workers, which accept connections."""
    return started(start_relay(*OPEN, "--nostr-ephemeral-lifetime", "60", launch=LAUNCH))


def started(relay: Relay) -> Relay:
    """Wait until all workers of a relay have opened the store."""
    until(lambda: len(processes(relay, "verifier")) == WORKERS, "both workers have opened the store")
    return relay


def below(pid: int) -> dict[int, str]:
    """Return the processes that a process has started, and those that they have started, with their command lines."""
    found: dict[int, str] = {}
    for child in children_of(pid):
        with contextlib.suppress(OSError):
            found[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            found |= below(child)
    return found


def processes(relay: Relay, role: str) -> list[int]:
    """Return the processes of a role: ``writer``, ``exchange``, ``reader``, ``verifier``."""
    return [pid for pid, line in below(relay.process.pid).items() if f"nostr.workers.child {role}" in line]


def serving(relay: Relay) -> list[int]:
    """Return the workers' processes, which have readers."""
    return [pid for pid, line in below(relay.process.pid).items() if "twistd" in line and below(pid)]


def stored(relay: Relay) -> set[str]:
    """Return the ids of the events in the database."""
    with contextlib.closing(sqlite3.connect(relay.directory / DATABASE)) as database:
        return {row[0].hex() for row in database.execute("SELECT id FROM event")}


@contextlib.asynccontextmanager
async def peers_of(relay: Relay) -> AsyncIterator[list[Peer]]:
    """Connect clients to all workers, in turn."""
    assert all(BY_WORKER)
    sources = [one for pair in zip(*BY_WORKER, strict=False) for one in pair]
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(client(relay.uri, source=source)) for source in sources]


@asynchronous
async def test_events_reach_all_subscribers_once_and_in_one_order(workers: Relay) -> None:
    """Notes that are published at all workers at once arrive everywhere, in the order in which they were stored."""
    author = Author()
    async with peers_of(workers) as peers:
        for peer in peers:
            assert await peer.subscribe("s", {"authors": [author.pubkey]}) == []
        notes = author.notes(40 * len(peers))
        serving = workers.metrics()
        assert all(serving[f'pyryrelay_nostr_subscriptions{{worker="{index}"}}'] for index in range(WORKERS))
        publishing = [peer.publish_all(notes[place :: len(peers)]) for place, peer in enumerate(peers)]
        assert all(accepted for answers in await asyncio.gather(*publishing) for accepted, _ in answers)
        orders = [[(await peer.live("s"))["id"] for _ in notes] for peer in peers]
        assert sorted(orders[0]) == sorted(ids_of(notes))
        assert all(order == orders[0] for order in orders)
        for peer in peers:
            assert len(await peer.fetch({"authors": [author.pubkey], "limit": 1000})) == len(notes)
            assert await peer.count({"authors": [author.pubkey]}) == ["COUNT", {"count": len(notes)}]
            await peer.settled()
            assert peer.waiting("EVENT", "s") == []


@asynchronous
async def test_a_subscription_that_opens_meanwhile_gets_everything_once(workers: Relay) -> None:
    """Before or behind EOSE, whatever is committed between the query of one worker and the live events of another."""
    author = Author()
    async with (
        client(workers.uri, source=BY_WORKER[0][0]) as publisher,
        client(workers.uri, source=BY_WORKER[1][0]) as reader,
    ):
        notes = author.notes(400)
        names = [f"s{number}" for number in range(20)]
        for number, name in enumerate(names):
            publishing = asyncio.create_task(publisher.publish_all(notes[20 * number : 20 * (number + 1)]))
            await asyncio.sleep(0)  # so that they are sent
            await reader.send("REQ", name, {"authors": [author.pubkey], "limit": 5000})
            assert all(accepted for accepted, _ in await publishing)
        for name in names:
            got = [(await reader.live(name))["id"] for _ in notes]
            assert sorted(got) == sorted(ids_of(notes))
        await reader.settled()
        assert reader.waiting("EVENT") == []


@asynchronous
async def test_events_that_pass_and_events_that_go(workers: Relay) -> None:
    """Ephemeral events, whether anybody listens, deletions, and newer versions are known to all workers."""
    author = Author()
    async with client(workers.uri, source=BY_WORKER[0][0]) as one, client(workers.uri, source=BY_WORKER[1][0]) as other:
        passing = author.event("passing", 20001)
        assert await one.publish(author.event("unheard", 20002)) == (True, "mute: nobody was listening")
        await other.subscribe("s", {"kinds": [20001], "limit": 0})
        assert await one.publish(passing) == (True, "")
        assert await other.live("s") == passing
        assert await other.publish(passing) == (True, "duplicate: already have this event")
        assert await other.fetch({"kinds": [20001]}) == [passing]
        note, profile = author.event("note"), author.event("{}", 0, created_at=1_790_000_000)
        for event in (note, profile):
            assert (await one.publish(event))[0]
        assert (await other.publish(author.event("", 5, [["e", note["id"]]])))[0]
        newer = author.event("{}", 0, created_at=1_790_000_001)
        assert (await other.publish(newer))[0]
        assert await one.fetch({"kinds": [0, 1]}) == [newer]
        assert (await one.publish(note))[1] == "blocked: deleted by its author"


@asynchronous
async def test_an_author_has_one_quota_at_all_workers(start_relay: StartRelay) -> None:
    """A key that has spent its tokens at one worker is refused by the other one, within milliseconds."""
    relay = started(start_relay(*OPEN, "--nostr-pubkey-quota", "20/day burst 20", launch=LAUNCH))
    author = Author()
    async with client(relay.uri, source=BY_WORKER[0][0]) as one, client(relay.uri, source=BY_WORKER[1][0]) as other:
        answers = await one.publish_all(author.notes(25))
        assert [accepted for accepted, _ in answers] == [True] * 20 + [False] * 5
        # Each try costs a token here, too: with longer and longer pauses they last for minutes.
        spent = 0
        while (await other.publish(author.notes(1)[0]))[0]:
            spent += 1
            await asyncio.sleep(0.01 * 1.6**spent)
        assert spent < 20, "the other worker has heard nothing"
        assert (await other.publish(Author().notes(1)[0]))[0]


class Publishers:
    """Clients of all workers that publish as fast as they are answered, and connect again when they are cut off."""

    def __init__(self) -> None:
        self.accepted: set[str] = set()
        self.sent: set[str] = set()
        self.refused: Counter[str] = Counter()
        self.is_over = False

    async def _publish(self, relay: Relay, source: str) -> None:
        author = Author()
        while not self.is_over:
            with contextlib.suppress(OSError, ConnectionClosed, InvalidMessage, EOFError):
                async with client(relay.uri, source=source) as peer:
                    while not self.is_over:
                        await self._batch(peer, author.notes(5, 100))
            await asyncio.sleep(0.05)

    async def _batch(self, peer: Peer, notes: list[Event]) -> None:
        self.sent.update(ids_of(notes))
        for note, (accepted, text) in zip(notes, await peer.publish_all(notes), strict=True):
            if accepted:
                self.accepted.add(note["id"])
            else:
                self.refused[text] += 1

    @contextlib.asynccontextmanager
    async def running(self, relay: Relay) -> AsyncIterator[None]:
        """Publish during the block."""
        tasks = [asyncio.create_task(self._publish(relay, source)) for source in SOURCES[:6]]
        try:
            yield
        finally:
            self.is_over = True
            await asyncio.wait(tasks, timeout=30)
            for task in tasks:
                task.cancel()

    async def more(self, count: int) -> None:
        """Wait until so many more events were accepted."""
        before = len(self.accepted)
        await eventually(lambda: len(self.accepted) >= before + count, f"{count} more events are accepted")


@asynchronous
async def test_nothing_that_was_accepted_is_lost_when_processes_are_killed(workers: Relay) -> None:
    """The writer, the exchange and a worker, during ingest; subscribers that stay connected miss nothing either."""
    publishers = Publishers()
    async with client(workers.uri, source=BY_WORKER[0][-1]) as listener:
        await listener.subscribe("s", {"kinds": [1], "limit": 0})
        async with publishers.running(workers):
            for role in ("writer", "exchange", "writer"):
                await publishers.more(30)
                (pid,) = processes(workers, role)
                os.kill(pid, signal.SIGKILL)
            await publishers.more(30)
        await listener.settled()
        there = stored(workers)
        assert publishers.accepted <= there <= publishers.sent
        got = Counter([(await listener.live("s"))["id"] for _ in there])
        assert set(got) == there
        assert max(got.values()) == 1
    again = Publishers()
    async with again.running(workers):
        await again.more(30)
        os.kill(serving(workers)[0], signal.SIGKILL)
        await again.more(30)
        await eventually(lambda: len(serving(workers)) == WORKERS, "the worker is replaced")
        await again.more(30)
    assert again.accepted <= stored(workers)


@asynchronous
async def test_a_killed_supervisor_leaves_no_process_and_loses_nothing(tmp_path: Path) -> None:
    """Everything ends with it, within seconds, and the next relay has all that was accepted."""
    workers = started(Relay(tmp_path / "relay", OPEN, LAUNCH))
    publishers = Publishers()
    async with publishers.running(workers):
        await publishers.more(50)
        family = below(workers.process.pid)
        workers.process.kill()
        workers.process.wait()
        await eventually(lambda: not any(map(runs, family)), "no process is left")
        publishers.is_over = True
    assert publishers.accepted <= stored(workers)
    workers.discard()
    again = started(Relay(tmp_path / "relay", OPEN, LAUNCH))
    async with client(again.uri) as peer:
        assert await peer.count({"kinds": [1]}) == ["COUNT", {"count": len(stored(again))}]
    again.stop()


@asynchronous
async def test_an_upgrade_hands_the_store_over_once(tmp_path: Path) -> None:
    """The new relay's writer opens the store when the old one's has closed it; nobody is refused meanwhile."""
    with adopted_orphans():
        workers = Generations(tmp_path / "relay", OPEN, LAUNCH)
        started(workers)
        publishers = Publishers()
        family = below(workers.process.pid)
        async with publishers.running(workers):
            await publishers.more(50)
            await asyncio.to_thread(workers.upgrade)
            await eventually(lambda: not any(map(runs, family)), "the processes of the old relay have ended")
            await publishers.more(50)
        assert publishers.accepted <= stored(workers)
        assert not publishers.refused
        workers.stop()
