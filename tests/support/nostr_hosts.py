"""Several hosts that share events: real relays with their workers and writers, on the servers of `FakeServers`, and a
clock that only the test moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from tests.support.broadcasts import FakeBroadcast, FakeServers
from tests.support.model_store import ModelStore
from tests.support.nostr_relay import Client, json_of
from tests.support.nostr_workers import End, Host, Worker, received
from twisted.internet.task import Clock

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.replication.replication import Replication
from pyryrelay.nostr.replication.totals import Totals
from pyryrelay.nostr.serving.surroundings import Store
from pyryrelay.nostr.workers.store_writer import Stored

__all__ = ["Cluster", "HostLog", "Machine", "Subscriber"]


class LifeClock:
    """A clock of processes: nothing is called any more once they are dead."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.is_alive = True
        self.seconds = clock.seconds
        self.advance = clock.advance

    def callLater(self, delay_s: float, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call later, unless the process is dead by then."""
        return self._clock.callLater(delay_s, lambda: call(*arguments) if self.is_alive else None)


@dataclass
class HostLog:
    """Keeps what would be logged about events between hosts."""

    lines: list[tuple[object, ...]] = field(default_factory=list)

    def sharing_events(self, waiting: int) -> None:
        """Keep the start."""
        self.lines.append(("sharing", waiting))

    def announcing_stopped(self, reason: str) -> None:
        """Keep the beginning of an outage."""
        self.lines.append(("stopped", reason))

    def announcing_again(self, waiting: int) -> None:
        """Keep its end."""
        self.lines.append(("again", waiting))

    def asking_again(self, seconds: int) -> None:
        """Keep a question."""
        self.lines.append(("asking", seconds))

    def announcing_once_more(self, count: int) -> None:
        """Keep an answer."""
        self.lines.append(("once more", count))

    def asking_for_trimmed(self, seconds: int, until: int) -> None:
        """Keep a question for what was not kept."""
        self.lines.append(("asking for trimmed", seconds, until))

    def trimmed_given(self) -> None:
        """Keep the end of an answer."""
        self.lines.append(("given",))

    def events_missed(self) -> None:
        """Keep a loss."""
        self.lines.append(("missed",))

    def not_announced(self, size: int) -> None:
        """Keep an event that is too large."""
        self.lines.append(("too large", size))

    def host_lies(self, word: str) -> None:
        """Keep a wrong event."""
        self.lines.append(("lies", word))


class Subscriber:
    """A client that hears of everything from now on."""

    def __init__(self, machine: Machine, worker: int = 0) -> None:
        self.machine = machine
        self._client: Client = machine.host.workers[worker].client()
        self._client.send(["REQ", "all", {"limit": 0}])
        self._heard: list[str] = []

    @property
    def heard(self) -> list[str]:
        """The ids of the events that it was sent, in order."""
        self._heard += [one for one in received(self._client.peer.take(), "all") if one != "EOSE"]
        return self._heard


class Machine:
    """One host. Its store outlives its processes."""

    def __init__(self, cluster: Cluster, workers: int = 1, **options: Any) -> None:
        self.cluster = cluster
        self.store = ModelStore()
        self.log = HostLog()
        self.missed = 0
        self._workers = workers
        self._options = options
        self.start()

    def start(self) -> None:
        """Start its processes."""
        self.lives: list[LifeClock] = []
        self._ends: dict[Worker, list[End]] = {}
        self.host = Host(0, clock=self._life(), store=self.store, **self._options)
        self.host.workers = [self._worker() for _ in range(self._workers)]
        self._share()

    def _life(self) -> Clock:
        """Return the clock of another process."""
        self.lives.append(LifeClock(self.cluster.clock))
        return cast(Clock, self.lives[-1])

    def _worker(self) -> Worker:
        self.host.clock = self._life()
        worker = Worker(self.host, self.host.options)
        worker.relay.is_clustered = True
        self._ends[worker] = [[*server.ends.values()][-1] for server in (self.host.writer, self.host.exchange)]
        return worker

    def _share(self) -> None:
        """Have the first worker share events."""
        self.totals = Totals()
        relay, call_later = self.host.workers[0].relay, self.host.workers[0].clock.callLater
        self.replication = Replication(relay, self._make, call_later, self.totals, self.log)
        self._was_missed = self.replication.missed
        self.replication.missed = self._note_missed  # type: ignore[method-assign]
        ready = relay.on_ready

        def begin() -> None:
            if ready is not None:
                ready()
            self.replication.start(cast(Store, self.host.workers[0]))

        relay.on_ready = begin

    def _note_missed(self, source: str, since_s: float, until_s: float) -> None:
        self.missed += 1
        self._was_missed(source, since_s, until_s)

    def import_from(self, other: Machine) -> None:
        """Import what another host has exported."""
        relay, writer = self.host.workers[0].relay, self.host.workers[0].writer
        events = [*other.store.events.values()]

        def written(stored: Stored | None) -> None:
            assert stored is not None
            relay.imported([(one, json_of(one), seq) for one, seq in zip(events, stored.seqs, strict=True) if seq])

        writer.write([json_of(one) for one in events], written)
        self.cluster.settle()

    def _make(self, subject: str) -> FakeBroadcast:
        assert subject == "events"
        self.broadcast = self.cluster.servers.member()
        return self.broadcast

    def halt(self) -> None:
        """Kill its processes."""
        for life in self.lives:
            life.is_alive = False
        self.broadcast.stop()

    def kill(self) -> None:
        """Kill its processes, and start new ones."""
        self.halt()
        self.start()
        self.cluster.settle()

    def kill_first_worker(self) -> None:
        """Kill the process that shares events, and no other, and start a new one in its place."""
        first = cast(LifeClock, self.host.workers[0].clock)
        first.is_alive = False
        self.broadcast.stop()
        for end in self._ends[self.host.workers[0]]:
            end.kill_process()
        self.host.workers[0] = self._worker()
        self._share()
        self.cluster.settle()

    def restart(self) -> None:
        """Stop in order, and start again."""
        self.replication.flush()
        self.cluster.settle()
        self.replication.stop()
        self.cluster.settle()
        self.kill()

    def publish(self, *events: Event, worker: int = 0) -> list[Any]:
        """Have a client publish events, and return what it was answered once everything has settled."""
        client = self.host.workers[worker].client()
        client.send(*[["EVENT", one] for one in map(_as_dict, events)])
        self.cluster.settle()
        return client.peer.take()

    @property
    def ids(self) -> set[str]:
        """The ids of what is stored."""
        return set(self.store.events)

    def subscribe(self, worker: int = 0) -> Subscriber:
        """Return a new subscriber."""
        made = Subscriber(self, worker)
        self.cluster.settle()
        return made


class Cluster:
    """Hosts, and the servers that they share."""

    def __init__(self, *workers: int, servers: int = 1, **options: Any) -> None:
        self.clock = Clock()
        self.servers = FakeServers(self.clock, servers)
        self.machines: list[Machine] = []
        for count in workers:
            self.machines.append(Machine(self, count, **options))
        self.settle()

    def settle(self) -> None:
        """Let everything happen that can happen now."""
        for _ in range(10_000):
            self.clock.advance(0)
            is_working = [machine.host.step() for machine in self.machines]
            calls: list[Any] = self.clock.calls
            is_due = any(call.getTime() <= self.clock.seconds() for call in calls)
            if not is_due and not any(is_working):
                return
        raise AssertionError("it does not come to rest")

    def pass_s(self, seconds: float) -> None:
        """Let time pass, a second at a time."""
        while seconds > 0:
            self.clock.advance(min(1.0, seconds))
            seconds -= 1.0
            self.settle()


def _as_dict(one: Event) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__struct_fields__}
