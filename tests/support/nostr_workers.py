"""Several workers of one Nostr relay in one test: real relays and shared children, whose frames wait until the test
passes them on, one by one, on a clock that only the test moves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from tests.support.model_store import ModelStore
from tests.support.nostr_relay import OPEN_OPTIONS, WALL_S, Client, FakeLog, FakePeer, FakeVerifiers, json_of
from twisted.internet.task import Clock

from pyryrelay.guard import ClientAddress
from pyryrelay.guard.client import named
from pyryrelay.nostr.events import Event
from pyryrelay.nostr.filters import Matcher
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.policies.quotas.quotas import NostrQuotas
from pyryrelay.nostr.policies.quotas.tables import Sharing
from pyryrelay.nostr.serving.relay import Relay, Rules
from pyryrelay.nostr.serving.session import NostrSession
from pyryrelay.nostr.serving.surroundings import Machine, Store
from pyryrelay.nostr.workers.shared.clients import SharedWorker
from pyryrelay.nostr.workers.shared.exchange import Exchange
from pyryrelay.nostr.workers.shared.others import Others
from pyryrelay.nostr.workers.shared.writer import Opened, SharedWriter
from pyryrelay.nostr.workers.store_readers import CREDIT_BYTES, QueryListener
from pyryrelay.nostr.workers.store_writer import StoreWriter
from pyryrelay.nostr.workers.wire import Query, WriterConfig
from pyryrelay.nostr.workers.worker_process import ChildServices

DATABASE = "sqlite:/shared"


class End:
    """A worker's connection to a shared child. None is the end of a stream."""

    pid = None

    def __init__(
        self, server: Server, number: int, received: Callable[[bytes], None], ended: Callable[[str], None]
    ) -> None:
        self.server = server
        self.number = number
        self.up: deque[bytes | None] = deque()
        self.down: deque[bytes | None] = deque()
        self.received = received
        self.ended = ended
        self.is_dead = False

    def send(self, body: bytes) -> None:
        """Send a frame."""
        if not self.is_dead:
            self.up.append(body)

    def close(self) -> None:
        """Send nothing more."""
        if not self.is_dead:
            self.up.append(None)

    def kill(self) -> None:
        """End the connection."""
        self.up.append(None)
        self.down.append(None)

    def kill_process(self) -> None:
        """Kill the worker: what it has sent arrives, and it hears of nothing more."""
        self.is_dead = True
        self.received = lambda body: None
        self.ended = lambda reason: None
        self.up.append(None)

    def pass_up(self) -> None:
        """Let the child have the next frame."""
        body = self.up.popleft()
        if body is None:
            self.server.worker.left(self.number)
        else:
            self.server.worker.receive(self.number, body)

    def pass_down(self) -> None:
        """Let the worker have the next frame."""
        body = self.down.popleft()
        if body is not None:
            self.received(body)
        else:
            self.up.clear()
            self.server.ends.pop(self.number, None)
            self.ended("the connection has ended")


class Server:
    """A shared child, and its connections; see `pyryrelay.nostr.workers.shared.clients.Connected`."""

    def __init__(self, make: Callable[[Server], SharedWorker]) -> None:
        self._make = make
        self.ends: dict[int, End] = {}
        self.worker = make(self)
        self._number = 0

    def send(self, number: int, body: bytes) -> None:
        """Send a frame."""
        if number in self.ends:
            self.ends[number].down.append(body)

    def close(self, number: int) -> None:
        """Disconnect a worker."""
        if number in self.ends:
            self.ends[number].down.append(None)

    def connect(self, arguments: Sequence[str], received: Callable[[bytes], None], ended: Callable[[str], None]) -> End:
        """Connect a worker."""
        self._number += 1
        end = self.ends[self._number] = End(self, self._number, received, ended)
        self.worker.joined(self._number)
        return end

    def restart(self, arrive: int) -> None:
        """Kill the child and start another one. Of what was sent to a worker, so many frames still arrive."""
        for number, end in self.ends.items():
            end.down = deque([*list(end.down)[: max(0, arrive + number % 2)], None])
            end.up.clear()
            end.is_dead = True
        self.ends = {}
        self.worker = self._make(self)


@dataclass
class SimQuery:
    """A query. Its snapshot is taken before its rows are sent."""

    store: ModelStore
    query: Query
    listener: QueryListener
    is_open: bool = True
    taken: tuple[int, list[bytes]] | None = None

    def more(self, size: int) -> None:
        """Take credit, of which there is always enough."""

    def cancel(self) -> None:
        """End the query."""
        self.is_open = False

    def go_on(self) -> None:
        """Take the snapshot, or answer from it."""
        if self.taken is None:
            self.taken = self.store.statistics().last_seq, list(self._rows())
            return
        seq, rows = self.taken
        self.is_open = False
        self.listener.snapshot(seq)
        if rows:
            self.listener.rows(rows)
        self.listener.done("finish", 1, None)

    def _rows(self) -> Iterator[bytes]:
        matchers = [Matcher.of(one) for one in self.query.filters]
        most = self.query.limits.max_seq
        events = sorted(self.store.events.values(), key=lambda event: (-event.created_at, event.id))
        for event in events:
            is_seen = most is None or self.store.seqs[event.id] <= most
            if is_seen and any(matcher(event) for matcher in matchers):
                yield json_of(event)


@dataclass
class SimReaders:
    """Readers of the model store."""

    store: ModelStore
    queries: list[SimQuery] = field(default_factory=list)

    def open(self, query: Query, listener: QueryListener, credit: int = CREDIT_BYTES) -> SimQuery:
        """Take a query."""
        self.queries.append(SimQuery(self.store, query, listener))
        return self.queries[-1]

    @property
    def running(self) -> list[SimQuery]:
        """The queries that have not ended."""
        self.queries = [one for one in self.queries if one.is_open]
        return self.queries


class Worker:
    """One worker: a relay, its clients of the shared children, and readers of its own."""

    def __init__(self, host: Host, options: NostrOptions) -> None:
        self._host = host
        self.clock = host.clock
        quotas = NostrQuotas()
        quotas.share(Sharing(with_workers=lambda: self.relay.charge_later()))
        machine = Machine(
            now=self.clock.seconds,
            wall_s=lambda: WALL_S + int(self.clock.seconds()),
            call_later=self.clock.callLater,
            strike=lambda client, reason: None,
            is_exempt=lambda client: False,
            log=FakeLog(),
        )
        self.relay = Relay(machine, Rules.of(options), quotas)
        self.relay.on_ready = self._ready
        self.readers, self.verifiers = SimReaders(host.store), FakeVerifiers()
        config = WriterConfig(database=DATABASE)
        self.writer = StoreWriter(self._services(host.writer), config, self.relay, is_shared=True)
        self.others = Others(self._services(host.exchange), self.relay)
        self.relay.join(self.others)
        self.others.start()
        self.writer.start()

    def _services(self, server: Server) -> ChildServices:
        start: Any = server.connect
        return ChildServices(start, self.clock.callLater, self.clock.seconds)

    def _ready(self) -> None:
        if not self.relay.is_started:
            self.relay.start(cast(Store, self))

    def client(self, address: ClientAddress | None = None) -> Client:
        """Return a client that has just connected."""
        peer = FakePeer()
        session = NostrSession(self.relay, peer, address or named("192.0.2.7"))
        return Client(cast(Any, self), peer, session)

    def turn(self) -> None:
        """Run what is scheduled for now."""
        self.clock.advance(0)


class Host:
    """Workers that are one relay, and the children that they share."""

    def __init__(
        self, count: int = 2, *, clock: Clock | None = None, store: ModelStore | None = None, **options: Any
    ) -> None:
        self.clock = Clock() if clock is None else clock
        self.store = ModelStore() if store is None else store
        self.writer = Server(
            lambda server: SharedWriter(
                server, lambda config: Opened(self.store, config.database), self.clock.seconds, lambda: WALL_S
            )
        )
        self.exchange = Server(Exchange)
        self.options = replace(NostrOptions(), **(OPEN_OPTIONS | options))
        self.workers = [Worker(self, self.options) for _ in range(count)]

    @property
    def ends(self) -> list[End]:
        """All connections over which something is on its way."""
        servers = [*self.writer.ends.values(), *self.exchange.ends.values(), *self._orphans]
        return [end for end in servers if end.up or end.down]

    _orphans: Sequence[End] = ()

    def restart_writer(self, arrive: int = 0) -> None:
        """Kill the writer, and start another one on the same store."""
        self._orphans = [*(one for one in self._orphans if one.down), *self.writer.ends.values()]
        self.writer.restart(arrive)

    def settle(self) -> None:
        """Let everything happen that is under way."""
        for _ in range(10_000):
            self.clock.advance(0)
            if not self.step():
                return
        raise AssertionError("it does not come to rest")

    def step(self) -> bool:
        """Let the children do what was asked of them, and return whether there was anything or is now."""
        ends = self.ends
        for end in ends:
            while end.down:
                end.pass_down()
            while end.up:
                end.pass_up()
        self.writer.worker.work()
        queries = [query for worker in self.workers for query in worker.readers.running]
        for query in queries:
            query.go_on()
        return bool(ends or queries or self.ends)

    def pass_s(self, seconds: float) -> None:
        """Let time pass, and everything happen meanwhile."""
        self.clock.advance(seconds)
        for worker in self.workers:
            worker.relay.tick()
        self.settle()


def received(messages: Sequence[Any], id_: str) -> list[str]:
    """Return the ids of the events that a subscription has received, and ``EOSE`` where that was."""
    return [
        "EOSE" if one[0] == "EOSE" else one[2]["id"]
        for one in messages
        if one[0] in ("EOSE", "EVENT") and one[1] == id_
    ]


__all__ = ["DATABASE", "Event", "Host", "Server", "Worker", "received"]
