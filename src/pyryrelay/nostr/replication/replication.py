"""Events between the hosts of a cluster, as one process of each host does it.

Each host has a database of its own. What it stores is announced (`Outbox`), and what others announce is taken in
(`Intake`), so that in the end every database has every event. Up to where both have got is kept in the database, about
once a second: after a crash, some events are announced or taken in twice, and found to be there.

The first time, announcing begins with the newest events: what was stored before is no news.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final, Protocol

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from pyryrelay.broadcast import Broadcast, BroadcastError, Entry
from pyryrelay.nostr.events import Event
from pyryrelay.nostr.replication.answers import Answers
from pyryrelay.nostr.replication.entries import Wish, body_of, wish_in
from pyryrelay.nostr.replication.gaps import Gaps
from pyryrelay.nostr.replication.gaps import Log as GapsLog
from pyryrelay.nostr.replication.history import History
from pyryrelay.nostr.replication.intake import Intake
from pyryrelay.nostr.replication.intake import Log as IntakeLog
from pyryrelay.nostr.replication.outbox import Log as OutboxLog
from pyryrelay.nostr.replication.outbox import Outbox
from pyryrelay.nostr.replication.progress import Progress
from pyryrelay.nostr.replication.totals import Totals
from pyryrelay.nostr.replication.trimmed import Log as TrimmedLog
from pyryrelay.nostr.replication.trimmed import Trimmed
from pyryrelay.nostr.serving.relay import Relay
from pyryrelay.nostr.serving.surroundings import Store
from pyryrelay.nostr.workers.store_writer import WriterError
from pyryrelay.protocol import Cancellable

__all__ = ["Log", "Replication"]

SUBJECT: Final = "events"
KEEP_S: Final = 1.0
RETRY_S: Final = 1.0
FLUSH_S: Final = 2.0
LATE_S: Final = 5.0
"""Entries that are older than this are read late, so there may be many of them."""
CAUGHT_UP_S: Final = 3.0
"""How long no such entries must have come."""
FIRST_EVENTS: Final = 100
"""So many of the events that were stored before the first time are announced: other processes of this host may have
stored them since the relay was started."""
MAX_EPHEMERALS: Final = 1_000
"""How many ephemeral events may be on their way to a server. More are not announced: nobody waits for them for long."""
ANNOUNCED: Final = "announced"
FOREIGN: Final = "announced by others"
HISTORY: Final = "announced before"
GAP: Final = "asked again"
TRIMMED: Final = "asked for what was not kept"
ANSWERS: Final = "asked by others"
TAKEN_IN: Final = "taken in from "
"""The names of positions in the store; the last one has the name of a source behind it."""


class Log(IntakeLog, OutboxLog, GapsLog, TrimmedLog, Protocol):
    """Where it is reported what happens between hosts."""

    def sharing_events(self, waiting: int) -> None:
        """Log that events are shared with other hosts, and how many are announced now."""


class _Positions(msgspec.Struct):
    """The answer to the call ``positions``."""

    positions: dict[str, str]
    last_seq: int


class Replication:
    """What one process does between `start` and `stop`. ``make`` returns a new broadcast of a subject."""

    def __init__(
        self,
        relay: Relay,
        make: Callable[[str], Broadcast],
        call_later: Callable[[float, Callable[[], None]], Cancellable],
        totals: Totals,
        log: Log,
    ) -> None:
        self._relay = relay
        self._make = make
        self._call_later = call_later
        self._totals = totals
        self._report = log
        self._store: Store | None = None
        self._outbox: Outbox | None = None
        self._intake: Intake | None = None
        self._gaps: Gaps | None = None
        self._trimmed: Trimmed | None = None
        self._answers: Answers | None = None
        self._history: History | None = None
        self._broadcast: Broadcast | None = None
        self._positions: dict[str, str] = {}
        self._kept: dict[str, str] = {}
        self._timer: Cancellable | None = None
        self._passing: list[tuple[bytes, bytes]] = []
        self._under_way = 0
        self._added_s: dict[str, float] = {}
        """When the oldest of the entries were added that are being taken in, by source."""
        self._late_s = -inf
        """When entries were read last that had been added long before."""

    @property
    def waiting(self) -> int:
        """How many events wait to be announced."""
        return 0 if self._outbox is None else self._outbox.progress.waiting

    @property
    def behind_s(self) -> float:
        """How long ago the entries were added that are being taken in now; 0 if none are."""
        now = self._relay.now()
        return max([now - added_s for added_s in self._added_s.values()], default=0.0)

    def start(self, store: Store) -> None:
        """Begin, or go on if it has begun: the store is open."""
        if self._store is None:
            self._store = store
            self._ask()
        elif self._outbox is not None:
            self._outbox.stored(self._relay.fanout.last_seq)

    def stop(self) -> None:
        """Keep how far it has got, and end. Call it before the writer is closed; it may be started again."""
        if self._outbox is not None:
            progress = self._outbox.progress
            self._keep({ANNOUNCED: str(progress.kept), FOREIGN: progress.foreign})
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for part in (self._broadcast, self._outbox, self._intake, self._answers):
            if part is not None:
                part.stop()
        self._store = self._outbox = self._intake = self._broadcast = self._history = None
        self._gaps = self._trimmed = self._answers = None
        self._added_s.clear()
        self._relay.on_ephemeral = self._relay.on_published = self._relay.fanout.on_committed = None

    def flush(self, _: None = None) -> Deferred[None]:
        """Announce what waits; fires when that is done or cannot be done now, and within `FLUSH_S`."""
        if self._outbox is None:
            return succeed(None)
        self._call_later(FLUSH_S, self._outbox.give_up)
        return self._outbox.when_idle()

    # The start

    def _ask(self) -> None:
        """Ask where to go on."""
        self._timer = None
        store = self._store
        if store is not None:
            store.writer.call("positions").addCallbacks(self._begin, self._ask_later, callbackArgs=(store,))

    def _ask_later(self, failure: Failure) -> None:
        failure.trap(WriterError)
        if self._store is not None:
            self._timer = self._call_later(RETRY_S, self._ask)

    def _begin(self, answer: object, store: Store) -> None:
        if self._store is not store:
            return
        found = msgspec.convert(answer, _Positions)
        relay, now = self._relay, self._relay.now
        first = max(0, found.last_seq - FIRST_EVENTS)
        announced = min(int(found.positions.get(ANNOUNCED, first)), found.last_seq)
        last = max(found.last_seq, relay.fanout.last_seq)
        progress = Progress(announced, last, now(), found.positions.get(FOREIGN, ""))
        self._broadcast = broadcast = self._make(SUBJECT)
        outbox = Outbox(broadcast, store.writer, progress, now, relay.machine.call_later, self._totals, self._report)
        self._outbox = outbox
        self._intake = Intake(relay, store, progress.taken_in, self._totals, self._report)
        self._history = history = History(
            found.positions.get(HISTORY, ""), announced, relay.wall_s(), is_first=ANNOUNCED not in found.positions
        )
        self._gaps, self._trimmed, self._answers = self._parts(found.positions, store, broadcast, outbox, history)
        self._positions = {
            name.removeprefix(TAKEN_IN): position
            for name, position in found.positions.items()
            if name.startswith(TAKEN_IN)
        }
        self._kept = found.positions
        relay.on_published = self._published
        relay.fanout.on_committed = outbox.stored
        relay.on_ephemeral = self._announce_ephemeral
        self._report.sharing_events(progress.waiting)
        broadcast.follow(dict(self._positions), self)
        self._answers.start()
        self._tick()

    def _parts(
        self, found: dict[str, str], store: Store, broadcast: Broadcast, outbox: Outbox, history: History
    ) -> tuple[Gaps, Trimmed, Answers]:
        """Return what asks others for events that are missing here, and what answers them."""
        wall_s, totals, log = self._relay.wall_s, self._totals, self._report
        gaps = Gaps(broadcast, outbox, history, wall_s, totals, log, found.get(GAP, ""))
        trimmed = Trimmed(broadcast, wall_s, random.random, totals, log, found.get(TRIMMED, ""))
        answers = Answers(
            broadcast,
            store.writer,
            outbox.progress,
            history,
            wall_s,
            self._relay.machine.call_later,
            random.random,
            trimmed.lacks,
            totals,
            log,
            found.get(ANSWERS, ""),
        )
        return gaps, trimmed, answers

    def _published(self, events: Sequence[tuple[Event, bytes, int]]) -> None:
        if self._outbox is not None:
            self._outbox.published([(seq, json) for _, json, seq in events])

    # Positions

    def _tick(self) -> None:
        self._timer = self._call_later(KEEP_S, self._tick)
        if self._outbox is not None and self._gaps is not None and self._trimmed is not None:
            self._gaps.tick()
            if self.behind_s > LATE_S:
                self._late_s = self._relay.now()
            self._trimmed.tick(is_behind=self._relay.now() < self._late_s + CAUGHT_UP_S)
            self._keep({ANNOUNCED: str(self._outbox.progress.safe)})

    def _keep(self, positions: dict[str, str]) -> None:
        """Keep positions in the store, and those of sources, as far as they have changed.

        What cannot be kept now is kept later.
        """
        store = self._store
        if store is None:
            return
        if self._gaps is not None and self._history is not None:
            positions |= {GAP: self._gaps.text, HISTORY: self._history.text}
        if self._trimmed is not None and self._answers is not None:
            positions |= {TRIMMED: self._trimmed.text, ANSWERS: self._answers.text}
        positions |= {TAKEN_IN + source: position for source, position in self._positions.items()}
        changed = {name: position for name, position in positions.items() if self._kept.get(name, "") != position}
        if changed:
            self._kept = self._kept | changed
            store.writer.call("keep_positions", {"positions": changed}).addErrback(self._not_kept, changed)

    def _not_kept(self, failure: Failure, changed: dict[str, str]) -> None:
        failure.trap(WriterError)
        self._kept = {name: position for name, position in self._kept.items() if changed.get(name) != position}

    # Ephemeral events

    def _announce_ephemeral(self, event_id: str, json: bytes) -> None:
        """Announce an ephemeral event when its publisher is answered; if that is not possible, it is forgotten."""
        if len(self._passing) + self._under_way >= MAX_EPHEMERALS:
            self._totals.ephemeral_dropped += 1
            return
        self._passing.append((event_id.encode(), body_of(json, is_ephemeral=True)))
        if len(self._passing) == 1:
            self._call_later(0, self._pass_on)

    def _pass_on(self) -> None:
        passing, self._passing = self._passing, []
        for key, body in passing:
            if self._broadcast is None:
                self._totals.ephemeral_dropped += 1
                continue
            self._under_way += 1
            self._broadcast.add(key, body).addCallbacks(self._added, self._dropped)

    def _added(self, _: object) -> None:
        self._under_way -= 1
        self._totals.ephemeral_announced += 1

    def _dropped(self, failure: Failure) -> None:
        self._under_way -= 1
        self._totals.ephemeral_dropped += 1
        failure.trap(BroadcastError)

    # See `pyryrelay.broadcast.BroadcastListener`.

    def entries(self, source: str, entries: Sequence[Entry]) -> Deferred[None]:
        """Take in what other hosts have announced."""
        intake, answers = self._intake, self._answers
        if intake is None or answers is None:
            return Deferred()
        now = self._relay.now()
        self._added_s[source] = now - entries[0].age_s
        if entries[-1].age_s > LATE_S:
            self._late_s = now
        events = []
        for entry in entries:
            wish = wish_in(entry.body)
            if wish is None:
                events.append(entry)
            else:
                self._heard(wish, entry.age_s)
        answers.heard([entry.body for entry in events])
        return intake.take(events).addCallback(self._taken, intake, source, entries[-1].position)

    def _heard(self, wish: Wish, age_s: float) -> None:
        """Note what another host asks for, or answers."""
        if self._gaps is None or self._trimmed is None or self._answers is None:
            return
        if wish.until is None:
            self._gaps.heard(wish, age_s)
            return
        self._trimmed.heard(wish, age_s)
        if not wish.is_answer:
            self._answers.asked(wish, age_s)

    def _taken(self, _: Any, intake: Intake, source: str, position: str) -> None:
        if intake is self._intake:
            self._positions[source] = position
            self._added_s.pop(source, None)

    def passed(self, source: str, position: str) -> None:
        """Go on after that."""
        self._positions[source] = position

    def connected(self) -> None:
        """Announce again what a server may have lost."""
        if self._outbox is not None:
            self._outbox.connected()

    def lost(self, source: str, since_s: float) -> None:
        """Ask the others for what they do not announce again unasked."""
        if self._gaps is not None and self._trimmed is not None:
            self._gaps.lost(since_s)
            self._trimmed.lost()

    def missed(self, source: str, since_s: float, until_s: float) -> None:
        """Go on with what is left, and ask the others for the rest; that is logged and counted already."""
        if self._trimmed is not None:
            self._trimmed.missed(since_s, until_s)
