"""A relay and the processes that succeed it, and peers that connect again for as long as a test runs.

The test becomes the parent of processes whose own has ended (PR_SET_CHILD_SUBREAPER of Linux), so that every exit code
is checked. Times are seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import http.client
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.end_to_end.harness import (
    DEADLINE_S,
    GENEROUS,
    LOCALHOST,
    Launch,
    Relay,
    assert_clean,
    eventually,
    until,
)
from tests.end_to_end.peers import binary, phone
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake

PR_SET_CHILD_SUBREAPER = 36
ECHO_S = 20.0
ADMIN_FIELDS = {"X-Pyryrelay-Admin": "1"}


@contextlib.contextmanager
def adopted_orphans() -> Iterator[None]:
    """Be the parent of grandchildren whose parent ends. Other tests leave theirs to the system, which collects them."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class Generations(Relay):
    """A relay that is upgraded. `pids` are its processes that may still run, the serving one last."""

    def __init__(self, directory: Path, options: tuple[str, ...] = (), launch: Launch = Launch()) -> None:  # noqa: B008
        super().__init__(directory, (*GENEROUS, *options), launch)
        self.pids = [self.process.pid]
        self.codes: dict[int, int] = {}

    @property
    def pid(self) -> int:
        """The process that serves."""
        return self.pids[-1]

    def ask(self, method: str, path: str) -> tuple[int, Any]:
        """Return status and JSON of a request to the admin listener."""
        # A new process that does not get ready is told after a minute, which is as long as the deadline.
        connection = http.client.HTTPConnection(LOCALHOST, self.admin_port, timeout=2 * DEADLINE_S)
        with contextlib.closing(connection):
            connection.request(method, path, headers=ADMIN_FIELDS)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def try_upgrade(self) -> tuple[int, dict[str, Any]]:
        """Ask for an upgrade, and return status and JSON of the answer."""
        status, body = self.ask("POST", "/upgrade")
        if status == 200:
            self.pids.append(body["pid"])
        return status, body

    def upgrade(self) -> int:
        """Upgrade, and return the number of the new process."""
        status, body = self.try_upgrade()
        assert status == 200, (body, self._written()[-4000:])
        return self.pid

    def has_ended(self, pid: int) -> bool:
        """Collect a process if it has ended."""
        if pid in self.codes:
            return True
        if pid == self.process.pid:
            code = self.process.poll()
            if code is None:
                return False
            self.codes[pid] = code
            return True
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            # Its own parent still runs, or has just ended.
            return not Path(f"/proc/{pid}").exists()
        if found:
            self.codes[pid] = os.waitstatus_to_exitcode(status)
        return bool(found)

    def has_moved(self) -> None:
        """Wait until the processes before the serving one have ended, and check their exit codes."""
        for pid in self.pids[:-1]:
            until(partial(self.has_ended, pid), f"process {pid} ends: {self._written()[-3000:]}")
            assert self.codes.get(pid, 0) in (0, -signal.SIGKILL)
        del self.pids[:-1]

    async def will_have_moved(self) -> None:
        """Do what `has_moved` does, in a coroutine."""
        for pid in self.pids[:-1]:
            await eventually(partial(self.has_ended, pid), f"process {pid} ends")
        self.has_moved()

    def stop(self) -> None:
        """End all processes in an orderly way, and check the log."""
        try:
            for pid in self.pids:
                if not self.has_ended(pid):
                    os.kill(pid, signal.SIGTERM)
            for pid in self.pids:
                until(partial(self.has_ended, pid), f"process {pid} ends")
                assert self.codes.get(pid, 0) in (0, -signal.SIGKILL)
            assert_clean(self._written())
        finally:
            self.discard()

    def discard(self) -> None:
        """Leave no process running."""
        for pid in getattr(self, "pids", []):
            if not self.has_ended(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                until(partial(self.has_ended, pid), "a killed process ends")
        super().discard()


Start = Callable[..., Generations]
"""Starts a relay with further options, and with a ``launch``."""


@contextlib.contextmanager
def starting(*always: str, is_up: Callable[[Generations], bool] = lambda relay: True) -> Iterator[Start]:
    """Start relays with these options, in folders with short names, and stop them at the end.

    Each is waited for until it ``is_up``.
    """
    relays: list[Generations] = []
    with tempfile.TemporaryDirectory(dir="/tmp") as name:

        def started(*options: str, launch: Launch = Launch()) -> Generations:  # noqa: B008
            relay = Generations(Path(name) / f"relay-{len(relays)}", (*always, *options), launch)
            relays.append(relay)
            until(lambda: is_up(relay), "the relay is up")
            return relay

        try:
            yield started
        finally:
            for relay in relays:
                relay.stop()


@dataclass
class Record:
    """What happened to peers: attempts to connect, failures, and codes with which connections were closed."""

    attempts: int = 0
    failures: list[str] = field(default_factory=list)
    closes: dict[int, int] = field(default_factory=dict)
    exchanges: int = 0
    is_over: bool = False

    def closed(self, peer: str, error: ConnectionClosed, allowed: tuple[int, ...] = (1001,)) -> None:
        """Note a close, which must have an allowed code."""
        code = 1006 if error.rcvd is None else error.rcvd.code
        self.closes[code] = self.closes.get(code, 0) + 1
        if code not in allowed:
            self.failures.append(f"{peer}: closed with {code}")


Connect = Callable[..., Any]


@dataclass
class Crowd:
    """Binaries that echo, phones that talk to them all the time, and visitors that only connect."""

    uri: str
    groups: int = 4
    phones: int = 3
    options: dict[str, Any] = field(default_factory=dict)
    allowed: tuple[int, ...] = (1001,)
    name: str = "crowd"
    record: Record = field(default_factory=Record)
    is_ready: asyncio.Event = field(default_factory=asyncio.Event)
    _progress: dict[str, int] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Record]:
        """Let the crowd go on during the block; afterwards each phone exchanges frames once more."""
        tasks = []
        for group in range(self.groups):
            server_id, held = f"{self.name}-{group}", asyncio.Event()
            tasks.append(asyncio.create_task(self._binary(server_id, held)))
            async with asyncio.timeout(DEADLINE_S):
                await held.wait()
            names = [f"{server_id}/{number}" for number in range(self.phones)]
            tasks += [asyncio.create_task(self._phone(server_id, name)) for name in names]
            tasks.append(asyncio.create_task(self._visitor(server_id)))
        await self._all_talk()
        try:
            yield self.record
            await self._all_talk()
        finally:
            self.record.is_over = True
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        errors = [error for error in ended if error is not None and not isinstance(error, asyncio.CancelledError)]
        assert errors == [], errors

    async def _all_talk(self) -> None:
        before = dict(self._progress)
        expected = self.groups * self.phones

        def done() -> bool:
            ahead = [name for name, count in self._progress.items() if count > before.get(name, 0) + 1]
            return len(ahead) == expected

        await eventually(done, f"every phone talks: {self.record}")

    async def _open(self, make: Connect, server_id: str) -> ClientConnection | None:
        """Connect once, and note a failure."""
        self.record.attempts += 1
        try:
            peer: ClientConnection = await make(self.uri, server_id, **dict(self.options))
        except (OSError, InvalidHandshake, TimeoutError, EOFError) as error:
            self.record.failures.append(f"{make.__name__} {server_id}: {error!r}")
            await asyncio.sleep(0.1)
            return None
        return peer

    async def _binary(self, server_id: str, held: asyncio.Event) -> None:
        while not self.record.is_over:
            peer = await self._open(binary, server_id)
            if peer is None:
                continue
            held.set()
            try:
                async for text in peer:
                    envelope = json.loads(text)
                    if "frame" in envelope:
                        await peer.send(text)
                await peer.recv()
            except ConnectionClosed as error:
                self.record.closed(f"binary {server_id}", error, self.allowed)
            finally:
                peer.transport.abort()
            # As a daemon does, it waits a little.
            await asyncio.sleep(random.uniform(0.0, 0.3))

    async def _phone(self, server_id: str, name: str) -> None:
        while not self.record.is_over:
            peer = await self._open(phone, server_id)
            if peer is None:
                continue
            try:
                while not self.record.is_over:
                    await peer.send(json.dumps(f"{name} {self.record.exchanges}"))
                    await self._echo(peer, server_id)
                    self.record.exchanges += 1
                    self._progress[name] = self._progress.get(name, 0) + 1
                    await asyncio.sleep(0.005)
            except ConnectionClosed as error:
                self.record.closed(f"phone {name}", error, self.allowed)
            finally:
                peer.transport.abort()

    async def _echo(self, peer: ClientConnection, server_id: str) -> None:
        """Wait for an answer, which a peer that is still connected must get."""
        try:
            async with asyncio.timeout(ECHO_S):
                await peer.recv()
        except TimeoutError:
            self.record.failures.append(f"{time.time()} {server_id}: no answer, {peer.local_address} {peer.state}")
            await peer.close()

    async def _visitor(self, server_id: str) -> None:
        """Connect as a phone all the time, and leave when the binary has answered."""
        while not self.record.is_over:
            peer = await self._open(phone, server_id)
            if peer is None:
                continue
            try:
                await peer.send('"visitor"')
                await self._echo(peer, server_id)
                await peer.close()
            except ConnectionClosed as error:
                self.record.closed(f"visitor {server_id}", error, self.allowed)
            finally:
                peer.transport.abort()
            await asyncio.sleep(0.002)
