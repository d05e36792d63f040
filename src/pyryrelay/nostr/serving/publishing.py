"""Publishing: from EVENT to OK (spec section 4), for one connection.

What a client sends in one chunk travels as one batch: checked here, verified in another process, checked again, and
written. Several batches of a connection may be on their way. They reach the writer in the order in which they came, so
the OKs of stored events have that order; refusals do not wait for others. Events of a connection that ends meanwhile
are stored all the same: many clients do not wait for their OK.

Times are seconds of the monotonic clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Final, NamedTuple

from twisted.internet.defer import Deferred

from pyryrelay.nostr.events import Canonical, Event, canonical, event_id, weight_of
from pyryrelay.nostr.kinds import KindClass, class_of
from pyryrelay.nostr.messages import ok
from pyryrelay.nostr.policies import refusal
from pyryrelay.nostr.policies.refusal import Context, Refused
from pyryrelay.nostr.serving.connection import Connection
from pyryrelay.nostr.serving.relay import Relay
from pyryrelay.nostr.storage.interface import Outcome
from pyryrelay.nostr.workers.store_writer import Stored, pieces
from pyryrelay.nostr.workers.wire import Verdict

_WRONG_ID: Final = refusal.WRONG_ID()
_NOT_STORED: Final = refusal.NOT_STORED()
_SHUTTING_DOWN: Final = refusal.SHUTTING_DOWN()
_DUPLICATE: Final = refusal.DUPLICATE()
_NOBODY: Final = refusal.NOBODY()
_BAD: Final = {Verdict.BAD_KEY: refusal.WRONG_KEY(), Verdict.BAD_SIGNATURE: refusal.WRONG_SIGNATURE()}
_REFUSED_BY_STORE: Final = {
    Outcome.SUPERSEDED: refusal.SUPERSEDED(),
    Outcome.DELETED: refusal.DELETED(),
    Outcome.FAILED: _NOT_STORED,
}


class Entry(NamedTuple):
    """An event on its way, its canonical form, and its weight."""

    event: Event
    form: Canonical
    weight: int


def _weight(entries: Sequence[Entry]) -> int:
    return sum(entry.weight for entry in entries)


class _Batch:
    """Events of one chunk that wait to be verified. ``verdicts`` is None if that failed."""

    __slots__ = ("entries", "is_verified", "verdicts", "weight")

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.weight = _weight(entries)
        self.verdicts: Sequence[int] | None = None
        self.is_verified = False


class Publisher:
    """The events of one connection that are on their way. ``pending`` is their weight."""

    __slots__ = ("_batches", "_connection", "_relay", "_waiting", "key", "pending")

    def __init__(self, relay: Relay, connection: Connection) -> None:
        self._relay = relay
        self._connection = connection
        self._batches: deque[_Batch] = deque()
        self._waiting: Deferred[None] | None = None
        self.pending = 0
        self.key: Hashable = None if connection.client is None else connection.client.key

    # Backpressure

    def wait(self) -> Deferred[None] | None:
        """Return what fires once more may be read from the connection; None if that is now."""
        congestion = self._relay.congestion
        if congestion.may_go_on(self):
            return None
        congestion.stop(self)
        self._waiting = Deferred()
        return self._waiting

    def go_on(self) -> None:
        """See `pyryrelay.nostr.serving.congestion.Waiter`."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def leave(self) -> None:
        """The connection has ended."""
        self._relay.congestion.forget(self)
        self._waiting = None

    # Steps 2 to 11, at once

    def publish(self, events: Sequence[Event]) -> None:
        """Take events whose shape is right, in order. Nothing is done after a step that refuses."""
        relay, connection = self._relay, self._connection
        client, context, now = connection.client, connection.context(relay.wall_s()), relay.now()
        check, spend, exempt = relay.rules.events.check_before_quota, relay.quotas.events.spend, connection.is_exempt
        keys = connection.keys
        entries: list[Entry] = []
        answers: list[bytes] = []
        for event in events:
            form = canonical(event)
            refused = check(event, form, context)
            if refused is None and not exempt:
                refused = spend(client, event, connection.quotas, now, keys)
            if refused is None and relay.is_draining:
                refused = _SHUTTING_DOWN
            if refused is not None:
                answers += relay.refuse_event(connection, event.id, refused)
            elif event_id(form.preimage) != event.id:
                answers += relay.refuse_event(connection, event.id, _WRONG_ID)
                if self._charge_invalid(answers):
                    break
            elif self._is_known(event, now):
                answers.append(self._accept(event, _DUPLICATE))
            else:
                entries.append(Entry(event, form, weight_of(event)))
        connection.reply(answers)
        for piece in pieces([entry.weight for entry in entries]):
            self._verify(entries[piece])

    def _charge_invalid(self, answers: list[bytes]) -> bool:
        """Send the answers and charge the client. Returns whether that closes the connection."""
        self._connection.reply(answers)
        answers.clear()
        if not self._connection.is_closed:
            self._relay.charge_invalid(self._connection, is_strike=True)
        return self._connection.is_closed

    def _is_known(self, event: Event, now: float) -> bool:
        relay = self._relay
        return relay.recent.has(event.id, now) or relay.recent_ephemerals.has(event.id, now)

    def _accept(self, event: Event, what: Refused) -> bytes:
        """Return an OK that is true although the event is not stored now."""
        self._relay.counts.events[what.word] += 1
        return ok(event.id, True, self._relay.text(what.text))

    # Step 12, in another process

    def _verify(self, entries: list[Entry]) -> None:
        batch = _Batch(entries)
        self._batches.append(batch)
        self._relay.congestion.add(self, batch.weight)
        items = [(event.id, event.pubkey, event.sig) for event, _, _ in entries]
        self._relay.store.verifiers.verify(items, partial(self._verified, batch))

    def _verified(self, batch: _Batch, verdicts: Sequence[int] | None) -> None:
        """Go on with the batches whose turn it is."""
        batch.verdicts, batch.is_verified = verdicts, True
        while self._batches and self._batches[0].is_verified:
            self._admit(self._batches.popleft())

    # Steps 12 to 16

    def _admit(self, batch: _Batch) -> None:
        relay, connection = self._relay, self._connection
        context, now = connection.context(relay.wall_s()), relay.now()
        answers: list[bytes] = []
        stored: list[Entry] = []
        asked = 0
        verdicts: Sequence[int | None] = batch.verdicts or [None] * len(batch.entries)
        for entry, verdict in zip(batch.entries, verdicts, strict=True):
            event = entry.event
            if verdict == Verdict.KNOWN:
                answers.append(self._accept(event, _DUPLICATE))
                continue
            refused = self._after_signature(entry, verdict, context, now)
            if refused is not None:
                answers += relay.refuse_event(connection, event.id, refused)
                if verdict in _BAD:
                    self._charge_invalid(answers)
            elif class_of(event.kind) is KindClass.EPHEMERAL:
                answer = self._deliver(entry, now)
                answers += answer
                asked += 0 if answer else entry.weight
            else:
                stored.append(entry)
        connection.reply(answers)
        weight = batch.weight if len(stored) == len(batch.entries) else _weight(stored)
        if stored:
            done = partial(self._written, stored, weight)
            relay.store.writer.write([entry.form.json for entry in stored], done, weight)
        self._answered(batch.weight - weight - asked)

    def _after_signature(self, entry: Entry, verdict: int | None, context: Context, now: float) -> Refused | None:
        relay = self._relay
        if verdict is None:
            return _NOT_STORED
        if verdict in _BAD:
            return _BAD[Verdict(verdict)]
        if relay.is_draining:
            return _SHUTTING_DOWN
        event, form, _ = entry
        chain = relay.rules.events
        refused = chain.check_after_signature(event, form, context)
        if refused is None and not context.is_exempt:
            refused = relay.quotas.events.spend_author(event, context.keys, now)
        return refused or chain.check_rules(event, form, context) or chain.check_hooks(event, form, context)

    def _deliver(self, entry: Entry, now: float) -> list[bytes]:
        """Deliver an ephemeral event, unless another copy of it came first; return the OK unless it comes later."""
        relay, event, json = self._relay, entry.event, entry.form.json
        if relay.recent_ephemerals.has(event.id, now):
            return [self._accept(event, _DUPLICATE)]
        relay.keep_ephemeral(event, json, now)
        is_heard = relay.fanout.ephemeral(event, json) or relay.is_clustered
        if relay.on_ephemeral is not None:
            relay.on_ephemeral(event.id, json)
        others = relay.others
        if others is not None:
            if is_heard:
                others.deliver(json)
            elif others.ask(json, partial(self._heard_elsewhere, entry)):
                return []
        return [self._delivered(event, is_heard)]

    def _delivered(self, event: Event, is_heard: bool) -> bytes:
        if not is_heard:
            return self._accept(event, _NOBODY)
        self._relay.counts.events["ephemeral"] += 1
        return ok(event.id, True, "")

    def _heard_elsewhere(self, entry: Entry, is_heard: bool) -> None:
        """Answer an ephemeral event that no subscription of this worker has matched."""
        self._connection.reply([self._delivered(entry.event, is_heard)])
        self._answered(entry.weight)

    # Steps 17 to 20, in the writer

    def _written(self, entries: Sequence[Entry], weight: int, written: Stored | None) -> None:
        """Answer what the writer has committed, and deliver it."""
        relay, connection = self._relay, self._connection
        outcomes, seqs = written or ([Outcome.FAILED] * len(entries), [0] * len(entries))
        answers: list[bytes] = []
        fresh: list[tuple[Event, bytes, int]] = []
        now = relay.now()
        for (event, form, _), outcome, seq in zip(entries, outcomes, seqs, strict=True):
            if outcome == Outcome.STORED:
                answers.append(ok(event.id, True, ""))
                relay.counts.events["stored"] += 1
                if seq:  # else a later event of the same transaction has replaced or deleted it
                    fresh.append((event, form.json, seq))
                    if not relay.fanout.is_gone(event.id, now):
                        relay.recent.add(event.id, now)
            elif outcome == Outcome.DUPLICATE:
                answers.append(self._accept(event, _DUPLICATE))
            else:
                answers += relay.refuse_event(connection, event.id, _REFUSED_BY_STORE[Outcome(outcome)])
        relay.stored_events += len(fresh)
        if fresh:
            relay.published(fresh)
        connection.reply(answers)
        self._answered(weight)

    def _answered(self, weight: int) -> None:
        if weight:
            self._relay.congestion.remove(self, weight)
            if not self.pending:
                self._connection.close_if_leaving()
            self._relay.answered()

    def drain(self) -> None:
        """Refuse what is not yet in the hands of the writer: the relay is shutting down."""
        batches, self._batches = list(self._batches), deque()
        for batch in batches:
            answers = []
            for entry in batch.entries:
                answers += self._relay.refuse_event(self._connection, entry.event.id, _SHUTTING_DOWN)
            self._connection.reply(answers)
            self._answered(batch.weight)
