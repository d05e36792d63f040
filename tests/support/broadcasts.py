"""Servers of a cluster in memory, and members that tell each other something by them: `pyryrelay.broadcast`.

Everything happens in a later turn of a `Clock`: after `Clock.advance`, entries are added and read. A read that is due
goes on in further turns, so a test that wants all of it says ``clock.pump([0.0] * 10)``, or calls `FakeServers.settle`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from pyryrelay.broadcast import MAX_BODY_BYTES, BroadcastError, BroadcastListener, Entry

PAGE = 200
RETRY_S = 1.0


class Kept(NamedTuple):
    """An entry on a server; a body of None is one that nobody can read."""

    number: int
    sender: int
    body: bytes | None
    added_at: float


@dataclass
class FakeServer:
    """One server, as it is for all members."""

    entries: list[Kept] = field(default_factory=list)
    generation: int = 1
    newest: int = 0
    is_up: bool = True
    refusal: str = ""
    """Why it adds nothing although it is up, such as for want of memory."""

    @property
    def newest_kept(self) -> int:
        """The number of the newest entry; 0 if there is none."""
        return self.entries[-1].number if self.entries else 0

    def keep(self, sender: int, body: bytes | None, now: float) -> None:
        """Add an entry."""
        self.newest += 1
        self.entries.append(Kept(self.newest, sender, body, now))


class FakeServers:
    """The servers, and all who use them."""

    def __init__(self, clock: Clock, count: int = 1) -> None:
        self.clock = clock
        self.servers = [FakeServer() for _ in range(count)]
        self.members: list[FakeBroadcast] = []

    def member(self) -> FakeBroadcast:
        """Return the broadcast of another relay, or of one that has started again."""
        made = FakeBroadcast(self, len(self.members))
        self.members.append(made)
        return made

    def settle(self) -> None:
        """Let everything happen that can happen now."""
        self.clock.pump([0.0] * 50)

    # Faults

    def down(self, source: int = 0) -> None:
        """End a server; it keeps what it has."""
        for member in self.members:
            member.notes_time(source)
        self.servers[source].is_up = False

    def up(self, source: int = 0) -> None:
        """Let a server be used again."""
        self.servers[source].is_up = True
        for member in self.members:
            member.is_back(source)

    def restart_empty(self, source: int = 0) -> None:
        """Have a server lose everything."""
        server = self.servers[source]
        server.entries.clear()
        server.generation += 1
        self.up(source)

    def lose_newest(self, count: int, source: int = 0) -> None:
        """Fail over to a replica that had not heard of the newest entries."""
        server = self.servers[source]
        del server.entries[-count:]
        self.up(source)

    def trim(self, left: int, source: int = 0) -> None:
        """Keep only the newest entries."""
        server = self.servers[source]
        del server.entries[: max(0, len(server.entries) - left)]

    def forge(self, source: int = 0) -> None:
        """Have somebody without the secret add an entry."""
        self.servers[source].keep(-1, None, self.clock.seconds())
        self.wake(source)

    def repeat(self, number: int = 0, source: int = 0) -> None:
        """Have somebody add an entry again; ``number`` is its place among those that are kept."""
        server = self.servers[source]
        old = server.entries[number]
        server.keep(old.sender, old.body, old.added_at)
        self.wake(source)

    def wake(self, source: int) -> None:
        """Let everybody read."""
        for member in self.members:
            member.read_soon(source)


class NotingListener:
    """`pyryrelay.broadcast.BroadcastListener` that notes what it is told.

    While ``answer`` is set, that is what it returns; it keeps no positions then.
    """

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.ages: list[float] = []
        self.positions: dict[str, str] = {}
        self.told: list[str] = []
        self.answer: Deferred[None] | None = None

    def entries(self, source: str, entries: Sequence[Entry]) -> Deferred[None]:
        """Take entries."""
        self.bodies += [entry.body for entry in entries]
        self.ages += [entry.age_s for entry in entries]
        if self.answer is not None:
            return self.answer
        self.positions[source] = entries[-1].position
        return succeed(None)

    def passed(self, source: str, position: str) -> None:
        """Take a position."""
        self.positions[source] = position

    def connected(self) -> None:
        """Note it."""
        self.told.append("connected")

    def lost(self, source: str, since_s: float) -> None:
        """Note it."""
        self.told.append(f"lost {source} {since_s:g}")

    def missed(self, source: str, since_s: float, until_s: float) -> None:
        """Note it."""
        self.told.append(f"missed {source} {since_s:g} {until_s:g}")


class FakeBroadcast:
    """`pyryrelay.broadcast.Broadcast` of one member. ``is_cut`` cuts it off from all servers until `heal`."""

    def __init__(self, servers: FakeServers, number: int) -> None:
        self.added: list[bytes] = []
        """What was added by this member, in order."""
        self.is_cut = False
        self.is_stopped = False
        self._servers = servers
        self._number = number
        self._listener: BroadcastListener | None = None
        self._positions: dict[int, tuple[int, int]] = {}
        self._up_to_date_at: dict[int, float] = {}
        self._is_reading: set[int] = set()
        self._is_waiting: set[int] = set()
        self._has_read: set[int] = set()
        """The servers on which this member, or one before it, has found entries."""

    # What a protocol calls

    def add(self, key: bytes, body: bytes) -> Deferred[None]:
        """See `pyryrelay.broadcast.Broadcast.add`."""
        if self.is_stopped or len(body) > MAX_BODY_BYTES:
            return fail(BroadcastError("it stops, or the body is too large"))
        source = key[0] % len(self._servers.servers)
        if not self._can_use(source):
            return fail(BroadcastError("the server is down"))
        done: Deferred[None] = Deferred()
        self._later(lambda: self._add(source, body, done))
        return done

    def follow(self, positions: Mapping[str, str], listener: BroadcastListener) -> None:
        """See `pyryrelay.broadcast.Broadcast.follow`."""
        assert self._listener is None
        self._listener = listener
        for source in range(len(self._servers.servers)):
            generation, number, read_at = positions.get(str(source), "0/0/0").split("/")
            self._positions[source] = int(generation), int(number)
            self._up_to_date_at[source] = float(read_at)
            if str(source) in positions:
                self._has_read.add(source)
            self._later(partial(self.is_back, source))

    def stop(self) -> None:
        """See `pyryrelay.broadcast.Broadcast.stop`."""
        self.is_stopped = True

    # What a test calls

    def cut(self) -> None:
        """Cut this member off from all servers."""
        for source in range(len(self._servers.servers)):
            self.notes_time(source)
        self.is_cut = True

    def heal(self) -> None:
        """End what `cut` has begun."""
        self.is_cut = False
        for source in range(len(self._servers.servers)):
            self.is_back(source)

    # The rest

    def notes_time(self, source: int) -> None:
        """Note that all was read until now, if this member has been waiting for more."""
        if source in self._is_waiting:
            self._is_waiting.discard(source)
            self._up_to_date_at[source] = self._servers.clock.seconds()

    def _later(self, call: Callable[[], object]) -> None:
        self._servers.clock.callLater(0.0, call)

    def _can_use(self, source: int) -> bool:
        return self._servers.servers[source].is_up and not self.is_cut and not self.is_stopped

    def _add(self, source: int, body: bytes, done: Deferred[None]) -> None:
        server = self._servers.servers[source]
        if not self._can_use(source) or server.refusal:
            done.errback(Failure(BroadcastError(server.refusal or "the connection ended")))
            return
        self.added.append(body)
        server.keep(self._number, body, self._servers.clock.seconds())
        self._servers.wake(source)
        done.callback(None)

    def is_back(self, source: int) -> None:
        """Tell the listener that a server can be used, and read from it."""
        if self._listener is not None and self._can_use(source):
            self._listener.connected()
            self.read_soon(source)

    def read_soon(self, source: int) -> None:
        """Read in a later turn, unless this member is reading."""
        if self._listener is not None and source not in self._is_reading:
            self._is_reading.add(source)
            self._later(lambda: self._read(source))

    def _read(self, source: int) -> None:
        self._is_reading.discard(source)
        listener = self._listener
        if listener is None or not self._can_use(source):
            return
        found = self._next(source, listener)
        if not found:
            self._up_to_date_at[source] = self._servers.clock.seconds()
            self._is_waiting.add(source)
            return
        foreign = [each for each in found if each.body is not None and each.sender != self._number]
        self._is_reading.add(source)
        done = listener.entries(str(source), self._entries(source, foreign)) if foreign else succeed(None)
        done.addCallbacks(lambda ignored: self._taken(source, found, foreign), lambda failure: self._again(source))

    def _next(self, source: int, listener: BroadcastListener) -> list[Kept]:
        """Return what to read next, from the oldest entry on if the server is another one."""
        server = self._servers.servers[source]
        generation, number = self._positions[source]
        self.notes_time(source)
        seen = server.generation if server.entries else 0  # what is empty has not begun
        if generation != seen:
            if source in self._has_read:
                listener.lost(str(source), self._servers.clock.seconds() - self._up_to_date_at[source])
            number = 0
        elif number and server.newest_kept < number:
            listener.lost(str(source), 0.0)
            number = 0
        elif number and server.entries[0].number > number + 1:
            now = self._servers.clock.seconds()
            listener.missed(str(source), now - self._up_to_date_at[source], now - server.entries[0].added_at)
        if seen:
            self._has_read.add(source)
        self._positions[source] = seen, number
        return [each for each in server.entries if each.number > number][:PAGE]

    def _entries(self, source: int, kept: Sequence[Kept]) -> list[Entry]:
        now, generation = self._servers.clock.seconds(), self._servers.servers[source].generation
        return [
            Entry(f"{generation}/{each.number}/{each.added_at}", each.body or b"", now - each.added_at) for each in kept
        ]

    def _taken(self, source: int, found: Sequence[Kept], foreign: Sequence[Kept]) -> None:
        self._is_reading.discard(source)
        generation, last = self._positions[source][0], found[-1].number
        self._positions[source] = generation, last
        if self._listener is None or self.is_stopped:
            return
        if not foreign or foreign[-1].number < last:
            self._listener.passed(str(source), f"{generation}/{last}/{found[-1].added_at}")
        self.read_soon(source)

    def _again(self, source: int) -> None:
        """Read the same once more, a second later."""
        self._is_reading.discard(source)
        self._servers.clock.callLater(RETRY_S, lambda: self.read_soon(source))
