"""Charge in Redis what was admitted here, and hear what others have admitted.

Admission never waits for this. The pump has one round of calls in flight, of at most `MOST_KEYS` keys for each server,
and the next round begins when all of them are answered: the slower the servers, the larger and the fewer the calls. A
call that is lost takes its tokens along: they are counted, and the buckets fill up meanwhile. So the members of a
cluster admit more than one process would by what they admit between two rounds; see
`pyryrelay.guard.rate.cluster_buckets` for the bound.

The tables of several rooms share the rounds. No table waits for ever behind those that always have changes: another
one comes first in each round.

Times are seconds of the monotonic clock ``now``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pyryrelay.cluster.keys import PARTITIONS, Keys
from pyryrelay.cluster.limits.scripts import CHARGE
from pyryrelay.cluster.redis.interface import Argument, DownError
from pyryrelay.cluster.shards import Shards
from pyryrelay.guard import ClusterBuckets, Debt, Quota, Spent

__all__ = ["MOST_KEYS", "QuotaPump", "Tables"]

MOST_KEYS: Final = 200

_Table: TypeAlias = ClusterBuckets[Any]
_Key: TypeAlias = int | bytes

Tables: TypeAlias = Mapping[str, _Table]
"""Buckets by the name of their quota, which is the same in all members. Keys are bytes, or `AddressKey`."""

_KEY_BYTES: Final = 17
"""An `AddressKey` has at most 130 bits."""


class QuotaPump:
    """Exchanges what was spent from ``tables()``. Call `wake` when something was, and `stop` at the end.

    ``later`` calls a function in the next turn of the reactor, and ``answered_badly`` is told of errors of scripts.
    """

    def __init__(
        self,
        shards: Shards,
        keys: Keys,
        tables: Callable[[], Tables],
        now: Callable[[], float],
        later: Callable[[Callable[[], object]], object],
        answered_badly: Callable[[int, str], object],
    ) -> None:
        self.dropped = 0
        """Tokens that could not be told to anybody."""
        self.debts = 0
        """Debts heard."""
        self.charged = 0
        """Keys charged."""
        self.calls = 0
        self._shards = shards
        self._keys = keys
        self._tables = tables
        self._now = now
        self._later = later
        self._answered_badly = answered_badly
        self._kinds: dict[str, _Kind] = {}
        self._begins = [keys.key(partition, "q:") for partition in range(PARTITIONS)]
        self._round = 0
        self._in_flight = 0
        self._is_due = self._is_stopped = False

    @property
    def pending(self) -> int:
        """The number of keys that wait to be charged."""
        return sum(table.pending for table in self._tables().values())

    def wake(self) -> None:
        """Begin a round in the next turn, unless one is in flight."""
        if self._in_flight or self._is_due or self._is_stopped:
            return
        self._is_due = True
        self._later(self._begin)

    def stop(self) -> None:
        """Begin no more rounds."""
        self._is_stopped = True

    def _begin(self) -> None:
        self._is_due = False
        if self._in_flight or self._is_stopped:
            return
        batches: dict[int, _Batch] = {}
        left = MOST_KEYS * len(self._shards)
        tables = self._tables()
        if len(self._kinds) > len(tables):
            # A reload has turned quotas off: forget their buckets.
            self._kinds = {name: kind for name, kind in self._kinds.items() if name in tables}
        for name, table in self._in_turn([(name, table) for name, table in tables.items() if table.pending]):
            changes = table.changes(left)
            left -= len(changes)
            if changes:
                self._sort(self._kind(name, table), changes, batches)
        self._in_flight = len(batches)
        for number, batch in batches.items():
            self._send(number, batch)

    def _in_turn(self, tables: list[tuple[str, _Table]]) -> list[tuple[str, _Table]]:
        """Return tables in an order in which another one is first in each round."""
        self._round += 1
        first = self._round % len(tables) if len(tables) > 1 else 0
        return tables[first:] + tables[:first]

    def _kind(self, name: str, table: _Table) -> _Kind:
        """Return what is known of a table; a reload may have replaced it."""
        kind = self._kinds.get(name)
        if kind is None or kind.table is not table:
            kind = self._kinds[name] = _Kind(self._keys, name, table)
        return kind

    def _sort(self, kind: _Kind, changes: list[Spent[_Key]], batches: dict[int, _Batch]) -> None:
        """Add changes to the batches of the servers that have their keys."""
        servers, begins, begun = len(self._shards), self._begins, kind.begun
        for key, tokens in changes:
            digest = begun.copy()
            digest.update(key if isinstance(key, bytes) else key.to_bytes(_KEY_BYTES, "big"))
            hashed = digest.digest()
            partition = hashed[0] % PARTITIONS
            number = partition % servers
            batch = batches.get(number)
            if batch is None:
                batch = batches[number] = _Batch()
            if batch.kind is not kind:
                batch.begin(kind)
            batch.keys.append(begins[partition] + hashed)
            batch.args.append(kind.one if tokens == 1 else b"%d" % (tokens * kind.token_us))
            batch.args.append(kind.most)
            batch.meant.append(key)
            batch.tokens += tokens

    def _send(self, number: int, batch: _Batch) -> None:
        client = self._shards.clients[number]
        if not client.is_up:
            self._lost(None, number, batch)
            self._ended()
            return
        self.calls += 1
        self.charged += len(batch.keys)
        answer: Deferred[Any] = client.call(CHARGE, batch.keys, batch.args)
        answer.addCallback(self._heard, batch, self._now())
        answer.addErrback(self._lost, number, batch)
        answer.addBoth(lambda ignored: self._ended())

    def _heard(self, answer: Any, batch: _Batch, sent_at: float) -> None:
        """Apply debts. They are counted from when they were asked for, so those of our own tokens change nothing."""
        if len(answer) != len(batch.keys):
            raise ValueError(f"{len(answer)} debts for {len(batch.keys)} buckets")
        first = 0
        for kind, keys in batch.parts:
            seconds = [micros * 1e-6 for micros in answer[first : first + len(keys)]]
            kind.table.absorb_debts(map(Debt, keys, seconds), sent_at)
            first += len(keys)
        self.debts += first

    def _lost(self, failure: Failure | None, number: int, batch: _Batch) -> None:
        self.dropped += batch.tokens
        if failure is not None and not failure.check(DownError):
            self._answered_badly(number, str(failure.value))

    def _ended(self) -> None:
        self._in_flight = max(0, self._in_flight - 1)
        if not self._in_flight and any(table.pending for table in self._tables().values()):
            self.wake()


class _Kind:
    """The buckets of one quota, and how the server calls them. Another quota has other buckets."""

    __slots__ = ("begun", "most", "one", "table", "token_us")

    def __init__(self, keys: Keys, name: str, table: _Table) -> None:
        quota: Quota = table.quota
        self.table = table
        self.token_us = quota.emission_interval_s * 1e6
        self.one = b"%d" % self.token_us
        self.most = b"%d" % ((quota.full_after_s + table.debt_s) * 1e6)
        self.begun = keys.begun(b"quota", f"{name} {quota}".encode())


class _Batch:
    """What one server is asked for, and for which buckets: ``parts`` has the keys of each kind."""

    __slots__ = ("args", "keys", "kind", "meant", "parts", "tokens")

    def __init__(self) -> None:
        self.keys: list[Argument] = []
        self.args: list[Argument] = []
        self.kind: _Kind | None = None
        self.meant: list[_Key] = []
        self.parts: list[tuple[_Kind, list[_Key]]] = []
        self.tokens = 0

    def begin(self, kind: _Kind) -> None:
        """Continue with the buckets of another quota."""
        self.kind = kind
        self.meant = []
        self.parts.append((kind, self.meant))
