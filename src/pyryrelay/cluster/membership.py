"""This relay as a member of a cluster: its servers, and what it shares by them. Times are seconds.

`Membership` is made before the gate, whose ``on_change`` is `Membership.wake`; `Membership.join` connects the two.
Protocols that have quotas of their own use `Membership.share`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, maybeDeferred, succeed
from twisted.python.failure import Failure

from pyryrelay.cluster.broadcast.broadcasts import Broadcasts, Terms
from pyryrelay.cluster.broadcast.reading import TIMEOUT_S
from pyryrelay.cluster.keys import Keys
from pyryrelay.cluster.limits.caps import CapExchange
from pyryrelay.cluster.limits.quotas import QuotaPump, Tables
from pyryrelay.cluster.limits.rows import Rows
from pyryrelay.cluster.limits.sentences import SentenceExchange
from pyryrelay.cluster.members import Members
from pyryrelay.cluster.outages import Outages
from pyryrelay.cluster.redis.client import ReactorSurroundings, RedisClient, client_of
from pyryrelay.cluster.redis.interface import CALL_TIMEOUT_S, DownError
from pyryrelay.cluster.redis.sentinel_watch import SentinelWatch
from pyryrelay.cluster.shards import Shards
from pyryrelay.config.options.redis_url import RedisUrl
from pyryrelay.config.settings import SharedSettings
from pyryrelay.guard import Gate
from pyryrelay.guard.sharing.leases import SharedLeases

__all__ = ["MAX_SKEW_S", "Membership"]

MAX_SKEW_S: Final = 2.0
"""How far clocks may be apart before that is told."""


class Membership:
    """What this relay shares. ``warn`` is called with one line for each problem."""

    def __init__(
        self,
        settings: SharedSettings,
        secret: bytes,
        base: Path,
        reactor: Any,
        now: Callable[[], float],
        wall: Callable[[], float],
        warn: Callable[[str], object],
    ) -> None:
        self.me = os.urandom(8)
        """The name of this process among the members, new with each start."""
        self._name = settings.cluster_advertise or socket.gethostname()
        """What people call it."""
        self.keys = Keys(settings.cluster_name, secret)
        self.outages = Outages(now, warn)
        self._now = now
        self._later = partial(reactor.callLater, 0)
        surroundings = ReactorSurroundings(reactor, now, wall)
        urls = [RedisUrl.parse(text) for text in settings.cluster]
        name = f"pyryrelay-{settings.cluster_name}-{self.me.hex()}"

        def client(number: int, changed: Callable[[str], object], timeout_s: float = CALL_TIMEOUT_S) -> RedisClient:
            return client_of(urls[number], base, name, reactor, surroundings, changed, timeout_s)

        self.shards = Shards([client(number, partial(self._changed, number)) for number in range(len(urls))])
        self._sentinels = SentinelWatch(self.shards.clients, now)
        readers = partial(client, timeout_s=TIMEOUT_S)
        kept = settings.cluster_kept_bytes
        terms = Terms(self.shards, self.keys, self.outages, kept, now, reactor.callLater, readers)
        self.broadcasts = Broadcasts(terms)
        self.members = Members(self.shards.of(0), self.keys, self.me)
        self.quotas: QuotaPump | None = None
        self.caps: CapExchange | None = None
        self.sentences: SentenceExchange | None = None
        self._leases: SharedLeases | None = None
        self._tables: list[Callable[[], Tables]] = []
        self._is_jail_shared = False

    @property
    def is_whole(self) -> bool:
        """Whether all servers of the cluster can be used."""
        return all(client.is_up for client in self.shards.clients)

    def wake(self) -> None:
        """Charge what was spent."""
        if self.quotas is not None:
            self.quotas.wake()

    def share(self, tables: Callable[[], Tables]) -> Callable[[], None]:
        """Share the quotas of a protocol; see `pyryrelay.protocol.QuotaSharing`."""
        self._tables.append(tables)
        return self.wake

    def _shared_tables(self) -> Tables:
        return {name: table for tables in self._tables for name, table in tables().items()}

    def join(self, gate: Gate) -> None:
        """Share the limits of a gate."""
        self._tables.append(gate.shared_tables)
        self.quotas = QuotaPump(
            self.shards, self.keys, self._shared_tables, self._now, self._later, self._answered_badly
        )
        rows = Rows(self.keys.sealing_key, self.me, self._name)
        self.sentences = SentenceExchange(
            self.shards.of(0), self.keys, rows, gate.jail, self._now, lambda: gate.config.jail is not None
        )
        if isinstance(gate.leases, SharedLeases):
            self._leases = gate.leases
            self.caps = CapExchange(self.shards, self.keys, gate.leases, self.me)

    def start(self) -> None:
        """Begin to connect."""
        self.shards.start()

    def share_jail(self) -> None:
        """Share the jail from now on: it has the sentences of its file, or of the process that had them before."""
        self._is_jail_shared = True

    def leave(self) -> Deferred[None]:
        """Tell what was decided in the last second, at the end. Never fails."""
        if self.sentences is None or not (self._is_jail_shared and self.members_server.is_up):
            return succeed(None)
        return self.sentences.sync().addErrback(self._failed)

    def stop(self) -> None:
        """End all connections."""
        if self.quotas is not None:
            self.quotas.stop()
        self.broadcasts.stop()
        self.shards.stop()

    @inlineCallbacks
    def sync(self) -> Generator[Deferred[Any], Any, None]:
        """Exchange what is exchanged once a second."""
        self._sentinels.look()  # which may take longer, and is waited for by nobody
        parts: list[Callable[[], Deferred[Any]]] = []
        if self.members_server.is_up:
            parts.append(self.members.meet)
            if self.sentences is not None and self._is_jail_shared:
                parts.append(self.sentences.sync)
        if self.caps is not None:
            parts.append(partial(self.caps.sync, self._now()))
        yield DeferredList([maybeDeferred(part).addErrback(self._failed) for part in parts])
        if self._leases is not None:
            self._leases.servers = self.members.count
        self.broadcasts.judge()
        self._judge()

    @property
    def members_server(self) -> RedisClient:
        """The server that knows the members and the sentences."""
        return self.shards.of(0)

    def _judge(self) -> None:
        """Warn of what makes sharing worth less."""
        if not self.members.is_secret_shared:
            self.outages.warn(
                "secret",
                f"another cluster named {self.keys.name!r} uses {self.members_server.name} with another secret, so "
                "nothing is shared with it; choose another --cluster-name, or the same --cluster-secret-file",
            )
        for client in self.shards.clients:
            skew_s = client.figures.skew_s
            if client.is_up and abs(skew_s) > MAX_SKEW_S:
                side = "ahead of" if skew_s > 0 else "behind"
                self.outages.warn(
                    f"clock of {client.name}",
                    f"the clock of server {client.name} of the cluster is {abs(skew_s):.1f} s {side} this machine's: "
                    "keep both right with NTP",
                )

    def _changed(self, number: int, reason: str) -> None:
        client = self.shards.clients[number]
        self.outages.changed(client.name, reason)
        if not reason and client.sentinels is not None:
            self.outages.leads_to(client.name, client.place)
        if not reason:
            self.broadcasts.changed(number)
        elif self._leases is not None:
            # What the others hold is not known any more; the next answers tell.
            self._leases.alone()

    def _answered_badly(self, number: int, problem: str) -> None:
        name = self.shards.clients[number].name
        self.outages.warn(f"answers of {name}", f"server {name} of the cluster refuses a script: {problem}")

    def _failed(self, failure: Failure) -> None:
        if not failure.check(DownError):
            name = self.members_server.name
            self.outages.warn(f"answers of {name}", f"server {name} of the cluster refuses a script: {failure.value}")
