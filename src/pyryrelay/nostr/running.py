"""The Nostr relay in one running process: what its options become, its processes, its clock, its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Final

from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred, DeferredList, fail, succeed

from pyryrelay import __version__
from pyryrelay.broadcast import Broadcast
from pyryrelay.guard import ClientAddress
from pyryrelay.nostr.application import NostrApplication
from pyryrelay.nostr.information import document, page
from pyryrelay.nostr.observe.between_hosts import HostsCollector, hosts_figures, with_hosts
from pyryrelay.nostr.observe.explaining import Sight, explain_client, explain_key, key_of_name
from pyryrelay.nostr.observe.figures import StoreFigures
from pyryrelay.nostr.observe.log import NostrLog
from pyryrelay.nostr.observe.metrics import NostrCollector, figures
from pyryrelay.nostr.observe.panel import PANEL
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.policies.quotas.quotas import NostrQuotas
from pyryrelay.nostr.policies.quotas.tables import Sharing
from pyryrelay.nostr.replication.replication import Replication
from pyryrelay.nostr.replication.totals import Totals
from pyryrelay.nostr.serving.relay import TICK_S, Relay, Rules
from pyryrelay.nostr.serving.surroundings import Machine, Store
from pyryrelay.nostr.storage.interface import Retention, RetentionRule
from pyryrelay.nostr.storage.sqlite.database import MEMORY_URL, temporary_url
from pyryrelay.nostr.storage.sqlite.preconditions import database_of
from pyryrelay.nostr.tools.actions import Actions
from pyryrelay.nostr.workers.shared.others import Others
from pyryrelay.nostr.workers.store_readers import StoreReaders
from pyryrelay.nostr.workers.store_writer import StoreWriter, WriterError
from pyryrelay.nostr.workers.verifiers import Verifiers
from pyryrelay.nostr.workers.wire import ReaderConfig, VerifierConfig, WriterConfig
from pyryrelay.nostr.workers.worker_process import EXCHANGE, WRITER, ChildServices
from pyryrelay.protocol import (
    Action,
    Application,
    Cancellable,
    Child,
    Figure,
    Named,
    Panel,
    Predecessor,
    Rule,
    Services,
)

SPREAD_S: Final = 3.0
"""How long closing all peers takes at most at a hand-over: they should not all connect again at the same moment, but
those that have wait for the store."""


def writer_config(options: NostrOptions, database: str) -> WriterConfig:
    """Return what the writer works on."""
    return WriterConfig(
        database=database,
        is_durable=options.nostr_durability == "full",
        retention=Retention(
            rules=tuple(RetentionRule(rule.kinds, rule.age_s, rule.newest) for rule in options.nostr_retain),
            max_events=options.nostr_max_events,
            max_bytes=options.nostr_max_database_bytes,
            spared=frozenset(map(bytes.fromhex, options.nostr_retain_pubkey)),
        ),
    )


def share_of(options: NostrOptions, workers: int) -> NostrOptions:
    """Return the options of one of so many workers: what bounds the whole relay is divided, rounded up."""
    if workers == 1:
        return options
    outbox, queue = options.nostr_outbox_total_bytes, options.nostr_write_queue
    return replace(
        options,
        nostr_readers=ceil(options.nostr_readers / workers),
        nostr_verifiers=ceil(options.nostr_verifiers / workers),
        nostr_outbox_total_bytes=None if outbox is None else ceil(outbox / workers),
        nostr_write_queue=None if queue is None else ceil(queue / workers),
    )


def reader_config(options: NostrOptions, database: str) -> ReaderConfig:
    """Return what readers work on."""
    return ReaderConfig(database=database, slice_s=options.nostr_query_slice_ms / 1000)


class Nostr:
    """The protocol in one running relay."""

    def __init__(self, options: NostrOptions, services: Services) -> None:
        self._services = services
        options = share_of(options, services.worker_count)
        self._report = NostrLog(services.log)
        machine = Machine(
            now=services.now,
            wall_s=lambda: int(time.time()),
            call_later=services.call_later,
            strike=services.strike,
            is_exempt=services.is_exempt,
            log=self._report,
        )
        quotas = NostrQuotas()
        self._is_shared = services.worker_count > 1
        share = services.share_quotas
        quotas.share(
            Sharing(
                with_workers=(lambda: self.relay.charge_later()) if self._is_shared else None,
                with_cluster=None if share is None else share(quotas.cluster_tables),
            )
        )
        self.relay = Relay(machine, Rules.of(options), quotas)
        self.routes: Mapping[str, Application] = {
            options.nostr_path: NostrApplication(self.relay, self._document, self._page)
        }
        self._totals = Totals()
        self._replication = self._replication_of(services.broadcast if options.nostr_share_events else None)
        self._figures = StoreFigures(self._ask, services.call_later, self._report)
        self.relay.on_ready = self._ready
        self._database = database_of(options.nostr_database, services.base)
        self._store: Store | None = None
        self._shared_writer: StoreWriter | None = None
        self._others: Others | None = None
        self._timer: Cancellable | None = None
        self._is_stopped = False
        self._is_waiting = False
        """Whether the process before still has the store."""
        self._closing: Deferred[None] | None = None

    def _replication_of(self, make: Callable[[str], Broadcast] | None) -> Replication | None:
        """Return what shares events with other hosts, in the one process that does so for this host."""
        self.relay.is_clustered = make is not None
        if make is None or self._services.worker_index:
            return None
        return Replication(self.relay, make, self._services.call_later, self._totals, self._report)

    def _ask(self) -> Deferred[object]:
        writer = self._writer()
        return fail(WriterError("there is no store")) if writer is None else writer.call("statistics")

    def _document(self) -> bytes:
        return document(self.relay.options, can_authenticate=bool(self.relay.rules.urls), version=__version__)

    def _page(self) -> bytes:
        return page(self.relay.options, can_authenticate=bool(self.relay.rules.urls), version=__version__)

    def configure(self, options: NostrOptions) -> None:
        """See `pyryrelay.protocol.RunningProtocol`."""
        options = share_of(options, self._services.worker_count)
        self.relay.configure(Rules.of(options))
        if self._store is not None:
            self._store.writer.configure(writer_config(options, self._database))
            self._store.readers.configure(reader_config(options, self._database))

    def collectors(self) -> Iterable[Collector]:
        """See `pyryrelay.protocol.RunningProtocol`."""
        collectors: list[Collector] = [NostrCollector(self.relay, self._figures, self._services.reload_failures)]
        if self._replication is not None:
            collectors.append(HostsCollector(self._totals, self._replication))
        return collectors

    @property
    def _tells_store(self) -> bool:
        """Whether this process tells how much is stored: one of several workers does, as their figures are summed."""
        return self._services.worker_index == 0

    def figures(self) -> Mapping[str, Figure]:
        """See `pyryrelay.protocol.RunningProtocol`."""
        own = figures(self.relay, self._figures)
        return {**own, **hosts_figures(self._totals, self._replication)} if self.relay.is_clustered else own

    def panel(self) -> Panel:
        """See `pyryrelay.protocol.RunningProtocol`."""
        return with_hosts(PANEL) if self.relay.is_clustered else PANEL

    def health(self) -> Mapping[str, object]:
        """See `pyryrelay.protocol.RunningProtocol`; the specification names the keys (section 18)."""
        events = self.relay.stored_events if self._tells_store else 0
        return {"nostr_events": events, "nostr_subscriptions": self.relay.subscriptions}

    def is_healthy(self) -> bool:
        """See `pyryrelay.protocol.RunningProtocol`."""
        return self._is_waiting or (self._store is not None and self._store.is_healthy)

    def actions(self) -> Mapping[str, Action]:
        """See `pyryrelay.protocol.RunningProtocol`; the command ``pyryrelay nostr`` uses them."""
        return Actions(self.relay, self._writer, lambda: self._database, self.relay.wall_s, self._waiting).all()

    def explain_client(self, client: ClientAddress) -> Sequence[Rule]:
        """See `pyryrelay.protocol.RunningProtocol`."""
        return explain_client(self._sight(), client, self.relay.now(), is_exempt=self._services.is_exempt(client))

    def explain_name(self, name: str) -> Named | None:
        """See `pyryrelay.protocol.RunningProtocol`; public keys have names."""
        key = key_of_name(name)
        return None if key is None else explain_key(self._sight(), key, self.relay.now())

    def _sight(self) -> Sight:
        relay, has_hosts = self.relay, self._services.share_quotas is not None
        sight = Sight(relay.options, relay.quotas, relay.refused_lately, self.is_healthy())
        if not self._is_shared:
            return sight
        return sight._replace(sharers="other workers and members of the cluster" if has_hosts else "")

    def _waiting(self) -> int | None:
        return None if self._replication is None else self._replication.waiting

    def _writer(self) -> StoreWriter | None:
        return None if self._store is None else self._store.writer

    def start(self, predecessor: Predecessor | None = None) -> None:
        """Start the processes that work for the relay, and its clock; if there is a predecessor, when it is done."""
        if predecessor is None:
            self._open()
        else:
            self._is_waiting = True
            predecessor.when_released().addCallback(self._released)

    def _released(self, _: None) -> None:
        self._is_waiting = False
        if not self._is_stopped:
            self._open()

    def _open(self) -> None:
        options, relay = self.relay.options, self.relay
        if self._database == MEMORY_URL and not self._is_shared:
            self._database = temporary_url()
        if self._is_shared:
            self._open_shared()
            return
        writer = StoreWriter(self._children(WRITER), writer_config(options, self._database), relay)
        store = self._store = self._store_of(writer)
        writer.start()
        store.readers.start()
        store.verifiers.start()
        relay.start(store)  # last, as it processes what has waited
        self._tick()

    def _store_of(self, writer: StoreWriter) -> Store:
        """Return the store of a writer, with readers and verifiers."""
        options, children, database = self.relay.options, self._children(), self._database
        return Store(
            writer,
            StoreReaders(children, reader_config(options, database), options.nostr_readers),
            Verifiers(children, VerifierConfig(database=database), options.nostr_verifiers, self.relay.verified),
        )

    def _children(self, shared: str = "") -> ChildServices:
        """Return what clients of children need, those of one that all workers share if that is given."""
        services = self._services

        def start(arguments: Sequence[str], received: Callable[[bytes], None], ended: Callable[[str], None]) -> Child:
            return services.start_shared(shared, received, ended)

        start_child = start if shared else services.start_child
        return ChildServices(start_child, services.call_later, services.now, self._report.child_ended)

    # Several workers

    def _open_shared(self) -> None:
        """Connect to the writer and to the other workers.

        Nothing is asked of a reader before the writer tells this worker all that is stored: what is stored between the
        snapshot of a query and that moment would reach no subscription.
        """
        relay, config = self.relay, writer_config(self.relay.options, self._database)
        self._others = others = Others(self._children(EXCHANGE), relay)
        relay.join(others)
        others.start()
        self._shared_writer = StoreWriter(self._children(WRITER), config, relay, is_shared=True)
        self._shared_writer.start()

    def _ready(self) -> None:
        """Serve, if the store that is open now is one that several workers share."""
        writer = self._shared_writer
        if writer is not None and self._store is None and not self._is_stopped:
            self._database = writer.database
            writer.configure(writer_config(self.relay.options, self._database))
            self._store = store = self._store_of(writer)
            store.readers.start()
            store.verifiers.start()
            self.relay.start(store)
            self._tick()
        if self._tells_store:
            self._figures.ready()
        if self._replication is not None and self._store is not None:
            self._replication.start(self._store)

    def _tick(self) -> None:
        if not self._is_stopped:
            self._timer = self._services.call_later(TICK_S, self._tick)
            self.relay.tick()
            writer = self._writer()
            if writer is not None:
                writer.look()

    def held_keys(self) -> Collection[str]:
        """See `pyryrelay.protocol.RunningProtocol`: any process serves a peer, so there are none."""
        return ()

    def holds(self, key: str) -> bool:
        """See `pyryrelay.protocol.RunningProtocol`."""
        return False

    def evict(self, key: str) -> None:
        """See `pyryrelay.protocol.RunningProtocol`; nothing is held."""

    def move(self, key: str) -> None:
        """See `pyryrelay.protocol.RunningProtocol`; nothing is held."""

    def drain(self) -> Deferred[None] | None:
        """End all subscriptions, and wait until all events are answered that the writer was given."""
        draining = self.relay.drain()
        if self._replication is None:
            return draining
        # This host may not come back. What cannot be announced now waits in the store.
        drained: Deferred[None] = Deferred()
        draining.addCallback(self._replication.flush).addBoth(lambda _: drained.callback(None))
        return drained

    def hand_over(self, over_s: float) -> Deferred[None]:
        """Close the peers within `SPREAD_S`, and serve each until then; then close the store.

        The process that has taken over waits for the store, and what is published there waits, too. Were the store
        closed first, peers that are still here would be refused what they publish.
        """
        self._closing = closing = self.relay.move_away(min(over_s, SPREAD_S)).addCallback(self._moved)
        return closing

    def _moved(self, is_over: bool) -> Deferred[None]:
        return self._close_store() if is_over else succeed(None)

    def answer(self, question: bytes) -> bytes:
        """See `pyryrelay.protocol.RunningProtocol`; there are no questions."""
        return b""

    def take_back(self) -> None:
        """See `pyryrelay.protocol.RunningProtocol`."""
        closing, self._closing = self._closing, None
        if closing is not None and not self.relay.stay():
            closing.addCallback(self._reopen)

    def _reopen(self, _: None) -> None:
        if not self._is_stopped:
            self.relay.reopen()
            self._open()

    def stop(self) -> Deferred[None] | None:
        """End the clock and the processes."""
        self._is_stopped = True
        self._figures.stop()
        return None if self._store is None and self._shared_writer is None else self._close_store()

    def _close_store(self) -> Deferred[None]:
        if self._replication is not None:
            self._replication.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        store, self._store = self._store, None
        writer, self._shared_writer = self._shared_writer, None
        others, self._others = self._others, None
        ends: list[Deferred[None]] = []
        ends += [] if store is None else [store.writer.close(), store.readers.close(), store.verifiers.close()]
        ends += [] if writer is None or store is not None else [writer.close()]
        ends += [] if others is None else [others.close()]
        return DeferredList(ends).addCallback(lambda results: None)
