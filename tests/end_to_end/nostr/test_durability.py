"""What was answered with OK true is there afterwards, whatever happens to the relay, its processes, disk and clock."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, Launch, Relay, asynchronous, eventually, http_get, until
from tests.end_to_end.nostr.conftest import OPEN, children, health, restarted
from tests.end_to_end.nostr.peers import Author, Event, Peer, client, ids_of
from tests.end_to_end.processes import runs
from websockets.exceptions import ConnectionClosed, InvalidMessage

from pyryrelay.nostr.storage.sqlite.schema import KEY_BYTES

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
DATABASE = "pyryrelay-nostr.sqlite"
NOT_STORED = (False, "error: could not store the event")
PUBLISHERS = 4
MIB = 1024 * 1024


@dataclass
class Ingest:
    """Publishers that send as fast as they can: notes, versions of profiles, and deletions of every third note."""

    sent: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    profiles: dict[str, list[str]] = field(default_factory=dict)
    """The ids of an author's versions, in their order."""
    deletions: dict[str, str] = field(default_factory=dict)
    """From a deletion to the note that it deletes."""

    def _events(self) -> Iterator[Event]:
        author = Author()
        for number in range(1_000_000):
            note = author.event(f"{number} {'x' * 200}", tags=[["t", "ingest"], ["t", str(number % 7)]])
            yield note
            if number % 3 == 0:
                profile = author.event(f"{number}", 0, created_at=1_790_000_000 + number)
                self.profiles.setdefault(author.pubkey, []).append(profile["id"])
                yield profile
            if number % 3 == 1:
                deletion = author.event("", 5, [["e", note["id"]]])
                self.deletions[deletion["id"]] = note["id"]
                yield deletion

    async def _publish(self, relay: Relay) -> None:
        async with client(relay.uri) as peer:
            receiving = asyncio.create_task(self._receive(peer))
            try:
                for event in self._events():
                    self.sent.add(event["id"])
                    await peer.send("EVENT", event)
                    await asyncio.sleep(0)
            except ConnectionClosed:
                pass
            finally:
                await receiving

    async def _receive(self, peer: Peer) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in peer.connection:
                message = json.loads(text)
                if message[0] == "OK" and message[2]:
                    self.accepted.add(message[1])
                elif message[0] == "OK":
                    self.refused.append(message[3])

    @contextlib.asynccontextmanager
    async def running(self, relay: Relay) -> AsyncIterator[None]:
        """Publish until the connections end, which they have at the end of the block."""
        publishing = [asyncio.create_task(self._publish(relay)) for _ in range(PUBLISHERS)]
        yield
        for publisher in publishing:
            with contextlib.suppress(OSError, InvalidMessage):
                await asyncio.wait_for(publisher, DEADLINE_S)

    async def goes_on(self, count: int) -> None:
        """Wait until that many more events were answered true."""
        goal = len(self.accepted) + count
        await eventually(lambda: len(self.accepted) > goal, "events are stored")

    def check(self, path: Path) -> None:
        """Check a database that nobody uses: what was accepted is there, and nothing is half there."""
        with contextlib.closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            stored = {row[0].hex(): row[1] for row in database.execute("SELECT id, seq FROM event")}
            tags: dict[int, int] = {}
            for (seq,) in database.execute("SELECT seq FROM tag WHERE kind = 1"):
                tags[seq] = tags.get(seq, 0) + 1
            for seq, keys in database.execute("SELECT seq, keys FROM recent WHERE kind = 1"):
                assert seq not in tags
                tags[seq] = len(keys) // KEY_BYTES
        deleted = {note for deletion, note in self.deletions.items() if deletion in stored}
        replaced = set()
        for versions in self.profiles.values():
            last = max((index for index, one in enumerate(versions) if one in self.accepted), default=0)
            kept = [index for index, one in enumerate(versions) if one in stored]
            assert len(kept) == 1 or last == 0
            assert not kept or kept[0] >= last
            replaced |= set(versions) - set(stored)
        assert self.accepted - deleted - replaced <= set(stored)
        assert not deleted & set(stored)
        notes = (
            (self.sent & set(stored))
            - {one for versions in self.profiles.values() for one in versions}
            - set(self.deletions)
        )
        assert {tags.get(stored[note]) for note in notes} <= {2}


def _workers(relay: Relay) -> list[int]:
    found = [pid for role in ("writer", "reader", "verifier") for pid in children(relay, role)]
    return found if len(found) == 4 else []


@pytest.mark.parametrize("seed", range(3))
@asynchronous
async def test_the_relay_is_killed(seed: int, tmp_path: Path) -> None:
    """After a kill -9 at any moment everything that was answered true is there, and its processes have ended."""
    ingest = Ingest()
    first = Relay(tmp_path, OPEN)
    try:
        workers = until(lambda: _workers(first), "two readers, a writer and a verifier are there")
        async with ingest.running(first):
            await ingest.goes_on(100)
            await asyncio.sleep(random.Random(seed).uniform(0, 0.5))
            first.process.kill()
    finally:
        first.discard()
    await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the processes end")
    ingest.check(tmp_path / DATABASE)
    second = restarted(first, OPEN)
    try:
        async with client(second.uri) as peer:
            note = Author().event("afterwards")
            assert await peer.publish(note) == (True, "")
            assert ids_of(await peer.fetch({"ids": [note["id"]]})) == [note["id"]]
    finally:
        second.stop()
    ingest.check(tmp_path / DATABASE)


def _has_ended(pid: int) -> bool:
    return not runs(pid)


@asynchronous
async def test_the_writer_is_killed(tmp_path: Path) -> None:
    """Events that a killed writer had are answered false; the relay goes on, and the next writer stores again."""
    ingest = Ingest()
    relay = Relay(tmp_path, OPEN)
    try:
        async with ingest.running(relay), client(relay.uri) as peer:
            for _ in range(2):
                await ingest.goes_on(100)
                (writer,) = children(relay, "writer")
                os.kill(writer, signal.SIGKILL)
                assert await peer.fetch({"limit": 3})
                # As long as it has not ended, the relay may know nothing.
                await eventually(partial(_has_ended, writer), "the writer has ended")
                await eventually(lambda: health(relay)["status"] == "ok", "the store can be written")
            assert await peer.publish(Author().event("afterwards")) == (True, "")
            relay.signal()
        relay.wait()
    finally:
        relay.discard()
    assert set(ingest.refused) <= {NOT_STORED[1], "error: the relay is shutting down"}
    ingest.check(tmp_path / DATABASE)


@pytest.mark.parametrize("role", ["reader", "verifier"])
@asynchronous
async def test_other_processes_are_killed(role: str, start_nostr: StartRelay) -> None:
    """Readers and verifiers that were killed are replaced, and every question gets an answer meanwhile."""
    relay = start_nostr("--nostr-preset", "open")
    author = Author()
    async with client(relay.uri) as peer:
        assert await peer.publish(author.event("first")) == (True, "")
        for pid in until(lambda: children(relay, role), "it has been started"):
            os.kill(pid, signal.SIGKILL)
        _, end = await peer.request("s", {"authors": [author.pubkey]})
        assert end[0] == "EOSE" or end[2] == "error: could not read the store"
        assert (await peer.publish(author.event("second")))[1] in ("", NOT_STORED[1])
        await relay.log_will_have(f"a {role} of events has ended")

        async def works() -> bool:
            note = author.event(f"third {time.monotonic()}")
            accepted, _ = await peer.publish(note)
            found, _ = await peer.request("s", {"ids": [note["id"]]})
            return accepted and found == [note]

        end_s = time.monotonic() + DEADLINE_S
        while not await works():
            assert time.monotonic() < end_s
            await asyncio.sleep(0.05)


@asynchronous
async def test_the_end_during_ingest(tmp_path: Path) -> None:
    """At a SIGTERM what the writer was given is committed and answered; subscriptions are closed, then connections."""
    ingest = Ingest()
    relay = Relay(tmp_path, OPEN)
    try:
        async with ingest.running(relay), client(relay.uri) as reader:
            await reader.subscribe("first", {"kinds": [0]})
            await reader.subscribe("second", {"limit": 0, "kinds": [7]})
            await ingest.goes_on(500)
            relay.signal()
            messages = await reader.last_messages()
            assert messages[-2:] == [
                ["CLOSED", name, "error: the relay is shutting down"] for name in ("first", "second")
            ]
            assert await reader.closed() == (1001, "shutting down")
        relay.wait()
    finally:
        relay.discard()
    assert set(ingest.refused) <= {"error: the relay is shutting down"}
    ingest.check(tmp_path / DATABASE)
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        stored = {row[0].hex() for row in database.execute("SELECT id FROM event")}
    assert stored <= ingest.accepted


def disk(folder: Path, size: str) -> Launch:
    """Return a launch with a file system of its own, of that size, that nobody else sees."""
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a small file system needs root, and unshare of util-linux")
    folder.mkdir()
    mount = f'mount -t tmpfs -o size={size} tmpfs {folder} && exec "$@"'
    return Launch(prefix=("unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh"))


@asynchronous
async def test_a_full_disk(start_nostr: StartRelay, tmp_path: Path) -> None:
    """On a full disk events are answered false and reads go on; once there is space again, so do writes."""
    folder = tmp_path / "small"
    try:
        relay = start_nostr(
            "--nostr-preset", "open", "--nostr-database", f"sqlite:{folder}/events.sqlite", launch=disk(folder, "6m")
        )
    except AssertionError as error:
        if "mount" in str(error):
            pytest.skip("this machine lets nobody mount a file system")
        raise
    author = Author()
    seen = Path(f"/proc/{relay.process.pid}/root{folder}")
    async with client(relay.uri) as peer:
        first = author.event("before")
        assert await peer.publish(first) == (True, "")
        with contextlib.suppress(OSError), (seen / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        answers = []
        while NOT_STORED not in answers:
            answers += await peer.publish_all(author.notes(10, 50_000))
            assert len(answers) < 500, "the disk does not fill up"
        # What the last one did not use may take some small ones, and the relay tries every 5 s.
        while not (answers[-1] == NOT_STORED and http_get(relay.admin_port, "/healthz")[0] == 503):
            answers.append(await peer.publish(author.event(f"one more {len(answers)}")))
            assert len(answers) < 1000, "the disk does not fill up"
        assert set(answers) <= {(True, ""), NOT_STORED}
        assert await peer.fetch({"ids": [first["id"]]}) == [first]
        assert (await peer.count({"ids": [first["id"]]}))[1] == {"count": 1}
        await relay.log_will_have("cannot be written")
        (seen / "filler").unlink()
        await eventually(lambda: http_get(relay.admin_port, "/healthz")[0] == 200, "the store can be written")
        after = author.event("after")
        assert await peer.publish(after) == (True, "")
        assert await peer.fetch({"ids": [after["id"]]}) == [after]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Hold the write lock of a database for the block, as another program may."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield database
        database.execute("ROLLBACK")


@asynchronous
async def test_a_locked_database(start_nostr: StartRelay) -> None:
    """While another program has locked the database events wait or are answered false, and reads go on."""
    relay = start_nostr()
    first, second, third = Author().notes(3)
    async with client(relay.uri) as peer:
        assert await peer.publish(first) == (True, "")
        with locked(relay.directory / DATABASE):
            await peer.send("EVENT", second)
            # The writer waits for 5 s.
            for _ in range(20):
                assert await peer.fetch({"ids": [first["id"]]}) == [first]
                await asyncio.sleep(0.02)
            assert peer.waiting("OK") == []
        assert await peer.answer("OK", second["id"]) == ["OK", second["id"], True, ""]
        with locked(relay.directory / DATABASE):
            assert await peer.publish(third) == NOT_STORED
            assert await peer.fetch({"ids": [second["id"]]}) == [second]
            assert http_get(relay.admin_port, "/healthz")[0] == 503
        assert await peer.publish(third) == (True, "")
        await eventually(lambda: http_get(relay.admin_port, "/healthz")[0] == 200, "the store can be written")


@pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not there")
@asynchronous
async def test_the_clock_jumps(start_nostr: StartRelay, tmp_path: Path) -> None:
    """Of jumps of the wall clock the relay warns; times of events follow it, and what has expired is gone."""
    clock = tmp_path / "clock"
    clock.write_text("+0", encoding="ascii")
    variables = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    database = ("--nostr-database", f"sqlite:{tmp_path}/events.sqlite")
    start_nostr(*database).stop()  # The library breaks the sleep of processes that wait for a new database.
    relay = start_nostr(*database, launch=Launch(environment=variables))
    author, now = Author(), int(time.time())
    fleeting = author.event("gone in half an hour", tags=[["expiration", str(now + 1800)]])
    fleeting_filter = {"ids": [fleeting["id"]]}
    async with client(relay.uri) as peer:
        assert await peer.publish(fleeting) == (True, "")
        assert await peer.fetch(fleeting_filter) == [fleeting]
        clock.write_text("+3600", encoding="ascii")
        assert await peer.fetch(fleeting_filter) == []
        assert (await peer.publish(author.event("later", created_at=now + 3600)))[0]
        late = author.event("late", tags=[["expiration", str(now + 1800)]])
        assert await peer.publish(late) == (False, "invalid: event has expired")
        await relay.log_will_have("clock")
        clock.write_text("-3600", encoding="ascii")
        assert await peer.publish(author.event("early")) == (
            False,
            "invalid: created_at is more than 900 s in the future",
        )
        assert (await peer.publish(author.event("then", created_at=now - 3600)))[0]
        clock.write_text("+0", encoding="ascii")
        assert (await peer.publish(author.event("now")))[0]
        assert len(await peer.fetch({"authors": [author.pubkey], "since": now - 7200})) >= 3
