"""The whole relay under random histories: every peer gets exactly what was sent to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.pyry import Link, World, envelope, notice, wrapped

SERVER_IDS = ("a", "b")
FRAMES = (b"1", b'{"x": [ ]}', b'"\\ud800"')
INVALID = (b"nope", b"", b"\xff")
BAD_ENVELOPES = (b"[]", b'{"frame":1}', b'{"conn_id":"x"}', b'{"conn_id":"x","frame":1,"close_code":7}')
ALLOWED_CLOSES = {
    "binary": {(4409, "server-id already claimed"), (1011, "heartbeat timeout")},
    "phone": {
        (4404, "no server with that id"),
        (4429, "too many phones for server-id"),
        (4404, "binary reclaimed server-id"),
    },
}

server_ids = st.sampled_from(SERVER_IDS)
picks = st.integers(0, 1000)
frames = st.lists(st.sampled_from(FRAMES + INVALID[:1]) | st.sampled_from(INVALID), min_size=1, max_size=4)


class Order(NamedTuple):
    """One envelope: the phone it names (None: it is a bad one), its frame and its close code."""

    pick: int
    frame: bytes | None
    close_code: int | None
    bad: bytes | None


orders = st.builds(
    Order,
    picks,
    st.sampled_from(FRAMES),
    st.sampled_from([None, None, None, 1000, 4401]),
    st.sampled_from([None, None, None, *BAD_ENVELOPES]),
)


@dataclass(eq=False)
class Party:
    """A connection as the model knows it."""

    kind: str
    server_id: str
    link: Link
    name: str
    expected: list[bytes] = field(default_factory=list)
    may_close: set[int] = field(default_factory=set)
    gone: bool = False

    @property
    def live(self) -> bool:
        """Tell whether it is neither closed nor lost."""
        return not self.gone and not self.link.peer.closes


class RelayMachine(RuleBasedStateMachine):
    """Binaries and phones come, send, block and go; time passes. The model knows closes and events only."""

    def __init__(self) -> None:
        super().__init__()
        self.parties: list[Party] = []
        self.phone_to_binary = 0
        self.binary_to_phone = 0
        self.dropped = 0
        self.displaced = 0

    @initialize(grace_s=st.sampled_from([0.0, 5.0, 30.0]), max_phones=st.integers(1, 4))
    def start(self, grace_s: float, max_phones: int) -> None:
        self.world = World(grace_s=grace_s, max_phones=max_phones)

    # What the model knows

    def of(self, kind: str, server_id: str | None = None) -> list[Party]:
        """Return the live connections of a kind."""
        return [
            party
            for party in self.parties
            if party.kind == kind and party.live and server_id in (None, party.server_id)
        ]

    def holder(self, server_id: str) -> Party | None:
        """Return the binary that was last reported to hold the server-id, while it lives."""
        claims = [event[2] for event in self.world.events.named("claimed") if event[1] == server_id]
        return next((party for party in self.of("binary", server_id) if claims and party.name == claims[-1]), None)

    def joined(self) -> list[Party]:
        """Return the live phones, all of which the relay has accepted."""
        phones = self.of("phone")
        assert all(phone.link.conn_id for phone in phones)
        return phones

    # Rules

    @rule(server_id=server_ids)
    def claim(self, server_id: str) -> None:
        name = f"binary-{len(self.parties)}"
        held = self.holder(server_id)
        link = self.world.binary(server_id, name)
        self.parties.append(Party("binary", server_id, link, name))
        now_held = self.holder(server_id)
        assert now_held is (self.parties[-1] if held is None else held)
        assert held is None or held.link.peer.pings

    @rule(server_id=server_ids, source=st.sampled_from(["192.0.2.7", "192.0.2.7", "192.0.2.8"]))
    def join(self, server_id: str, source: str) -> None:
        before, holder = self.of("phone", server_id), self.holder(server_id)
        known = self.world.registry.state(server_id) != "vacant"
        link = self.world.phone(server_id, source=source)
        displaced = [phone for phone in before if not phone.live]
        for phone in displaced:
            phone.may_close = {4429}
            if holder is not None:
                holder.expected.append(notice(phone.link, 1001))
        self.displaced += len(displaced)
        self.parties.append(Party("phone", server_id, link, link.conn_id))
        full = len(before) - len(displaced) >= self.world.registry.max_phones
        expected = [] if known and not full else [(4404, "no server with that id")]
        if known and full:
            expected = [(4429, "too many phones for server-id")]
        assert link.peer.closes == expected
        assert bool(link.conn_id) == (not expected)

    @precondition(lambda self: self.of("phone"))
    @rule(pick=picks, batch=frames)
    def phone_speaks(self, pick: int, batch: list[bytes]) -> None:
        phones = self.of("phone")
        phone = phones[pick % len(phones)]
        holder = self.holder(phone.server_id)
        valid = len(batch)
        if any(frame in INVALID for frame in batch):
            valid = min(index for index, frame in enumerate(batch) if frame in INVALID)
        if holder is None:
            phone.may_close = {1000}
        else:
            holder.expected += [wrapped(phone.link, frame) for frame in batch[:valid]]
            self.phone_to_binary += valid
            phone.may_close = {1007} if valid < len(batch) else set()
            holder.expected += [notice(phone.link, 1007)] if valid < len(batch) else []
        must_close = bool(phone.may_close)
        phone.link.says(*batch, binary=True)
        assert phone.live != must_close
        if holder is not None and valid and holder.link.peer.buffered_bytes and phone.live:
            assert phone.link.peer.paused

    @rule(pick=picks, frame=st.sampled_from(FRAMES + INVALID))
    def closed_phone_speaks(self, pick: int, frame: bytes) -> None:
        """Deliver what a closed phone had sent before, which no peer gets."""
        phones = [party for party in self.parties if party.kind == "phone" and not party.gone]
        closed = [phone for phone in phones if not phone.live]
        if closed:
            closed[pick % len(closed)].link.says(frame)

    @precondition(lambda self: any(party.kind == "binary" for party in self.parties))
    @rule(pick=picks, batch=st.lists(orders, min_size=1, max_size=6))
    def binary_speaks(self, pick: int, batch: list[Order]) -> None:
        """Send from any binary, holder or not, to any phone, its own or not."""
        binaries = [party for party in self.parties if party.kind == "binary" and not party.gone]
        if not binaries:
            return
        sender = binaries[pick % len(binaries)]
        is_holder = self.holder(sender.server_id) is sender
        phones = [party for party in self.parties if party.kind == "phone"]
        reachable = set(self.of("phone", sender.server_id)) if is_holder else set()
        messages = []
        for order in batch:
            target = phones[order.pick % len(phones)] if phones else None
            if order.bad is not None or target is None:
                messages.append(order.bad or b"[]")
                self.dropped += 1
                continue
            messages.append(envelope(target.link.conn_id or "unknown", order.frame, order.close_code))
            if target not in reachable:
                self.dropped += 1
                continue
            assert order.frame is not None
            target.expected.append(order.frame)
            self.binary_to_phone += 1
            if order.close_code is not None:
                reachable.discard(target)
                target.may_close = {order.close_code}
        sender.link.says(*messages)

    @rule(pick=picks)
    def answer(self, pick: int) -> None:
        """Answer the pings of a binary, perhaps long after it was closed."""
        pinged = [party for party in self.parties if party.link.peer.pings and not party.gone]
        if pinged:
            pinged[pick % len(pinged)].link.peer.answer()

    @rule(server_id=server_ids)
    def block(self, server_id: str) -> None:
        holder = self.holder(server_id)
        if holder is not None:
            holder.link.peer.block()

    @rule(pick=picks)
    def drain(self, pick: int) -> None:
        """Drain a peer, perhaps a binary whose phones belong to another by now."""
        blocked = [party for party in self.parties if party.link.peer.buffered_bytes and not party.gone]
        if blocked:
            blocked[pick % len(blocked)].link.peer.drain()

    @rule(pick=picks, source=picks)
    def drain_source(self, pick: int, source: int) -> None:
        """Drain one source of a peer."""
        blocked = [party for party in self.parties if party.link.peer.waiting and not party.gone]
        if blocked:
            peer = blocked[pick % len(blocked)].link.peer
            peer.drain_source(list(peer.waiting)[source % len(peer.waiting)])

    @precondition(lambda self: not all(party.gone for party in self.parties))
    @rule(pick=picks, code=st.sampled_from([1000, 1005, 1006, 4001]))
    def drop(self, pick: int, code: int) -> None:
        """Lose a connection, whether it was closed or not."""
        here = [party for party in self.parties if not party.gone]
        self.lose(here[pick % len(here)], code)

    def lose(self, party: Party, code: int = 1006) -> None:
        """Note the notice that the holder gets for a phone that had not been closed."""
        holder = self.holder(party.server_id)
        if party.kind == "phone" and party.live and holder is not None:
            holder.expected.append(notice(party.link, code if code in (1000, 4001) else 1001))
        party.gone = True
        party.link.drops(code)

    @rule(seconds=st.sampled_from([0.5, 5.0, 10.0, 31.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    # Invariants

    @invariant()
    def every_peer_got_what_was_sent_to_it(self) -> None:
        """Every peer got its frames unchanged, in order, and no others."""
        for party in self.parties:
            assert party.link.peer.sent == party.expected

    @invariant()
    def closes_have_their_reasons(self) -> None:
        """Each peer was closed at most once, with a code of the specification or of an envelope."""
        for party in self.parties:
            assert len(party.link.peer.closes) <= 1
            for code, reason in party.link.peer.closes:
                allowed = {code for code, _ in ALLOWED_CLOSES[party.kind] if reason} | party.may_close
                assert code in allowed or (party.kind, code, reason) == ("phone", 1000, "")

    @invariant()
    def paused_phones_will_be_resumed(self) -> None:
        """A phone is paused only while data waits for the binary that holds its server-id."""
        for phone in self.of("phone"):
            holder = self.holder(phone.server_id)
            assert not phone.link.peer.paused or (holder is not None and holder.link.peer.buffered_bytes)

    @invariant()
    def gauges_agree(self) -> None:
        if not self.parties:
            return
        registry = self.world.registry
        assert registry.binaries == sum(self.holder(server_id) is not None for server_id in SERVER_IDS)
        assert registry.phone_count == len(self.joined())
        assert len(self.world.timers) == (registry.next_deadline() is not None)

    @invariant()
    def counters_agree(self) -> None:
        if not self.parties:
            return
        counters, events = self.world.counters, self.world.events
        assert counters.phone_to_binary == self.phone_to_binary
        assert counters.binary_to_phone == self.binary_to_phone
        assert sum(counters.envelopes_dropped.values()) == self.dropped
        closes = Counter(close for party in self.parties for close in party.link.peer.closes)
        claimed = {event[2] for event in events.named("claimed")}
        left = [party for party in self.parties if party.kind == "binary" and party.gone and party.name not in claimed]
        rejected = [
            closes[4409, "server-id already claimed"] + sum(not party.link.peer.closes for party in left),
            closes[4404, "no server with that id"],
            closes[4429, "too many phones for server-id"] - self.displaced,
        ]
        failures = counters.register_failures
        assert [failures[kind] for kind in ("server_in_use", "no_server", "phones_at_cap")] == rejected
        waiting = [party for party in self.of("binary") if party.name not in claimed]
        assert sum(counters.upgrades.values()) == len(self.parties) - len(waiting)
        assert counters.upgrades == {
            ("server", "accept"): len(events.named("claimed")),
            ("client", "accept"): len(events.named("registered")),
            ("server", "reject_409"): rejected[0],
            ("client", "reject_404"): rejected[1],
            ("client", "reject_429"): rejected[2],
        } | {key: 0 for key in counters.upgrades if not counters.upgrades[key]}

    @invariant()
    def ends_are_reported_once(self) -> None:
        """The end of each accepted peer is reported once, and no other end is."""
        if not self.parties:
            return
        claimed = {event[2] for event in self.world.events.named("claimed")}
        ended = [party for party in self.parties if party.gone]
        assert len(self.world.events.named("released")) == sum(party.name in claimed for party in ended)
        told = Counter(event[2] for event in self.world.events.named("unregistered"))
        assert told == Counter(names(party for party in ended if party.kind == "phone"))

    def teardown(self) -> None:
        """Check that nothing is left when all peers are gone and time has passed."""
        for party in self.parties:
            if not party.gone:
                self.lose(party)
        if self.parties:
            self.world.clock.advance(100)
            assert len(self.world.registry) == 0
            assert self.world.timers == []
            assert not any(self.world.relay.session(peer_id) for peer_id in range(len(self.parties) + 2))


def names(parties: Iterable[Party]) -> list[str]:
    """Return the conn_ids of those that have one."""
    return [party.name for party in parties if party.name]


TestRelayMachine = RelayMachine.TestCase
TestRelayMachine.settings = settings(max_examples=100, stateful_step_count=40)
