"""Which binary holds a server-id, and which phones are paired with it: one slot for each server-id.

The rules (pyry spec, "Binary leg" and "Phone leg"):

1. The first binary to claim a server-id becomes its holder.
2. A claim for a held slot makes the holder an incumbent, which is probed, and the newcomer a challenger. Further
   challengers may join and wait. If the incumbent answers, it keeps the slot, and all challengers are closed with
   4409. If it does not answer in time, it is closed with 1011, its phones are evicted with 4404, the first challenger
   becomes the holder, and the other challengers are closed with 4409.
3. When the holder's connection is lost, the slot is reserved for a grace period. A binary that claims it in that time,
   or a challenger that is already waiting, reclaims it at once, and all phones are evicted with 4404. When the grace
   expires, the slot is removed, and the remaining phones are closed with 1000.
4. Phones may register while the slot is held, probed or in grace; otherwise they are closed with 4404. When a slot has
   as many phones as the cap allows, one phone is closed with 4429: the newcomer, unless some source holds at least two
   places more than the newcomer's source. Then it is the newest phone of the source that holds the most. So one source
   may take all places, but cannot keep other sources out.

5. When another process of the relay takes over, each slot is moved: its binaries and its phones are closed with 1001
   together, and the slot is removed.
6. When another process of the relay turns out to hold the server-id, the slot here is given up: its binaries are closed
   with 1011, its phones with 4404, and the slot is removed.

PURE: events in, effects out. Each method is told what happened and returns the effects to carry out, in order; it
calls nothing back. `TRANSITIONS` drives the slots, and docs/reference/registry.md is generated from it.

Invariants: a slot has at most one holder. Whatever makes a slot vacant ends with the effect `Vacated`, exactly once. A
peer that an effect closes has already left the registry, so reporting the loss of its connection later changes nothing,
and no peer is closed twice. Vacant slots take no memory. Phones never outlive a change of holder. A slot never has more
phones than the cap, unless the cap was lowered. Deadlines expire only in `tick`: an answer or a claim that is reported
before `tick` counts, however late it is.

Units: seconds on the caller's monotonic clock; `now` never decreases. Every method takes amortised O(log slots) time,
plus the time for the peers that it closes. A phone that joins a full slot takes time in proportion to its phones.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from pyryrelay.close_codes import CloseCode
from pyryrelay.pyry.close_codes import PyryCloseCode
from pyryrelay.pyry.deadlines import Deadlines

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping

PeerId: TypeAlias = int
"""A connection, numbered by the caller. Numbers are never reused."""


class RegistryError(Exception):
    """The caller broke the contract: it reported a peer or a conn_id that is already in use."""


class State(StrEnum):
    """The state of a server-id's slot."""

    VACANT = "vacant"
    HELD = "held"
    PROBED = "probed"
    GRACE = "grace"


class SlotEvent(StrEnum):
    """What can happen to a slot."""

    CLAIM = "claim"
    ANSWERED = "answered"
    UNANSWERED = "unanswered"
    HOLDER_LOST = "holder lost"
    CHALLENGERS_LOST = "challengers lost"
    EXPIRED = "expired"
    MOVED = "moved"
    HELD_ELSEWHERE = "held elsewhere"


_MOVE_EFFECT: Final = "The binaries and the phones are closed with 1001: another process of the relay serves them now."
_GIVE_UP_EFFECT: Final = (
    "The binaries are closed with 1011, and the phones are evicted with 4404: another process of the relay has the "
    "server-id."
)


class Transition(NamedTuple):
    """One row of the table: the next state, the name of the action, and what the action does."""

    target: State
    action: str
    effect: str


TRANSITIONS: Final[Mapping[tuple[State, SlotEvent], Transition]] = MappingProxyType(
    {
        (State.VACANT, SlotEvent.CLAIM): Transition(State.HELD, "grant", "The binary becomes the holder."),
        (State.HELD, SlotEvent.CLAIM): Transition(
            State.PROBED,
            "probe",
            "The incumbent is pinged and has 10 s to answer; the newcomer waits as a challenger.",
        ),
        (State.HELD, SlotEvent.HOLDER_LOST): Transition(
            State.GRACE,
            "start_grace",
            "The slot is reserved for the grace; phones stay, and new ones may register.",
        ),
        (State.PROBED, SlotEvent.CLAIM): Transition(
            State.PROBED, "wait", "The newcomer joins the waiting challengers; the probe continues."
        ),
        (State.PROBED, SlotEvent.ANSWERED): Transition(State.HELD, "refuse", "All challengers are closed with 4409."),
        (State.PROBED, SlotEvent.UNANSWERED): Transition(
            State.HELD,
            "take_over",
            "The incumbent is closed with 1011, its phones are evicted with 4404, the first challenger becomes the "
            "holder, and the others are closed with 4409.",
        ),
        (State.PROBED, SlotEvent.HOLDER_LOST): Transition(
            State.HELD,
            "reclaim",
            "Phones are evicted with 4404, the first challenger becomes the holder, and the others are closed with "
            "4409.",
        ),
        (State.PROBED, SlotEvent.CHALLENGERS_LOST): Transition(
            State.HELD, "cancel_probe", "The last challenger has left, so the probe is cancelled."
        ),
        (State.GRACE, SlotEvent.CLAIM): Transition(
            State.HELD, "reclaim", "Phones are evicted with 4404, and the binary becomes the holder."
        ),
        (State.GRACE, SlotEvent.EXPIRED): Transition(
            State.VACANT, "expire", "The slot is removed; the remaining phones are closed with 1000."
        ),
        (State.HELD, SlotEvent.MOVED): Transition(State.VACANT, "move", _MOVE_EFFECT),
        (State.PROBED, SlotEvent.MOVED): Transition(State.VACANT, "move", _MOVE_EFFECT),
        (State.GRACE, SlotEvent.MOVED): Transition(State.VACANT, "move", _MOVE_EFFECT),
        (State.HELD, SlotEvent.HELD_ELSEWHERE): Transition(State.VACANT, "give_up", _GIVE_UP_EFFECT),
        (State.PROBED, SlotEvent.HELD_ELSEWHERE): Transition(State.VACANT, "give_up", _GIVE_UP_EFFECT),
        (State.GRACE, SlotEvent.HELD_ELSEWHERE): Transition(State.VACANT, "give_up", _GIVE_UP_EFFECT),
    }
)
"""Every transition. A pair of state and event that is not here cannot occur."""


class CloseCause(StrEnum):
    """Why the registry closes a peer; the values are fit for metrics and logs."""

    CONFLICT = "conflict"
    NO_SERVER = "no_server"
    TOO_MANY_PHONES = "too_many_phones"
    DISPLACED = "displaced"
    RECLAIMED = "reclaimed"
    TAKEN_OVER = "taken_over"
    GRACE_EXPIRED = "grace_expired"
    MOVED = "moved"
    HELD_ELSEWHERE = "held_elsewhere"


CLOSES: Final[Mapping[CloseCause, tuple[int, str]]] = MappingProxyType(
    {
        CloseCause.CONFLICT: (PyryCloseCode.SERVER_ID_CLAIMED, "server-id already claimed"),
        CloseCause.NO_SERVER: (PyryCloseCode.NO_SERVER, "no server with that id"),
        CloseCause.TOO_MANY_PHONES: (PyryCloseCode.TOO_MANY_PHONES, "too many phones for server-id"),
        CloseCause.DISPLACED: (PyryCloseCode.TOO_MANY_PHONES, "too many phones for server-id"),
        CloseCause.RECLAIMED: (PyryCloseCode.NO_SERVER, "binary reclaimed server-id"),
        CloseCause.TAKEN_OVER: (CloseCode.INTERNAL_ERROR, "heartbeat timeout"),
        CloseCause.GRACE_EXPIRED: (CloseCode.NORMAL, ""),
        CloseCause.MOVED: (CloseCode.GOING_AWAY, "shutting down"),
        CloseCause.HELD_ELSEWHERE: (CloseCode.INTERNAL_ERROR, "server-id is held elsewhere"),
    }
)
"""Close code and reason of each cause."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """This binary holds the server-id from now on, at once or after having waited."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Probe:
    """Ping this incumbent, and report its pong to `Registry.answered`."""

    peer: PeerId
    server_id: str


@dataclass(frozen=True, slots=True)
class Registered:
    """This phone is registered."""

    peer: PeerId
    conn_id: str


@dataclass(frozen=True, slots=True)
class Close:
    """Close this peer, which has left the registry."""

    peer: PeerId
    code: int
    reason: str
    cause: CloseCause


@dataclass(frozen=True, slots=True)
class Vacated:
    """The slot of this server-id has become vacant. Nobody is left in it."""

    server_id: str


Effect: TypeAlias = Claimed | Probe | Registered | Close | Vacated


def conn_id_for(server_id: str, suffix_hex8: str) -> str:
    """Return ``client-<server-id>-<8 hex>``. The caller chooses a suffix that is unguessable and unused."""
    return f"client-{server_id}-{suffix_hex8}"


class _Phone(NamedTuple):
    peer: PeerId
    source: Hashable


@dataclass(slots=True)
class _Slot:
    """The slot of a server-id. ``binaries`` are in order of arrival: the first holds the slot, the others challenge."""

    server_id: str
    state: State = State.VACANT
    binaries: dict[PeerId, None] = field(default_factory=dict)
    phones: dict[str, _Phone] = field(default_factory=dict)

    @property
    def holder(self) -> PeerId:
        """The holder of a slot that is held or probed."""
        return next(iter(self.binaries))

    def displaceable(self, source: Hashable) -> str | None:
        """Return the conn_id of the phone to close in favour of a new one from ``source``, None if there is none."""
        held = Counter(phone.source for phone in self.phones.values())
        greatest, most = max(held.items(), key=lambda item: item[1], default=(None, 0))
        if most <= held[source] + 1:
            return None
        return next(conn_id for conn_id, phone in reversed(self.phones.items()) if phone.source == greatest)


class Registry:
    """All slots. ``grace_s`` and ``max_phones`` may be changed at any time, and apply to what happens afterwards.

    A ``grace_s`` of 0 expires within the call that starts it.
    """

    def __init__(self, grace_s: float = 30.0, max_phones: int = 16, probe_s: float = 10.0) -> None:
        self.grace_s = grace_s
        self.max_phones = max_phones
        self.grace_expiries = 0
        """Number of graces that expired without a claim, since the start."""
        self._probe_s = probe_s
        self._slots: dict[str, _Slot] = {}
        self._deadlines = Deadlines()
        self._binaries = 0
        self._phone_count = 0
        self._actions: dict[str, Callable[[_Slot, float], list[Effect]]] = {
            "grant": self._grant,
            "probe": self._probe,
            "start_grace": self._start_grace,
            "wait": self._wait,
            "refuse": self._refuse,
            "take_over": self._take_over,
            "reclaim": self._reclaim,
            "cancel_probe": self._cancel_probe,
            "expire": self._expire,
            "move": self._move,
            "give_up": self._give_up,
        }

    # Events

    def claim(self, server_id: str, peer: PeerId, now: float) -> list[Effect]:
        """Report that a binary's upgrade is complete. It gets `Claimed` or `Close`, now or when a probe ends.

        Raises `RegistryError` if this peer has already claimed this server-id.
        """
        slot = self._slots.setdefault(server_id, _Slot(server_id))
        if peer in slot.binaries:
            raise RegistryError("this peer has already claimed this server-id")
        slot.binaries[peer] = None
        return self._fire(slot, SlotEvent.CLAIM, now)

    def answered(self, server_id: str, peer: PeerId, now: float) -> list[Effect]:
        """Report a binary's pong to a probe. Ignored unless the binary is an incumbent that is being probed."""
        slot = self._slots.get(server_id)
        if slot is None or slot.state is not State.PROBED or slot.holder != peer:
            return []
        return self._fire(slot, SlotEvent.ANSWERED, now)

    def binary_lost(self, server_id: str, peer: PeerId, now: float) -> list[Effect]:
        """Report that a binary's connection is gone. Ignored if it has already left the registry."""
        slot = self._slots.get(server_id)
        if slot is None or peer not in slot.binaries:
            return []
        was_holder = slot.holder == peer
        del slot.binaries[peer]
        if was_holder:
            return self._fire(slot, SlotEvent.HOLDER_LOST, now)
        return [] if len(slot.binaries) > 1 else self._fire(slot, SlotEvent.CHALLENGERS_LOST, now)

    def join(self, server_id: str, phone: PeerId, conn_id: str, now: float, source: Hashable = None) -> list[Effect]:
        """Report that a phone's upgrade is complete.

        Returns its `Registered` or `Close`, preceded by the `Close` of a phone that it displaces. ``source`` is where
        the phone comes from, such as its client address. Raises `RegistryError` if ``conn_id`` is already in use under
        this server-id.
        """
        slot = self._slots.get(server_id)
        if slot is None:
            return [_close(phone, CloseCause.NO_SERVER)]
        if conn_id in slot.phones:
            raise RegistryError("this conn_id is in use")
        effects: list[Effect] = []
        if len(slot.phones) >= self.max_phones:
            displaced = slot.displaceable(source) if len(slot.phones) == self.max_phones else None
            if displaced is None:
                return [_close(phone, CloseCause.TOO_MANY_PHONES)]
            effects.append(_close(slot.phones.pop(displaced).peer, CloseCause.DISPLACED))
            self._phone_count -= 1
        slot.phones[conn_id] = _Phone(phone, source)
        self._phone_count += 1
        return [*effects, Registered(phone, conn_id)]

    def phone_lost(self, server_id: str, conn_id: str) -> list[Effect]:
        """Report that a phone's connection is gone. Ignored if it has already left the registry."""
        slot = self._slots.get(server_id)
        if slot is not None and slot.phones.pop(conn_id, None) is not None:
            self._phone_count -= 1
        return []

    def move(self, server_id: str, now: float) -> list[Effect]:
        """Report that another process of the relay serves a server-id from now on: everybody here is closed."""
        slot = self._slots.get(server_id)
        return [] if slot is None else self._fire(slot, SlotEvent.MOVED, now)

    def evict(self, server_id: str, now: float) -> list[Effect]:
        """Report that another process of the relay holds a server-id: the slot here is given up."""
        slot = self._slots.get(server_id)
        return [] if slot is None else self._fire(slot, SlotEvent.HELD_ELSEWHERE, now)

    def tick(self, now: float, *, restart_probes: bool = False) -> list[Effect]:
        """End every probe and grace whose deadline is ``now`` or earlier.

        With ``restart_probes`` such probes start again instead, because the caller was too busy to read answers.
        """
        effects: list[Effect] = []
        while (server_id := self._deadlines.pop(now)) is not None:
            slot = self._slots[server_id]
            if slot.state is State.PROBED and restart_probes:
                self._deadlines.set(server_id, now + self._probe_s)
                continue
            event = SlotEvent.UNANSWERED if slot.state is State.PROBED else SlotEvent.EXPIRED
            effects += self._fire(slot, event, now)
        return effects

    # Queries

    @property
    def binaries(self) -> int:
        """Number of slots that a binary holds."""
        return self._binaries

    @property
    def phone_count(self) -> int:
        """Number of phones that are registered."""
        return self._phone_count

    def __len__(self) -> int:
        """Number of slots that are held, probed or in grace."""
        return len(self._slots)

    def server_ids(self) -> list[str]:
        """Return the server-ids whose slots are held, probed or in grace."""
        return list(self._slots)

    def next_deadline(self) -> float | None:
        """Return when `tick` next has something to do, None if nothing is due."""
        return self._deadlines.first()

    def state(self, server_id: str) -> State:
        """Return the state of a slot: VACANT for a server-id that is not claimed."""
        slot = self._slots.get(server_id)
        return State.VACANT if slot is None else slot.state

    def holder(self, server_id: str) -> PeerId | None:
        """Return the binary that holds the slot; None in GRACE and VACANT."""
        slot = self._slots.get(server_id)
        return slot.holder if slot is not None and slot.binaries else None

    def phone(self, server_id: str, conn_id: str) -> PeerId | None:
        """Return the phone with this conn_id under this server-id, and under no other."""
        slot = self._slots.get(server_id)
        phone = None if slot is None else slot.phones.get(conn_id)
        return None if phone is None else phone.peer

    def phones(self, server_id: str) -> Collection[PeerId]:
        """Return the phones under this server-id at this moment, in order of arrival."""
        slot = self._slots.get(server_id)
        return () if slot is None else tuple(phone.peer for phone in slot.phones.values())

    def has_conn_id(self, server_id: str, conn_id: str) -> bool:
        """Return whether a phone under this server-id already has this conn_id."""
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

    def _grant(self, slot: _Slot, now: float) -> list[Effect]:
        return [Claimed(slot.holder)]

    def _probe(self, slot: _Slot, now: float) -> list[Effect]:
        self._deadlines.set(slot.server_id, now + self._probe_s)
        return [Probe(slot.holder, slot.server_id)]

    def _wait(self, slot: _Slot, now: float) -> list[Effect]:
        return []

    def _cancel_probe(self, slot: _Slot, now: float) -> list[Effect]:
        return []

    def _refuse(self, slot: _Slot, now: float) -> list[Effect]:
        holder, *challengers = slot.binaries
        slot.binaries = {holder: None}
        return [_close(peer, CloseCause.CONFLICT) for peer in challengers]

    def _take_over(self, slot: _Slot, now: float) -> list[Effect]:
        incumbent = slot.holder
        del slot.binaries[incumbent]
        return [_close(incumbent, CloseCause.TAKEN_OVER), *self._reclaim(slot, now)]

    def _reclaim(self, slot: _Slot, now: float) -> list[Effect]:
        return [*self._evict(slot, CloseCause.RECLAIMED), *self._grant(slot, now), *self._refuse(slot, now)]

    def _start_grace(self, slot: _Slot, now: float) -> list[Effect]:
        if self.grace_s <= 0:
            return self._fire(slot, SlotEvent.EXPIRED, now)
        self._deadlines.set(slot.server_id, now + self.grace_s)
        return []

    def _expire(self, slot: _Slot, now: float) -> list[Effect]:
        self.grace_expiries += 1
        return self._vacate(slot, CloseCause.GRACE_EXPIRED, CloseCause.GRACE_EXPIRED)

    def _move(self, slot: _Slot, now: float) -> list[Effect]:
        return self._vacate(slot, CloseCause.MOVED, CloseCause.MOVED)

    def _give_up(self, slot: _Slot, now: float) -> list[Effect]:
        # To the phones it looks like a takeover.
        return self._vacate(slot, CloseCause.HELD_ELSEWHERE, CloseCause.RECLAIMED)

    def _vacate(self, slot: _Slot, of_binaries: CloseCause, of_phones: CloseCause) -> list[Effect]:
        """Remove a slot and close whoever is in it."""
        del self._slots[slot.server_id]
        binaries: list[Effect] = [_close(peer, of_binaries) for peer in slot.binaries]
        slot.binaries.clear()
        return [*binaries, *self._evict(slot, of_phones), Vacated(slot.server_id)]

    def _evict(self, slot: _Slot, cause: CloseCause) -> list[Effect]:
        effects: list[Effect] = [_close(phone.peer, cause) for phone in slot.phones.values()]
        self._phone_count -= len(effects)
        slot.phones.clear()
        return effects


_OCCUPIED: Final = (State.HELD, State.PROBED)
_TIMED: Final = (State.PROBED, State.GRACE)


def _close(peer: PeerId, cause: CloseCause) -> Close:
    code, reason = CLOSES[cause]
    return Close(peer, code, reason, cause)
