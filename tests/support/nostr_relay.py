"""A Nostr relay whose peers, store and verifiers are under a test's control, on a clock that only the test moves."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from twisted.internet.base import DelayedCall
from twisted.internet.task import Clock

from pyryrelay.guard import ClientAddress
from pyryrelay.guard.client import named
from pyryrelay.nostr.events import Event, canonical, event_id
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.policies.quotas.quotas import NostrQuotas
from pyryrelay.nostr.serving.relay import Relay, Rules
from pyryrelay.nostr.serving.session import NostrSession
from pyryrelay.nostr.serving.surroundings import Machine, Store
from pyryrelay.nostr.storage.interface import Outcome
from pyryrelay.nostr.workers.store_readers import CREDIT_BYTES, QueryListener
from pyryrelay.nostr.workers.store_writer import Stored
from pyryrelay.nostr.workers.wire import Aborted, Hint, Query, Verdict

WALL_S = 1_700_000_000
ALICE, BOB, CAROL = ("a1" * 32, "b0" * 32, "ca" * 32)
CLIENT = named("192.0.2.7")
OPEN_OPTIONS: dict[str, Any] = {
    "nostr_url": "wss://relay.example.com/",
    "nostr_event_quota": None,
    "nostr_event_prefix_quota": None,
    "nostr_pubkey_quota": None,
    "nostr_req_quota": None,
}


def event(
    content: str = "",
    *,
    kind: int = 1,
    author: str = ALICE,
    created_at: int = WALL_S,
    tags: Iterable[Sequence[str]] = (),
    sig: str = "5" * 128,
) -> Event:
    """Return an event with the right id, and a signature that only `FakeVerifiers` accept."""
    draft = Event("0" * 64, author, created_at, kind, [list(tag) for tag in tags], content, sig)
    return Event(event_id(canonical(draft).preimage), author, created_at, kind, draft.tags, content, sig)


def json_of(one: Event) -> bytes:
    """Return the canonical JSON of an event."""
    return canonical(one).json


def as_dict(one: Event) -> dict[str, Any]:
    """Return an event as clients see it."""
    return cast(dict[str, Any], json.loads(json_of(one)))


@dataclass
class FakePeer:
    """A peer that keeps up until ``blocks`` is set; then what it is sent waits until `drain`."""

    on_drain: Callable[[], None] | None = None
    on_source_drain: Callable[[Hashable], None] | None = None
    blocks: bool = False
    buffered_bytes: int = 0
    wire: list[bytes] = field(default_factory=list)
    sends: int = 0
    close_code: int | None = None
    close_reason: str = ""

    @property
    def closed_with(self) -> tuple[int | None, str]:
        """Return the code and the reason of the close."""
        return self.close_code, self.close_reason

    def waiting_bytes(self, source: Hashable) -> int:
        """Return nothing: there are no sources."""
        return 0

    def send(
        self,
        batch: Sequence[bytes],
        *,
        binary: bool = False,
        before: bytes = b"",
        after: bytes = b"",
        source: Hashable = None,
    ) -> None:
        """Take messages."""
        if self.close_code is None:
            self.sends += 1
            self.wire += [before + one + after for one in batch]
            if self.blocks:
                self.buffered_bytes += sum(map(len, batch))

    def drain(self) -> None:
        """Read everything that waits, and keep up from now on."""
        self.blocks = False
        self.trickle()

    def trickle(self) -> None:
        """Read what waits now, and no more."""
        self.buffered_bytes = 0
        if self.on_drain is not None:
            self.on_drain()

    def close(self, code: int, reason: str = "") -> None:
        """Take note of the close."""
        if self.close_code is None:
            self.close_code, self.close_reason = code, reason

    def pause(self) -> None:
        """Do nothing."""

    def resume(self) -> None:
        """Do nothing."""

    def ping(self, answered: Callable[[], None]) -> None:
        """Do nothing."""

    def take(self) -> list[Any]:
        """Return the messages since the last call, decoded."""
        wire, self.wire = self.wire, []
        return [json.loads(one) for one in wire]


class FakeVerifiers:
    """Verifiers that answer when they are told to, or at once by ``is_prompt``. Bad signatures are all zeros."""

    def __init__(self) -> None:
        self.is_prompt = True
        self.waiting: list[tuple[Sequence[tuple[str, str, str]], Callable[[Sequence[int] | None], None]]] = []
        self.asked = 0
        self.known: set[str] = set()

    def verify(self, items: Sequence[tuple[str, str, str]], done: Callable[[Sequence[int] | None], None]) -> None:
        """Take events."""
        self.asked += len(items)
        self.waiting.append((items, done))
        if self.is_prompt:
            self.answer()

    def answer(self, place: int = 0) -> None:
        """Answer one of the calls that wait."""
        items, done = self.waiting.pop(place)
        done([self._verdict(*item) for item in items])

    def fail(self) -> None:
        """Answer the first call with a failure."""
        self.waiting.pop(0)[1](None)

    def _verdict(self, event_id: str, pubkey: str, sig: str) -> Verdict:
        if event_id in self.known:
            return Verdict.KNOWN
        if pubkey == "f" * 64:
            return Verdict.BAD_KEY
        return Verdict.BAD_SIGNATURE if sig == "0" * 128 else Verdict.GOOD


class FakeWriter:
    """A writer that commits when it is told to, or at once by ``is_prompt``. ``outcomes`` are for ids."""

    def __init__(self, relay: Callable[[], Relay]) -> None:
        self._relay = relay
        self.is_prompt = True
        self.is_healthy = True
        self.waiting: list[tuple[Sequence[bytes], Callable[[Stored | None], None]]] = []
        self.stored: list[tuple[int, bytes]] = []
        self.seq = 0
        self.outcomes: dict[str, Outcome] = {}

    def write(self, events: Sequence[bytes], done: Callable[[Stored | None], None], weight: int | None = None) -> None:
        """Take events."""
        self.waiting.append((events, done))
        if self.is_prompt:
            self.commit()

    def commit(self, removed: Sequence[str] = ()) -> None:
        """Commit the first call, with ids that it removes."""
        events, done = self.waiting.pop(0)
        if removed:
            self.stored = [one for one in self.stored if one[1][7:71].decode() not in removed]
            self._relay().removed("written", [bytes.fromhex(one) for one in removed])
        outcomes, seqs = [], []
        for one in events:
            outcome = self.outcomes.get(one[7:71].decode(), Outcome.STORED)
            if any(one[7:71] == other[7:71] for _, other in self.stored):
                outcome = Outcome.DUPLICATE
            outcomes.append(outcome)
            seqs.append(0)
            if outcome is Outcome.STORED:
                self.seq += 1
                self.stored.append((self.seq, one))
                seqs[-1] = self.seq
        done(Stored(outcomes, seqs))

    def fail(self) -> None:
        """Fail the first call."""
        self.waiting.pop(0)[1](None)


@dataclass
class FakeQuery:
    """A query that was opened, and its handle."""

    query: Query
    listener: QueryListener
    credit: int
    is_open: bool = True

    def more(self, size: int) -> None:
        """Take credit."""
        if self.is_open:
            self.credit += size

    def cancel(self) -> None:
        """End the query."""
        self.is_open = False

    def rows(self, *rows: Event | bytes) -> None:
        """Send rows."""
        if self.is_open:
            jsons = [json_of(row) if isinstance(row, Event) else row for row in rows]
            self.credit -= sum(map(len, jsons))
            self.listener.rows(jsons)

    def done(self, hint: Hint = None, work: int = 1, aborted: Aborted = None) -> None:
        """End the query."""
        if self.is_open:
            self.is_open = False
            self.listener.done(hint, work, aborted)

    def answer(self, *rows: Event, seq: int = 0, hint: Hint = "finish") -> None:
        """Do all there is to do."""
        self.listener.snapshot(seq)
        if rows:
            self.rows(*rows)
        self.done(hint)


class FakeReaders:
    """Readers whose queries a test answers."""

    def __init__(self) -> None:
        self.opened: list[FakeQuery] = []

    def open(self, query: Query, listener: QueryListener, credit: int = CREDIT_BYTES) -> FakeQuery:
        """Take a query."""
        self.opened.append(FakeQuery(query, listener, credit))
        return self.opened[-1]

    @property
    def running(self) -> list[FakeQuery]:
        """Return the queries that are neither done nor cancelled."""
        return [one for one in self.opened if one.is_open]


@dataclass
class FakeLog:
    """Keeps what would be logged."""

    lines: list[tuple[object, ...]] = field(default_factory=list)

    def refused(self, verb: str, client: ClientAddress | None, word: str) -> None:
        """Keep a refusal."""
        self.lines.append(("refused", verb, word))

    def slow_client(self, client: ClientAddress | None) -> None:
        """Keep a slow client."""
        self.lines.append(("slow",))

    def store_health(self, is_writable: bool, cause: str) -> None:
        """Keep the health."""
        self.lines.append(("health", is_writable, cause))

    def clock_jumped(self, jump_s: int) -> None:
        """Keep a jump of the clock."""
        self.lines.append(("jumped", jump_s))

    def child_ended(self, role: str, reason: str, delay_s: float) -> None:
        """Keep the end of a child."""
        self.lines.append(("ended", role))


class World:
    """A relay and everything around it. ``options`` replace the defaults, and those of `OPEN_OPTIONS`."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.wall_s = WALL_S
        self.strikes: list[str] = []
        self.exempt: set[ClientAddress] = set()
        self.log = FakeLog()
        self.options = replace(NostrOptions(), **(OPEN_OPTIONS | options))
        machine = Machine(
            now=self.clock.seconds,
            wall_s=lambda: self.wall_s,
            call_later=self.clock.callLater,
            strike=lambda client, reason: self.strikes.append(reason),
            is_exempt=lambda client: client in self.exempt,
            log=self.log,
        )
        self.relay = Relay(machine, Rules.of(self.options), NostrQuotas())
        self.writer, self.readers, self.verifiers = FakeWriter(lambda: self.relay), FakeReaders(), FakeVerifiers()
        self.relay.start(cast(Store, _FakeStore(self.writer, self.readers, self.verifiers)))

    def configure(self, **options: Any) -> None:
        """Reload with other options."""
        self.options = replace(self.options, **options)
        self.relay.configure(Rules.of(self.options))

    def client(self, address: ClientAddress | None = CLIENT) -> Client:
        """Return a client that has just connected."""
        peer = FakePeer()
        return Client(self, peer, NostrSession(self.relay, peer, address))

    def turn(self) -> None:
        """Run what is scheduled for now."""
        self.clock.advance(0)

    def one_turn(self) -> None:
        """Run only the first call that is scheduled."""
        calls: list[DelayedCall] = self.clock.calls
        calls.pop(0).func()

    def pass_s(self, seconds: float) -> None:
        """Let time pass, with the ticks of the relay."""
        self.clock.advance(seconds)
        self.wall_s += int(seconds)
        self.relay.tick()


@dataclass
class _FakeStore:
    writer: FakeWriter
    readers: FakeReaders
    verifiers: FakeVerifiers


@dataclass
class Client:
    """A client, its peer and its session."""

    world: World
    peer: FakePeer
    session: NostrSession
    is_paused: bool = False

    @property
    def is_read(self) -> bool:
        """Whether the client is read from."""
        return not self.is_paused

    def send(self, *messages: object) -> None:
        """Send messages in one chunk: lists, or raw bytes."""
        batch = [
            (one if isinstance(one, bytes) else json.dumps(one, ensure_ascii=False).encode(), False) for one in messages
        ]
        waiting = self.session.messages(batch)
        if waiting is not None:
            self.is_paused = True
            waiting.addCallback(self._go_on)

    def _go_on(self, result: object) -> None:
        self.is_paused = False

    def ask(self, *messages: object) -> list[Any]:
        """Send messages, and return what the client was sent since the last call."""
        self.send(*messages)
        return self.take()

    def publish(self, *events: Event) -> list[Any]:
        """Publish events in one chunk, and return what the client was sent."""
        return self.ask(*[["EVENT", as_dict(one)] for one in events])

    def take(self) -> list[Any]:
        """Return what the client was sent since the last call, after a turn of the reactor."""
        self.world.turn()
        return self.peer.take()

    def leave(self, code: int = 1001) -> None:
        """Disconnect."""
        self.session.closed(code, "")
