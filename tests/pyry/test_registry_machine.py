"""The registry under random histories, against a model that knows its effects only."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pyryrelay.pyry.registry import (
    CLOSES,
    Claimed,
    Close,
    CloseCause,
    Effect,
    Probe,
    Registered,
    Registry,
    State,
    Vacated,
)

SERVER_IDS = ("a", "b", "c")
server_ids = st.sampled_from(SERVER_IDS)
picks = st.integers(0, 1000)


@dataclass
class Slot:
    """What is known from outside about one server-id."""

    holder: int | None = None
    waiting: list[int] = field(default_factory=list)
    phones: dict[str, int] = field(default_factory=dict)
    grace_until: float | None = None
    probe_until: float | None = None


class RegistryMachine(RuleBasedStateMachine):
    """Binaries claim, vanish, answer or not; phones join and leave; slots are moved or given up; time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.peers = 0
        self.slots = {server_id: Slot() for server_id in SERVER_IDS}
        self.vacant = set(SERVER_IDS)  # By what was reported: claims and `Vacated`.
        self.home: dict[int, tuple[str, str | None]] = {}  # Server-id, and a phone's conn_id.
        self.source: dict[int, str] = {}  # Of phones.
        self.open: set[int] = set()
        self.closed: list[tuple[int, str, str | None]] = []  # Closed by an effect, the loss not reported yet.
        self.expiries = 0

    @initialize(grace_s=st.sampled_from([0.0, 5.0, 30.0]), max_phones=st.integers(0, 4))
    def start(self, grace_s: float, max_phones: int) -> None:
        self.registry = Registry(grace_s=grace_s, max_phones=max_phones, probe_s=10.0)

    def connect(self, server_id: str, conn_id: str | None = None) -> int:
        self.peers += 1
        self.home[self.peers] = (server_id, conn_id)
        self.open.add(self.peers)
        return self.peers

    # What effects mean

    def apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Claimed):
                self.on_claimed(effect.peer)
            elif isinstance(effect, Registered):
                server_id, conn_id = self.home[effect.peer]
                assert conn_id == effect.conn_id
                self.slots[server_id].phones[effect.conn_id] = effect.peer
            elif isinstance(effect, Probe):
                assert self.slots[effect.server_id].holder == effect.peer
                self.slots[effect.server_id].probe_until = self.now + 10.0
            elif isinstance(effect, Vacated):
                self.on_vacated(effect.server_id)
            else:
                self.on_close(effect)

    def on_claimed(self, peer: int) -> None:
        """Check that no phone survives a change of holder: all are closed before the new one holds it."""
        slot = self.slots[self.home[peer][0]]
        assert slot.holder is None
        assert not slot.phones
        slot.waiting.remove(peer)
        slot.holder = peer
        slot.grace_until = slot.probe_until = None
        self.vacant.discard(self.home[peer][0])

    def on_vacated(self, server_id: str) -> None:
        """Check that a slot is vacated once for each time that it was claimed, when everybody has been closed."""
        slot = self.slots[server_id]
        assert server_id not in self.vacant
        assert slot.holder is None
        assert not slot.waiting
        assert not slot.phones
        self.vacant.add(server_id)

    def on_close(self, effect: Close) -> None:
        """Check that a peer is closed at most once, and never after it has gone."""
        assert effect.peer in self.open
        assert (effect.code, effect.reason) == CLOSES[effect.cause]
        server_id, conn_id = self.home[effect.peer]
        slot = self.slots[server_id]
        self.open.remove(effect.peer)
        self.closed.append((effect.peer, server_id, conn_id))
        if effect.cause is CloseCause.CONFLICT:
            assert slot.holder is not None
            slot.waiting.remove(effect.peer)
        elif effect.cause is CloseCause.TAKEN_OVER:
            assert slot.holder == effect.peer
            assert slot.waiting
            assert slot.probe_until is not None
            assert slot.probe_until <= self.now
            slot.holder = None
        elif conn_id is not None and effect.cause in (
            CloseCause.RECLAIMED,
            CloseCause.GRACE_EXPIRED,
            CloseCause.DISPLACED,
        ):
            assert slot.phones.pop(conn_id) == effect.peer
        elif effect.cause in (CloseCause.MOVED, CloseCause.HELD_ELSEWHERE):
            self.on_removed(slot, effect.peer, conn_id)
        else:
            assert effect.cause is self.refusal(slot)

    def on_removed(self, slot: Slot, peer: int, conn_id: str | None) -> None:
        """Take a peer out of a slot that is moved or given up."""
        slot.grace_until = slot.probe_until = None
        if conn_id is not None:
            assert slot.phones.pop(conn_id) == peer
        elif slot.holder == peer:
            slot.holder = None
        else:
            slot.waiting.remove(peer)

    def refusal(self, slot: Slot) -> CloseCause | None:
        """Return why a phone that joins now is refused; 4404 precedes 4429."""
        if slot.holder is None and slot.grace_until is None:
            return CloseCause.NO_SERVER
        return CloseCause.TOO_MANY_PHONES if len(slot.phones) >= self.registry.max_phones else None

    def settle(self) -> None:
        """End probes without a challenger, and graces whose time is over."""
        for slot in self.slots.values():
            if not slot.waiting:
                slot.probe_until = None
            if slot.grace_until is not None and slot.grace_until <= self.now:
                slot.grace_until = None
                self.expiries += 1

    # Rules

    @rule(server_id=server_ids)
    def claim(self, server_id: str) -> None:
        slot = self.slots[server_id]
        peer = self.connect(server_id)
        vacant, alone = slot.holder is None, not slot.waiting
        slot.waiting.append(peer)
        effects = self.registry.claim(server_id, peer, self.now)
        self.apply(effects)
        if vacant:
            assert effects[-1] == Claimed(peer)
        else:
            assert effects == ([Probe(slot.holder, server_id)] if alone and slot.holder is not None else [])

    def displaced(self, slot: Slot, source: str) -> int | None:
        """Return the phone that gives way to one of this source: the newest of a source with the most, and two more."""
        sources = [self.source[phone] for phone in slot.phones.values()]
        if len(sources) != self.registry.max_phones:
            return None
        crowded = [other for other in sources if sources.count(other) >= sources.count(source) + 2]
        if not crowded:
            return None
        greatest = max(crowded, key=sources.count)
        return [phone for phone in slot.phones.values() if self.source[phone] == greatest][-1]

    @rule(server_id=server_ids, pick=picks, source=st.sampled_from("aaaab"))
    def join(self, server_id: str, pick: int, source: str) -> None:
        conn_id = f"{pick}"
        slot = self.slots[server_id]
        assert self.registry.has_conn_id(server_id, conn_id) == (conn_id in slot.phones)
        if conn_id in slot.phones:
            return
        refusal, displaced = self.refusal(slot), self.displaced(slot, source)
        phone = self.connect(server_id, conn_id)
        self.source[phone] = source
        effects = self.registry.join(server_id, phone, conn_id, self.now, source)
        self.apply(effects)
        if refusal is CloseCause.TOO_MANY_PHONES and displaced is not None:
            assert effects == [
                Close(displaced, *CLOSES[CloseCause.DISPLACED], CloseCause.DISPLACED),
                Registered(phone, conn_id),
            ]
        elif refusal is not None:
            assert effects == [Close(phone, *CLOSES[refusal], refusal)]
        else:
            assert effects == [Registered(phone, conn_id)]

    @precondition(lambda self: any(slot.waiting for slot in self.slots.values()))
    @rule(pick=picks)
    def answer(self, pick: int) -> None:
        probed = [server_id for server_id, slot in self.slots.items() if slot.waiting]
        server_id = probed[pick % len(probed)]
        slot = self.slots[server_id]
        assert slot.holder is not None
        refused = list(slot.waiting)
        effects = self.registry.answered(server_id, slot.holder, self.now)
        self.apply(effects)
        assert effects == [Close(peer, *CLOSES[CloseCause.CONFLICT], CloseCause.CONFLICT) for peer in refused]
        self.settle()

    @precondition(lambda self: self.open)
    @rule(pick=picks)
    def lose(self, pick: int) -> None:
        """Lose an open connection: a holder, a challenger or a phone."""
        peer = sorted(self.open)[pick % len(self.open)]
        self.open.remove(peer)
        server_id, conn_id = self.home[peer]
        slot = self.slots[server_id]
        if conn_id is not None:
            assert slot.phones.pop(conn_id) == peer
            assert self.registry.phone_lost(server_id, conn_id) == []
            return
        if slot.holder == peer:
            slot.holder = None
            slot.grace_until = None if slot.waiting else self.now + self.registry.grace_s
        else:
            slot.waiting.remove(peer)
        self.apply(self.registry.binary_lost(server_id, peer, self.now))
        self.settle()

    @precondition(lambda self: self.closed)
    @rule(pick=picks)
    def lose_closed(self, pick: int) -> None:
        """Lose a connection that an effect has closed, which changes nothing."""
        peer, server_id, conn_id = self.closed.pop(pick % len(self.closed))
        if conn_id is None:
            assert self.registry.answered(server_id, peer, self.now) == []
            assert self.registry.binary_lost(server_id, peer, self.now) == []
        elif conn_id not in self.slots[server_id].phones:
            assert self.registry.phone_lost(server_id, conn_id) == []

    @rule(server_id=server_ids, moves=st.booleans())
    def remove(self, server_id: str, moves: bool) -> None:
        """Another process takes a slot over, or turns out to hold its server-id."""
        slot, was_vacant = self.slots[server_id], server_id in self.vacant
        effects = (self.registry.move if moves else self.registry.evict)(server_id, self.now)
        self.apply(effects)
        slot.grace_until = slot.probe_until = None
        assert effects[-1:] == ([] if was_vacant else [Vacated(server_id)])

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0, 10.0, 31.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.apply(self.registry.tick(self.now))
        self.settle()
        assert all(slot.probe_until is None or slot.probe_until > self.now for slot in self.slots.values())

    @rule()
    def pass_time_to_the_next_deadline(self) -> None:
        due = self.registry.next_deadline()
        self.pass_time(0.0 if due is None else due - self.now)

    @rule(grace_s=st.sampled_from([0.0, 2.0, 60.0]), max_phones=st.integers(0, 4))
    def reconfigure(self, grace_s: float, max_phones: int) -> None:
        self.registry.grace_s = grace_s
        self.registry.max_phones = max_phones

    # Invariants

    @invariant()
    def slots_agree(self) -> None:
        for server_id, slot in self.slots.items():
            assert self.registry.holder(server_id) == slot.holder
            assert list(self.registry.phones(server_id)) == list(slot.phones.values())
            assert all(self.registry.phone(server_id, conn_id) == peer for conn_id, peer in slot.phones.items())
            assert self.registry.state(server_id) is self.expected_state(slot)

    def expected_state(self, slot: Slot) -> State:
        if slot.holder is not None:
            return State.PROBED if slot.waiting else State.HELD
        return State.VACANT if slot.grace_until is None else State.GRACE

    @invariant()
    def every_open_connection_has_one_place(self) -> None:
        places = []
        for slot in self.slots.values():
            places += [*slot.waiting, *slot.phones.values()]
            places += [] if slot.holder is None else [slot.holder]
        assert sorted(places) == sorted(self.open)

    @invariant()
    def totals_agree(self) -> None:
        slots = self.slots.values()
        assert self.registry.binaries == sum(slot.holder is not None for slot in slots)
        assert self.registry.phone_count == sum(len(slot.phones) for slot in slots)
        assert self.registry.grace_expiries == self.expiries

    @invariant()
    def nothing_vacant_is_kept(self) -> None:
        vacant = [slot for slot in self.slots.values() if self.expected_state(slot) is State.VACANT]
        assert len(self.registry) == len(self.slots) - len(vacant)
        assert not any(slot.phones for slot in vacant)
        assert {server_id for server_id, slot in self.slots.items() if slot in vacant} == self.vacant

    @invariant()
    def deadlines_agree(self) -> None:
        due = [at for slot in self.slots.values() for at in (slot.grace_until, slot.probe_until) if at is not None]
        assert self.registry.next_deadline() == min(due, default=None)
        assert all(at > self.now for at in due)


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(max_examples=150, stateful_step_count=50)
