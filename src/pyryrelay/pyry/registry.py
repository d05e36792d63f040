"""Who is paired with whom: one slot per server-id, held by one binary and shared by its phones.

The rules (pyry spec, "Binary leg" and "Phone leg"):

1. The first binary to claim a server-id is seated and holds its slot.
2. A claim for a held slot makes its holder an incumbent that is probed, and the newcomer a challenger. More
   of them may come and wait. An incumbent that answers keeps the slot, and all challengers are closed with
   4409. One that does not answer in time is closed with 1011, its phones are evicted with 4404, the first
   challenger is seated, and further ones are closed with 4409.
3. A slot whose holder is lost is kept for a grace. A claim within it, or a challenger who is waiting
   already, reclaims the slot at once, and every phone is evicted with 4404. At its end the slot goes, and
   the phones that are left are closed with 1000.
4. Phones register while the slot is held, probed or in grace; otherwise 4404. Over the cap: 4429. That is the newcomer,
   unless some source holds at least two places more than the newcomer's own: then it is the newest phone of the source
   that holds the most. So one source may take all places, and cannot keep others out.

PURE: events in, effects out. Each method takes what happened and returns what to do, in that order; nothing
is called back. `TRANSITIONS` drives the slots, and docs/reference/registry.md is generated from it.

Invariants: a slot has at most one holder. A peer that is closed by an effect has left the registry already,
so that the later loss of its connection is a no-op; nobody is closed twice. A slot that is vacant is not
kept. Phones never outlive a change of holder. A slot never has more phones than the cap, unless that was
lowered. Deadlines fire in `tick` alone: an answer or a claim that is reported before it counts, however late
it is.

Units: seconds on the caller's monotonic clock; `now` never decreases. Every method takes amortised O(log
slots) time, besides what it closes; a phone that finds its slot full takes time in the phones there.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from pyryrelay.pyry.deadlines import Deadlines

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping

PeerId: TypeAlias = int
"""A connection, named by the caller; never used for two connections."""


class RegistryError(Exception):
    """The caller broke the contract: a peer or a conn_id is in use already."""


class State(StrEnum):
    """The state of a server-id's slot."""

    VACANT = "vacant"
    HELD = "held"
    PROBED = "probed"
    GRACE = "grace"


class SlotEvent(StrEnum):
    """What happens to a slot."""

    CLAIM = "claim"
    ANSWERED = "answered"
    UNANSWERED = "unanswered"
    HOLDER_LOST = "holder lost"
    CHALLENGERS_LOST = "challengers lost"
    EXPIRED = "expired"


class Transition(NamedTuple):
    """One row of the table: the state that follows, the action's name, and what it does."""

    target: State
    action: str
    effect: str


TRANSITIONS: Final[Mapping[tuple[State, SlotEvent], Transition]] = MappingProxyType(
    {
        (State.VACANT, SlotEvent.CLAIM): Transition(State.HELD, "seat", "The binary is seated."),
        (State.HELD, SlotEvent.CLAIM): Transition(
            State.PROBED,
            "probe",
            "The incumbent is pinged and has 10 s to answer; the newcomer waits as a challenger.",
        ),
        (State.HELD, SlotEvent.HOLDER_LOST): Transition(
            State.GRACE,
            "start_grace",
            "The slot is kept for the grace; phones stay and new ones may register.",
        ),
        (State.PROBED, SlotEvent.CLAIM): Transition(
            State.PROBED, "wait", "The newcomer joins the waiting challengers; the probe goes on."
        ),
        (State.PROBED, SlotEvent.ANSWERED): Transition(State.HELD, "refuse", "All challengers are closed with 4409."),
        (State.PROBED, SlotEvent.UNANSWERED): Transition(
            State.HELD,
            "take_over",
            "The incumbent is closed with 1011, its phones are evicted with 4404, "
            "the first challenger is seated, further ones are closed with 4409.",
        ),
        (State.PROBED, SlotEvent.HOLDER_LOST): Transition(
            State.HELD,
            "reclaim",
            "Phones are evicted with 4404, the first challenger is seated, further ones are closed with 4409.",
        ),
        (State.PROBED, SlotEvent.CHALLENGERS_LOST): Transition(
            State.HELD, "call_off", "The last challenger is gone, and the probe with it."
        ),
        (State.GRACE, SlotEvent.CLAIM): Transition(
            State.HELD, "reclaim", "Phones are evicted with 4404, the binary is seated."
        ),
        (State.GRACE, SlotEvent.EXPIRED): Transition(
            State.VACANT, "expire", "The slot goes; the phones that are left are closed with 1000."
        ),
    }
)
"""Every transition there is. A pair that is not here cannot happen."""


class Why(StrEnum):
    """Why a peer is closed, in words fit for metrics and logs."""

    CONFLICT = "conflict"
    NO_SERVER = "no_server"
    TOO_MANY_PHONES = "too_many_phones"
    DISPLACED = "displaced"
    RECLAIMED = "reclaimed"
    TAKEN_OVER = "taken_over"
    GRACE_EXPIRED = "grace_expired"


CLOSES: Final[Mapping[Why, tuple[int, str]]] = MappingProxyType(
    {
        Why.CONFLICT: (4409, "server-id already claimed"),
        Why.NO_SERVER: (4404, "no server with that id"),
        Why.TOO_MANY_PHONES: (4429, "too many phones for server-id"),
        Why.DISPLACED: (4429, "too many phones for server-id"),
        Why.RECLAIMED: (4404, "binary reclaimed server-id"),
        Why.TAKEN_OVER: (1011, "heartbeat timeout"),
        Why.GRACE_EXPIRED: (1000, ""),
    }
)
"""Close code and reason of each `Why`."""


@dataclass(frozen=True, slots=True)
class Seated:
    """The claim of this binary succeeded, at once or after a wait."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Probe:
    """Ping this incumbent now, and report the pong as `Registry.answered`."""

    peer: PeerId
    server_id: str


@dataclass(frozen=True, slots=True)
class Registered:
    """This phone is in."""

    peer: PeerId
    conn_id: str


@dataclass(frozen=True, slots=True)
class Close:
    """Close this peer; it has left the registry."""

    peer: PeerId
    code: int
    reason: str
    why: Why


Effect: TypeAlias = Seated | Probe | Registered | Close


def conn_id_for(server_id: str, suffix_hex8: str) -> str:
    """Return ``client-<server-id>-<8 hex>``; the caller makes the suffix, unguessable and unused."""
    return f"client-{server_id}-{suffix_hex8}"


class _Phone(NamedTuple):
    peer: PeerId
    source: Hashable


@dataclass(slots=True)
class _Slot:
    """A server-id's slot. ``line`` has its binaries by arrival: the first holds it, the others challenge."""

    server_id: str
    state: State = State.VACANT
    line: dict[PeerId, None] = field(default_factory=dict)
    phones: dict[str, _Phone] = field(default_factory=dict)

    @property
    def first(self) -> PeerId:
        """The holder of a slot that is held or probed."""
        return next(iter(self.line))

    def surplus(self, source: Hashable) -> str | None:
        """The phone that gives way to one from ``source``, if any does."""
        held = Counter(phone.source for phone in self.phones.values())
        greatest, most = max(held.items(), key=lambda item: item[1], default=(None, 0))
        if most <= held[source] + 1:
            return None
        return next(conn_id for conn_id, phone in reversed(self.phones.items()) if phone.source == greatest)


class Registry:
    """All slots. ``grace_s`` and ``max_phones`` may be changed at any time, for what happens from then on.

    A ``grace_s`` of 0 expires at once, within the call that starts it.
    """

    def __init__(self, grace_s: float = 30.0, max_phones: int = 16, probe_s: float = 10.0) -> None:
        self.grace_s = grace_s
        self.max_phones = max_phones
        self.grace_expiries = 0
        """Graces that ended without a claim, since the start."""
        self._probe_s = probe_s
        self._slots: dict[str, _Slot] = {}
        self._deadlines = Deadlines()
        self._binaries = 0
        self._phone_count = 0
        self._actions: dict[str, Callable[[_Slot, float], list[Effect]]] = {
            "seat": self._seat,
            "probe": self._probe,
            "start_grace": self._start_grace,
            "wait": self._wait,
            "refuse": self._refuse,
            "take_over": self._take_over,
            "reclaim": self._reclaim,
            "call_off": self._call_off,
            "expire": self._expire,
        }

    # Events

    def claim(self, server_id: str, peer: PeerId, now: float) -> list[Effect]:
        """A binary's upgrade is complete. It gets `Seated` or `Close`, now or once a probe has ended.

        Raises `RegistryError` if this peer has claimed this server-id before.
        """
        slot = self._slots.setdefault(server_id, _Slot(server_id))
        if peer in slot.line:
            raise RegistryError("this peer has claimed this server-id already")
        slot.line[peer] = None
        return self._fire(slot, SlotEvent.CLAIM, now)

    def answered(self, server_id: str, peer: PeerId, now: float) -> list[Effect]:
        """A pong to a probe came from this binary. Ignored unless it is an incumbent that is being probed."""
        slot = self._slots.get(server_id)
        if slot is None or slot.state is not State.PROBED or slot.first != peer:
            return []
        return self._fire(slot, SlotEvent.ANSWERED, now)

    def binary_lost(self, server_id: str, peer: PeerId, now: float) -> list[Effect]:
        """A binary's connection is gone: holder, challenger, or one that has left the registry already."""
        slot = self._slots.get(server_id)
        if slot is None or peer not in slot.line:
            return []
        was_holder = slot.first == peer
        del slot.line[peer]
        if was_holder:
            return self._fire(slot, SlotEvent.HOLDER_LOST, now)
        return [] if len(slot.line) > 1 else self._fire(slot, SlotEvent.CHALLENGERS_LOST, now)

    def join(self, server_id: str, phone: PeerId, conn_id: str, now: float, source: Hashable = None) -> list[Effect]:
        """A phone's upgrade is complete. Returns its `Registered` or `Close`, behind the `Close` of one it displaces.

        ``source`` is where the phone comes from, such as its client address. Raises `RegistryError` if ``conn_id`` is
        in use under this server-id.
        """
        slot = self._slots.get(server_id)
        if slot is None:
            return [_close(phone, Why.NO_SERVER)]
        if conn_id in slot.phones:
            raise RegistryError("this conn_id is in use")
        effects: list[Effect] = []
        if len(slot.phones) >= self.max_phones:
            surplus = slot.surplus(source) if len(slot.phones) == self.max_phones else None
            if surplus is None:
                return [_close(phone, Why.TOO_MANY_PHONES)]
            effects.append(_close(slot.phones.pop(surplus).peer, Why.DISPLACED))
            self._phone_count -= 1
        slot.phones[conn_id] = _Phone(phone, source)
        self._phone_count += 1
        return [*effects, Registered(phone, conn_id)]

    def phone_lost(self, server_id: str, conn_id: str) -> list[Effect]:
        """A phone's connection is gone. Harmless for one that has left the registry already."""
        slot = self._slots.get(server_id)
        if slot is not None and slot.phones.pop(conn_id, None) is not None:
            self._phone_count -= 1
        return []

    def tick(self, now: float, *, fair: bool = True) -> list[Effect]:
        """Fire every probe and grace whose deadline is ``now`` or before.

        Not ``fair``: the caller was too busy to hear answers in time, so probes get their whole time again.
        """
        effects: list[Effect] = []
        while (server_id := self._deadlines.pop(now)) is not None:
            slot = self._slots[server_id]
            if slot.state is State.PROBED and not fair:
                self._deadlines.set(server_id, now + self._probe_s)
                continue
            event = SlotEvent.UNANSWERED if slot.state is State.PROBED else SlotEvent.EXPIRED
            effects += self._fire(slot, event, now)
        return effects

    # Queries

    @property
    def binaries(self) -> int:
        """Slots that a binary holds."""
        return self._binaries

    @property
    def phone_count(self) -> int:
        """Phones that are registered."""
        return self._phone_count

    def __len__(self) -> int:
        """Slots that are held, probed or in grace."""
        return len(self._slots)

    def next_deadline(self) -> float | None:
        """When `tick` has something to do next."""
        return self._deadlines.first()

    def state(self, server_id: str) -> State:
        """The state of a slot; VACANT for a server-id that nobody has claimed."""
        slot = self._slots.get(server_id)
        return State.VACANT if slot is None else slot.state

    def holder(self, server_id: str) -> PeerId | None:
        """The binary that holds the slot; None in GRACE and VACANT."""
        slot = self._slots.get(server_id)
        return slot.first if slot is not None and slot.line else None

    def phone(self, server_id: str, conn_id: str) -> PeerId | None:
        """The phone with this conn_id under this server-id, and under no other."""
        slot = self._slots.get(server_id)
        phone = None if slot is None else slot.phones.get(conn_id)
        return None if phone is None else phone.peer

    def phones(self, server_id: str) -> Collection[PeerId]:
        """The phones under this server-id, as they are now, in order of arrival."""
        slot = self._slots.get(server_id)
        return () if slot is None else tuple(phone.peer for phone in slot.phones.values())

    def has_conn_id(self, server_id: str, conn_id: str) -> bool:
        """Whether `join` would refuse this conn_id as used."""
        return self.phone(server_id, conn_id) is not None

    # The machine

    def _fire(self, slot: _Slot, event: SlotEvent, now: float) -> list[Effect]:
        source = slot.state
        transition = TRANSITIONS[source, event]
        slot.state = target = transition.target
        self._binaries += (target in _OCCUPIED) - (source in _OCCUPIED)
        if target not in _TIMED:
            self._deadlines.drop(slot.server_id)
        return self._actions[transition.action](slot, now)

    def _seat(self, slot: _Slot, now: float) -> list[Effect]:
        return [Seated(slot.first)]

    def _probe(self, slot: _Slot, now: float) -> list[Effect]:
        self._deadlines.set(slot.server_id, now + self._probe_s)
        return [Probe(slot.first, slot.server_id)]

    def _wait(self, slot: _Slot, now: float) -> list[Effect]:
        return []

    def _call_off(self, slot: _Slot, now: float) -> list[Effect]:
        return []

    def _refuse(self, slot: _Slot, now: float) -> list[Effect]:
        holder, *challengers = slot.line
        slot.line = {holder: None}
        return [_close(peer, Why.CONFLICT) for peer in challengers]

    def _take_over(self, slot: _Slot, now: float) -> list[Effect]:
        incumbent = slot.first
        del slot.line[incumbent]
        return [_close(incumbent, Why.TAKEN_OVER), *self._reclaim(slot, now)]

    def _reclaim(self, slot: _Slot, now: float) -> list[Effect]:
        return [*self._evict(slot, Why.RECLAIMED), *self._seat(slot, now), *self._refuse(slot, now)]

    def _start_grace(self, slot: _Slot, now: float) -> list[Effect]:
        if self.grace_s <= 0:
            return self._fire(slot, SlotEvent.EXPIRED, now)
        self._deadlines.set(slot.server_id, now + self.grace_s)
        return []

    def _expire(self, slot: _Slot, now: float) -> list[Effect]:
        self.grace_expiries += 1
        del self._slots[slot.server_id]
        return self._evict(slot, Why.GRACE_EXPIRED)

    def _evict(self, slot: _Slot, why: Why) -> list[Effect]:
        effects: list[Effect] = [_close(phone.peer, why) for phone in slot.phones.values()]
        self._phone_count -= len(effects)
        slot.phones.clear()
        return effects


_OCCUPIED: Final = (State.HELD, State.PROBED)
_TIMED: Final = (State.PROBED, State.GRACE)


def _close(peer: PeerId, why: Why) -> Close:
    code, reason = CLOSES[why]
    return Close(peer, code, reason, why)
