"""The state of the whole relay that its connections share, and what they may spend.

Everything runs on the reactor. Times are seconds of the monotonic clock, but for ``wall_s``, which is unix time.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from twisted.internet.defer import Deferred

from pyryrelay.close_codes import CloseCode
from pyryrelay.config.settings import SharedSettings
from pyryrelay.guard import ClientAddress
from pyryrelay.nostr.events import Event, stored_event
from pyryrelay.nostr.kinds import EPHEMERAL_GIFT_WRAP
from pyryrelay.nostr.messages import auth, closed, ok
from pyryrelay.nostr.observe.refused import RefusedLately
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.policies.authentication import RelayUrls
from pyryrelay.nostr.policies.chain import EventChain, FilterChain, event_chain, filter_chain, lists_of
from pyryrelay.nostr.policies.lists import Lists
from pyryrelay.nostr.policies.quotas.quotas import NostrQuotas
from pyryrelay.nostr.policies.refusal import Refused, Texts
from pyryrelay.nostr.serving.congestion import Congestion
from pyryrelay.nostr.serving.connection import Connection
from pyryrelay.nostr.serving.counts import Counts
from pyryrelay.nostr.serving.fanout import Fanout
from pyryrelay.nostr.serving.moving import Moving
from pyryrelay.nostr.serving.outgoing import Outboxes, Outgoing
from pyryrelay.nostr.serving.recent import EPHEMERAL_S, Ephemerals, RecentIds, Removals
from pyryrelay.nostr.serving.surroundings import Machine, Member, Store
from pyryrelay.nostr.workers.shared.others import Others

TICK_S: Final = 0.25
SWEEP_S: Final = 1.0
CHARGE_S: Final = 0.005
"""How soon other workers hear of what was spent. What a quota lets through too much is spent within this time."""
JUMP_S: Final = 60
"""A wall clock that was set by more than that is worth a warning."""
IDLE_ROUND_S: Final = 30.0
"""How often each connection is looked at to see whether it is idle; more often for short timeouts."""
TOO_MANY_INVALID: Final = "too many invalid messages"
INVALID_STRIKE: Final = "nostr_invalid"
"""The reason of strikes: malformed messages beyond their quota, wrong ids and signatures, failed authentications."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What follows from the options at one time."""

    options: NostrOptions
    events: EventChain
    filters: FilterChain
    urls: RelayUrls
    texts: Texts
    hidden: frozenset[str]
    """Authors of whom nothing is served."""

    @classmethod
    def of(cls, options: NostrOptions, lists: Lists | None = None) -> Rules:
        """Return what follows from options, and from lists if those of files are to be added."""
        lists = lists_of(options) if lists is None else lists
        listen = options.listen if isinstance(options, SharedSettings) else ()
        urls = RelayUrls.of(options.nostr_url, options.nostr_path, listen)
        return cls(
            options=options,
            events=event_chain(options, lists, can_authenticate=bool(urls)),
            filters=filter_chain(options, lists),
            urls=urls,
            texts=Texts(options.nostr_text),
            hidden=lists.denied_keys if options.nostr_deny_hides else frozenset(),
        )


class Relay:
    """The relay: its rules, its store, what is open, and the totals."""

    def __init__(self, machine: Machine, rules: Rules, quotas: NostrQuotas) -> None:
        self.machine = machine
        self.now, self.wall_s, self.log = machine.now, machine.wall_s, machine.log
        self.rules = rules
        self.quotas = quotas
        self.counts = Counts()
        self.refused_lately = RefusedLately()
        self.congestion = Congestion()
        self.fanout = Fanout(machine.now, machine.wall_s, machine.call_later, self.counts, self.congestion)
        self.outboxes = Outboxes(self._slow_closed, self.counts.sent)
        self.recent = RecentIds()
        self.recent_ephemerals = RecentIds(lifetime_s=EPHEMERAL_S)
        self.ephemerals = Ephemerals()
        self.members: dict[Outgoing, Member] = {}
        self._idle_round: list[Member] = []
        self._swept_at_s = machine.now()
        self._clock_offset_s = machine.wall_s() - machine.now()
        self._is_waking = False
        self.waiting: dict[Member, None] = {}
        """Connections with queries that wait for their turn."""
        self.removals = Removals()
        """Events that were removed while scans ran."""
        self.stored_events = 0
        self.others: Others | None = None
        """The other workers of this relay."""
        self.is_clustered = False
        """Whether there may be other hosts, so that nobody knows who hears an ephemeral event."""
        self.on_ephemeral: Callable[[str, bytes], None] | None = None
        """Called with the id and the JSON of each ephemeral event that this host has accepted."""
        self.on_published: Callable[[Sequence[tuple[Event, bytes, int]]], None] | None = None
        """Called with events that clients of this host have published, before `Fanout.on_committed`."""
        self._is_charging = False
        self.on_ready: Callable[[], None] | None = None
        """Called each time that the writer has opened the store."""
        self.is_draining = False
        self._drained: Deferred[None] | None = None
        self._moving: Moving | None = None
        self._moved: Deferred[bool] | None = None
        self._store: Store | None = None
        self._when_started: list[Deferred[None]] = []
        self.configure(rules)

    def configure(self, rules: Rules) -> None:
        """Enforce these rules from now on."""
        self.rules = rules
        options = rules.options
        self.quotas.configure(options)
        self.fanout.private_kinds = options.nostr_private_kinds
        self.fanout.hidden_authors = rules.hidden
        self.outboxes.max_bytes = options.nostr_outbox_bytes
        self.outboxes.max_total_bytes = options.nostr_outbox_total_bytes
        self.congestion.max_pending = options.nostr_max_pending_events
        self.congestion.max_queue = options.nostr_write_queue
        self.ephemerals.configure(options.nostr_ephemeral_lifetime_s, options.nostr_ephemeral_bytes)
        self.congestion.wake()

    @property
    def options(self) -> NostrOptions:
        """The options in force."""
        return self.rules.options

    @property
    def subscriptions(self) -> int:
        """How many subscriptions are open."""
        return len(self.fanout)

    @property
    def is_started(self) -> bool:
        """Whether there is a store; without one, messages wait (see `when_started`)."""
        return self._store is not None

    def when_started(self) -> Deferred[None]:
        """Return a Deferred that fires at `start`."""
        started = Deferred[None]()
        self._when_started.append(started)
        return started

    @property
    def store(self) -> Store:
        """The child processes. Raises `RuntimeError` before `start`."""
        if self._store is None:
            raise RuntimeError("the relay was not started")
        return self._store

    def start(self, store: Store) -> None:
        """Serve from this store."""
        self._store = store
        waiting, self._when_started = self._when_started, []
        for started in waiting:
            started.callback(None)

    # Refusals

    def text(self, text: str) -> str:
        """Return a text as the operator wants clients to see it."""
        return self.rules.texts(text) if self.rules.texts else text

    def refuse_event(self, connection: Connection, event_id: str, refused: Refused) -> list[bytes]:
        """Count a refused event, and return what its publisher is sent."""
        self.counts.events[refused.word] += 1
        self.note_refused("EVENT", connection.client, refused.word)
        answer = ok(event_id, False, self.text(refused.text))
        return [*self.challenge(connection), answer] if refused.needs_auth else [answer]

    def refuse_query(self, connection: Connection, id_json: bytes, refused: Refused) -> list[bytes]:
        """Count a refused REQ or COUNT, or a subscription that the relay ends, and return what its client is sent."""
        self.counts.closed[refused.word] += 1
        self.note_refused("REQ", connection.client, refused.word)
        answer = closed(id_json, self.text(refused.text))
        return [*self.challenge(connection), answer] if refused.needs_auth else [answer]

    def note_refused(self, verb: str, client: ClientAddress | None, word: str) -> None:
        """Log that a message was refused, and remember it for operators who ask."""
        self.refused_lately.add(client, verb, word, self.now())
        self.log.refused(verb, client, word)

    def challenge(self, connection: Connection) -> list[bytes]:
        """Return the AUTH challenge of a connection, unless it was sent before or cannot be answered."""
        if connection.challenge is not None or not self.rules.urls:
            return []
        connection.challenge = secrets.token_hex(32)
        return [auth(connection.challenge)]

    def charge_invalid(self, connection: Connection, *, is_strike: bool = False) -> None:
        """Charge something invalid to a client, and close the connection if it has no token left for that.

        Without a token it is a strike for the jail; with ``is_strike`` it always is.
        """
        client = connection.client
        if connection.is_exempt:
            return
        has_token = self.quotas.spend_invalid(client, self.now())
        if client is not None and (is_strike or not has_token):
            self.machine.strike(client, INVALID_STRIKE)
        if not has_token:
            self.counts.invalid_closed += 1
            connection.outgoing.close(CloseCode.POLICY_VIOLATION, TOO_MANY_INVALID)

    def _slow_closed(self, outgoing: Outgoing) -> None:
        self.counts.slow_clients_closed += 1
        member = self.members.get(outgoing)
        self.log.slow_client(None if member is None else member.client)

    # The store; see `pyryrelay.nostr.workers.store_writer.WriterEvents`

    def writer_ready(self, seq: int, events: int) -> None:
        """The store is open."""
        self.stored_events = events
        if self.others is not None:
            self.recent.clear()  # what was removed meanwhile was not heard here
        if self.on_ready is not None:
            self.on_ready()

    def removed(self, reason: str, ids: Sequence[bytes]) -> None:
        """Forget events that the store has deleted; the ids have 32 bytes."""
        if reason == "expired":
            self.counts.expired += len(ids)
        else:
            self.counts.deleted += len(ids)
        self.removed_elsewhere(ids)

    def removed_elsewhere(self, ids: Sequence[bytes]) -> None:
        """Forget events that are gone, which another worker has counted."""
        self.stored_events -= len(ids)
        gone = {one.hex() for one in ids}
        self.recent.discard(gone)
        self.fanout.forget(gone)
        if self._has_queries:
            self.removals.add(gone, self.now())

    def published(self, events: Sequence[tuple[Event, bytes, int]]) -> None:
        """Deliver events that clients of this host have published, given with their JSON and number."""
        if self.on_published is not None:
            self.on_published(events)
        self.fanout.committed(events)

    def imported(self, events: Sequence[tuple[Event, bytes, int]]) -> None:
        """Deliver events that a tool or another host has stored, given with their JSON and number."""
        self.stored_events += len(events)
        now = self.now()
        for event, _, _ in events:
            if not self.fanout.is_gone(event.id, now):
                self.recent.add(event.id, now)
        self.fanout.committed(events)

    def arrived(self, events: Sequence[bytes], seqs: Sequence[int]) -> None:
        """Deliver events that were stored for other workers."""
        now = self.now()
        self.stored_events += len(events)
        fresh = [(stored_event(json), json, seq) for json, seq in zip(events, seqs, strict=True)]
        for event, _, _ in fresh:
            if not self.fanout.is_gone(event.id, now):
                self.recent.add(event.id, now)
        self.published(fresh)

    def batch_written(self, events: int, took_s: float) -> None:
        """A transaction was committed."""
        self.counts.write_batch_events.observe(events)
        self.counts.write_s.observe(took_s)

    def health_changed(self, is_writable: bool, cause: str) -> None:
        """The store cannot be written any more, or can again."""
        self.log.store_health(is_writable, cause)

    def verified(self, events: int, took_s: float) -> None:
        """A batch of events was verified."""
        self.counts.verify_s.observe(took_s)

    # The other workers; see `pyryrelay.nostr.workers.shared.others.OthersEvents`

    def join(self, others: Others) -> None:
        """Be one relay with other workers from now on."""
        self.others = others
        self.fanout.on_behind = others.set_behind

    def ephemeral_elsewhere(self, json: bytes) -> bool:
        """Deliver an ephemeral event that another worker has accepted, unless another copy of it came first."""
        event, now = stored_event(json), self.now()
        if self.recent_ephemerals.has(event.id, now):
            return True
        self.keep_ephemeral(event, json, now)
        if self.on_ephemeral is not None:
            self.on_ephemeral(event.id, json)
        return self.fanout.ephemeral(event, json) or self.is_clustered

    def ephemeral_of_host(self, event: Event, json: bytes) -> bool:
        """Deliver an ephemeral event that another host has accepted; False if another copy of it came first."""
        now = self.now()
        if self.recent_ephemerals.has(event.id, now):
            return False
        self.keep_ephemeral(event, json, now)
        self.fanout.ephemeral(event, json)
        if self.others is not None:
            self.others.deliver(json)
        return True

    def keep_ephemeral(self, event: Event, json: bytes, now: float) -> None:
        """Remember an ephemeral event, and serve it for a while if that is wanted."""
        self.recent_ephemerals.add(event.id, now)
        if event.kind != EPHEMERAL_GIFT_WRAP:
            self.ephemerals.add(event, json, now)

    def charged_elsewhere(self, quota: str, keys: Sequence[bytes], tokens: Sequence[int]) -> None:
        """Take tokens that were spent in another worker."""
        self.quotas.absorb(quota, keys, tokens, self.now())

    def behind_elsewhere(self, is_behind: bool) -> None:
        """Do not read from publishers while live delivery is behind in another worker."""
        self.congestion.is_behind_elsewhere = is_behind
        if not is_behind:
            self.congestion.wake()

    def charge_later(self) -> None:
        """Tell the other workers soon what was spent here."""
        if not self._is_charging:
            self._is_charging = True
            self.machine.call_later(CHARGE_S, self._charge)

    def _charge(self) -> None:
        """Tell the other workers what was spent here. What cannot be told is forgotten."""
        self._is_charging = False
        for quota, keys, tokens in self.quotas.changes():
            if self.others is not None:
                self.others.charge(quota, keys, tokens)
        if self.quotas.has_changes:
            self.charge_later()

    @property
    def _has_queries(self) -> bool:
        return bool(self.counts.queries_running or self.counts.queries_waiting)

    # Time

    def tick(self) -> None:
        """Do what is due; called a few times a second."""
        now = self.now()
        if now - self._swept_at_s >= SWEEP_S:
            self._swept_at_s = now
            self.quotas.sweep(now)
            self.refused_lately.sweep(now)
            self.ephemerals.sweep(now)
            if self.removals and not self._has_queries:
                self.removals.clear()
            self._look_at_clock(now)
        for member in list(self.waiting):
            member.tick(now)
        if self.others is not None:
            self.others.tick(now)
        timeout_s = self.options.nostr_idle_timeout_s
        if timeout_s is not None:
            self._close_idle(now, timeout_s)

    def _look_at_clock(self, now: float) -> None:
        """Warn if the wall clock was set, because expirations and time windows follow it."""
        offset_s = self.wall_s() - now
        jump_s = round(offset_s - self._clock_offset_s)
        if abs(jump_s) > JUMP_S:
            self.log.clock_jumped(jump_s)
        self._clock_offset_s = offset_s

    def _close_idle(self, now: float, timeout_s: float) -> None:
        """Look at some of the connections, so that each is looked at in time."""
        if not self._idle_round:
            self._idle_round = list(self.members.values())
        ticks = max(1.0, min(IDLE_ROUND_S, timeout_s / 4) / TICK_S)
        for _ in range(ceil(len(self.members) / ticks)):
            if self._idle_round:
                self._idle_round.pop().close_if_idle(now, timeout_s)

    # The end

    @property
    def is_ending(self) -> bool:
        """Whether all connections are about to be closed, so that another one is of no use."""
        return self.is_draining or self._moving is not None

    def drain(self) -> Deferred[None]:
        """Refuse everything new, and end what can be; fires once all events are answered that the writer was given."""
        self.is_draining = True
        if self._moving is not None:
            self._moving.cancel()
        self._drained = drained = Deferred[None]()
        for member in list(self.members.values()):
            member.drain()
        self._check_answered()
        return drained

    def move_away(self, over_s: float) -> Deferred[bool]:
        """Close all connections with 1001, spread over a time, each once its events are answered.

        See `pyryrelay.nostr.serving.moving`. Fires when all events are answered, with True; or with False if `stay` was
        called before.
        """
        self._moved = moved = Deferred[bool]()
        self._moving = Moving(self.members.values(), over_s, self.machine.call_later, self._check_answered)
        self._moving.begin()
        return moved

    def stay(self) -> bool:
        """Serve the connections on that `move_away` has not closed yet. Returns False if that is over already."""
        moving, moved = self._moving, self._moved
        if moving is None or moved is None:
            return False
        moving.cancel()
        self._moving = self._moved = None
        for member in list(self.members.values()):
            member.stay()
        moved.callback(False)
        return True

    def reopen(self) -> None:
        """Serve again after `drain` or `move_away`, from the next store."""
        self.is_draining = False
        self._moving = self._drained = self._store = None

    def answered(self) -> None:
        """Note that events of a publisher were answered, which may let others go on."""
        if self.congestion.stopped and not self._is_waking:
            self._is_waking = True
            self.machine.call_later(0, self._wake)
        self._check_answered()

    def _wake(self) -> None:
        self._is_waking = False
        self.congestion.wake()

    def _check_answered(self) -> None:
        if self.congestion.total:
            return
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.callback(None)
        moving, moved = self._moving, self._moved
        if moving is not None and moved is not None and moving.is_over:
            self._moved = None
            moved.callback(True)
