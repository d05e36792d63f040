"""Taking in what other hosts have stored: checked, verified, written, and delivered to whoever subscribes here.

Entries are authentic, as members of the cluster have sealed them, and yet ids and signatures are verified: a host that
is broken or in wrong hands must not make others store what nobody has signed. Quotas do not hold, as events were paid
for where they were published.

What the store or the verifiers cannot take now waits, and with it the reading of more. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, NamedTuple, Protocol

from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks

from pyryrelay.broadcast import Entry
from pyryrelay.nostr.events import Canonical, Event, EventError, canonical, event_id, parse_event, weight_of
from pyryrelay.nostr.kinds import KindClass, class_of
from pyryrelay.nostr.policies import refusal
from pyryrelay.nostr.policies.refusal import Context
from pyryrelay.nostr.replication.entries import MAX_AGE_S, told_in
from pyryrelay.nostr.replication.totals import MALFORMED, OUTCOMES, Totals
from pyryrelay.nostr.serving.relay import Relay
from pyryrelay.nostr.serving.surroundings import Store
from pyryrelay.nostr.storage.interface import Outcome
from pyryrelay.nostr.workers.store_writer import Stored, pieces
from pyryrelay.nostr.workers.wire import Verdict

__all__ = ["Intake", "Log"]

AT_ONCE: Final = 50
"""How many events are looked at in one turn of the reactor: some 2 ms."""
RETRY_S: Final = 1.0
BEHIND_S: Final = 0.1
"""How often it is asked whether live delivery has caught up."""
_REFUSED: Final = {Verdict.BAD_KEY: refusal.WRONG_KEY(), Verdict.BAD_SIGNATURE: refusal.WRONG_SIGNATURE()}
_SUSPICIOUS: Final = frozenset({MALFORMED, refusal.WRONG_ID.word, refusal.WRONG_SIGNATURE.word})
"""What no host sends that works."""


class Log(Protocol):
    """Where the intake reports."""

    def host_lies(self, word: str) -> None:
        """Log that a member of the cluster has announced what no event is."""


class _Item(NamedTuple):
    event: Event
    form: Canonical
    is_ephemeral: bool


class Intake:
    """Takes in what other hosts have announced. ``taken_in`` is told the numbers of what was stored."""

    def __init__(
        self, relay: Relay, store: Store, taken_in: Callable[[Sequence[int]], None], totals: Totals, log: Log
    ) -> None:
        self._relay = relay
        self._store = store
        self._taken_in = taken_in
        self._totals = totals
        self._report = log
        self._is_stopped = False

    def stop(self) -> None:
        """Take in nothing more; what `take` has returned may never fire."""
        self._is_stopped = True

    @inlineCallbacks
    def take(self, entries: Sequence[Entry]) -> Generator[Deferred[Any], Any, None]:
        """Take entries in, in order; done when all that is to be stored is durable."""
        items: list[_Item] = []
        for start in range(0, len(entries), AT_ONCE):
            if start:
                yield from self._pause(0)
            items += [item for entry in entries[start : start + AT_ONCE] if (item := self._item(entry)) is not None]
        if items:
            yield self._take(items)

    @inlineCallbacks
    def _take(self, items: Sequence[_Item]) -> Generator[Deferred[Any], Any, None]:
        """Have events verified, deliver or store them. All are one transaction, if they are not too many for that."""
        stored: list[_Item] = []
        verdicts = yield self._verdicts(items)
        for item, verdict in zip(items, verdicts, strict=True):
            if verdict in _REFUSED:
                self._refuse(_REFUSED[Verdict(verdict)].word)
            elif verdict == Verdict.KNOWN:
                self._count("duplicate")
            elif item.is_ephemeral:
                is_new = self._relay.ephemeral_of_host(item.event, item.form.json)
                self._count("ephemeral" if is_new else "duplicate")
            else:
                stored.append(item)
        for piece in pieces([weight_of(item.event) for item in stored]):
            yield self._write(stored[piece])

    # Before anything is asked

    def _item(self, entry: Entry) -> _Item | None:
        """Return what an entry brings, if it is wanted."""
        told = told_in(entry.body)
        if told is None:
            self._count("unknown")
            return None
        if told.is_ephemeral and entry.age_s > MAX_AGE_S:
            self._count("late")
            return None
        try:
            event = parse_event(told.json)
        except EventError:
            self._refuse(MALFORMED)
            return None
        form = canonical(event)
        word = self._refusal(event, form, is_ephemeral=told.is_ephemeral)
        if word is not None:
            self._refuse(word)
            return None
        relay, now = self._relay, self._relay.now()
        if relay.recent.has(event.id, now) or relay.recent_ephemerals.has(event.id, now):
            self._count("duplicate")
            return None
        return _Item(event, form, told.is_ephemeral)

    def _refusal(self, event: Event, form: Canonical, *, is_ephemeral: bool) -> str | None:
        """Return the word for why an event is not taken in."""
        relay = self._relay
        context = Context(None, frozenset(), relay.wall_s())
        refused = relay.rules.events.check_from_host(event, form, context)
        if refused is not None:
            return refused.word
        if event_id(form.preimage) != event.id:
            return refusal.WRONG_ID.word
        is_of_its_class = (class_of(event.kind) is KindClass.EPHEMERAL) is is_ephemeral
        return None if is_of_its_class else MALFORMED

    def _refuse(self, word: str) -> None:
        self._count(word)
        if word in _SUSPICIOUS:
            self._report.host_lies(word)

    def _count(self, outcome: str) -> None:
        self._totals.taken_in[outcome] += 1

    # What is asked of others

    @inlineCallbacks
    def _verdicts(self, items: Sequence[_Item]) -> Generator[Deferred[Any], Any, Sequence[int]]:
        """Return what the verifiers say, as soon as there are some."""
        signed = [(item.event.id, item.event.pubkey, item.event.sig) for item in items]
        parts = [signed[start : start + AT_ONCE] for start in range(0, len(signed), AT_ONCE)]
        while True:
            asked: list[Deferred[Sequence[int] | None]] = []
            for part in parts:  # several verifiers work on them, and clients' events come in between
                asked.append(Deferred())
                self._store.verifiers.verify(part, asked[-1].callback)
            found: list[tuple[bool, Sequence[int] | None]] = yield DeferredList(asked)
            yield from self._if_going_on()
            verdicts = [verdict for _, some in found for verdict in some or ()]
            if len(verdicts) == len(items):
                return verdicts
            yield from self._pause(RETRY_S)

    @inlineCallbacks
    def _write(self, items: Sequence[_Item]) -> Generator[Deferred[Any], Any, None]:
        """Store events, as soon as the store can be written, and deliver those that are new."""
        congestion = self._relay.congestion
        weight = sum(weight_of(item.event) for item in items)
        while True:
            while congestion.is_behind or congestion.is_behind_elsewhere:
                yield from self._pause(BEHIND_S)
            asked: Deferred[Stored | None] = Deferred()
            self._store.writer.write([item.form.json for item in items], asked.callback, weight)
            written: Stored | None = yield asked
            if written is not None:
                self._written(items, written)
                return
            yield from self._pause(RETRY_S)

    def _written(self, items: Sequence[_Item], written: Stored) -> None:
        fresh: list[tuple[Event, bytes, int]] = []
        for (event, form, _), outcome, seq in zip(items, written.outcomes, written.seqs, strict=True):
            self._count(OUTCOMES[Outcome(outcome)])
            if outcome == Outcome.STORED and seq:
                fresh.append((event, form.json, seq))
        if fresh:
            self._taken_in([seq for _, _, seq in fresh])
            self._relay.imported(fresh)

    def _pause(self, seconds: float) -> Generator[Deferred[Any], Any, None]:
        slept: Deferred[None] = Deferred()
        self._relay.machine.call_later(seconds, lambda: slept.callback(None))
        yield slept
        yield from self._if_going_on()

    def _if_going_on(self) -> Generator[Deferred[Any], Any, None]:
        """Wait for ever after `stop`."""
        if self._is_stopped:
            yield Deferred()
