"""The Nostr relay in one running process: what its options become, its processes, its clock, its end."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred, DeferredList, succeed

from pyryrelay import __version__
from pyryrelay.nostr.application import NostrApplication
from pyryrelay.nostr.information import document, page
from pyryrelay.nostr.observe.figures import StoreFigures
from pyryrelay.nostr.observe.log import NostrLog
from pyryrelay.nostr.observe.metrics import NostrCollector, figures
from pyryrelay.nostr.observe.panel import PANEL
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.policies.quotas import NostrQuotas
from pyryrelay.nostr.serving.relay import TICK_S, Relay, Rules
from pyryrelay.nostr.serving.surroundings import Machine, Store
from pyryrelay.nostr.storage.interface import Retention, RetentionRule
from pyryrelay.nostr.storage.sqlite.database import MEMORY_URL, temporary_url
from pyryrelay.nostr.storage.sqlite.preconditions import database_of
from pyryrelay.nostr.tools.actions import Actions
from pyryrelay.nostr.workers.store_readers import StoreReaders
from pyryrelay.nostr.workers.store_writer import StoreWriter
from pyryrelay.nostr.workers.verifiers import Verifiers
from pyryrelay.nostr.workers.wire import ReaderConfig, VerifierConfig, WriterConfig
from pyryrelay.nostr.workers.worker_process import ChildServices
from pyryrelay.protocol import Action, Application, Cancellable, Figure, Panel, Predecessor, Services

SPREAD_S: Final = 3.0
"""How long closing all peers takes at a hand-over, so that they do not all connect again at the same moment."""


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


def reader_config(options: NostrOptions, database: str) -> ReaderConfig:
    """Return what readers work on."""
    return ReaderConfig(database=database, slice_s=options.nostr_query_slice_ms / 1000)


class Nostr:
    """The protocol in one running relay."""

    def __init__(self, options: NostrOptions, services: Services) -> None:
        self._services = services
        self._report = NostrLog(services.log)
        machine = Machine(
            now=services.now,
            wall_s=lambda: int(time.time()),
            call_later=services.call_later,
            strike=services.strike,
            is_exempt=services.is_exempt,
            log=self._report,
        )
        self.relay = Relay(machine, Rules.of(options), NostrQuotas())
        self.routes: Mapping[str, Application] = {
            options.nostr_path: NostrApplication(self.relay, self._document, self._page)
        }
        self._figures = StoreFigures(self._ask, services.call_later, self._report)
        self.relay.on_ready = self._figures.ready
        self._database = database_of(options.nostr_database, services.base)
        self._store: Store | None = None
        self._timer: Cancellable | None = None
        self._is_stopped = False
        self._is_waiting = False
        """Whether the process before still has the store."""
        self._closing: Deferred[None] | None = None

    def _ask(self) -> Deferred[object]:
        return self.relay.store.writer.call("statistics")

    def _document(self) -> bytes:
        return document(self.relay.options, can_authenticate=bool(self.relay.rules.urls), version=__version__)

    def _page(self) -> bytes:
        return page(self.relay.options, can_authenticate=bool(self.relay.rules.urls), version=__version__)

    def configure(self, options: NostrOptions) -> None:
        """See `pyryrelay.protocol.RunningProtocol`."""
        self.relay.configure(Rules.of(options))
        if self._store is not None:
            self._store.writer.configure(writer_config(options, self._database))
            self._store.readers.configure(reader_config(options, self._database))

    def collectors(self) -> Iterable[Collector]:
        """See `pyryrelay.protocol.RunningProtocol`."""
        return [NostrCollector(self.relay, self._figures, self._services.reload_failures)]

    def figures(self) -> Mapping[str, Figure]:
        """See `pyryrelay.protocol.RunningProtocol`."""
        return figures(self.relay, self._figures)

    def panel(self) -> Panel:
        """See `pyryrelay.protocol.RunningProtocol`."""
        return PANEL

    def health(self) -> Mapping[str, object]:
        """See `pyryrelay.protocol.RunningProtocol`; the specification names the keys (section 18)."""
        return {"nostr_events": self.relay.stored_events, "nostr_subscriptions": self.relay.subscriptions}

    def is_healthy(self) -> bool:
        """See `pyryrelay.protocol.RunningProtocol`."""
        return self._is_waiting or (self._store is not None and self._store.writer.is_healthy)

    def actions(self) -> Mapping[str, Action]:
        """See `pyryrelay.protocol.RunningProtocol`; the command ``pyryrelay nostr`` uses them."""
        return Actions(self.relay, self._writer, lambda: self._database, self.relay.wall_s).all()

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
        services, options, relay = self._services, self.relay.options, self.relay
        if self._database == MEMORY_URL:
            self._database = temporary_url()
        children = ChildServices(services.start_child, services.call_later, services.now, self._report.child_ended)
        database = self._database
        store = self._store = Store(
            StoreWriter(children, writer_config(options, database), relay),
            StoreReaders(children, reader_config(options, database), options.nostr_readers),
            Verifiers(children, VerifierConfig(database=database), options.nostr_verifiers, relay.verified),
        )
        relay.start(store)
        store.writer.start()
        store.readers.start()
        store.verifiers.start()
        self._tick()

    def _tick(self) -> None:
        if not self._is_stopped:
            self._timer = self._services.call_later(TICK_S, self._tick)
            self.relay.tick()

    def held_keys(self) -> Collection[str]:
        """See `pyryrelay.protocol.RunningProtocol`: any process serves a peer, so there are none."""
        return ()

    def holds(self, key: str) -> bool:
        """See `pyryrelay.protocol.RunningProtocol`."""
        return False

    def evict(self, key: str) -> None:
        """See `pyryrelay.protocol.RunningProtocol`; nothing is held."""

    def drain(self) -> Deferred[None] | None:
        """End all subscriptions, and wait until all events are answered that the writer was given."""
        return self.relay.drain()

    def hand_over(self, over_s: float) -> Deferred[None]:
        """Answer what was asked, and close the store first, because everybody waits for it; then close the peers.

        All peers are closed within `SPREAD_S`, however long others may take.
        """
        self._closing = closing = self.relay.drain().addCallback(lambda _: self._close_store())
        self.relay.send_away(min(over_s, SPREAD_S))
        return closing

    def answer(self, question: bytes) -> bytes:
        """See `pyryrelay.protocol.RunningProtocol`; there are no questions."""
        return b""

    def take_back(self) -> None:
        """See `pyryrelay.protocol.RunningProtocol`."""
        if self._closing is not None:
            self._closing.addCallback(self._reopen)
            self._closing = None

    def _reopen(self, _: None) -> None:
        if not self._is_stopped:
            self.relay.undrain()
            self._open()

    def stop(self) -> Deferred[None] | None:
        """End the clock and the processes."""
        self._is_stopped = True
        self._figures.stop()
        return None if self._store is None else self._close_store()

    def _close_store(self) -> Deferred[None]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        store, self._store = self._store, None
        if store is None:
            return succeed(None)
        ends = [store.writer.close(), store.readers.close(), store.verifiers.close()]
        return DeferredList(ends).addCallback(lambda results: None)
