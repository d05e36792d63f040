"""What the relay keeps for each connection: `BinarySession` and `PhoneSession`.

Inner frames pass through as bytes: they are checked to be JSON and never decoded, kept, logged or altered. One slow or
hostile phone costs itself: a binary that falls behind pauses its phones, a phone that falls behind is closed.
Sizes are bytes.
"""

from __future__ import annotations

import secrets
from collections.abc import Hashable, Iterable, Sequence

from pyryrelay.guard import AddressKey
from pyryrelay.guard.rate.gcra import charge
from pyryrelay.protocol import Message, Peer, Request
from pyryrelay.pyry.envelope import (
    FrameError,
    PushWake,
    Unwrapped,
    acceptable_frames,
    close_notice,
    take_addressed,
    unwrap,
    wrapping,
)
from pyryrelay.pyry.registry import Close, Effect, Probe, Registered, Seated, Why, conn_id_for
from pyryrelay.pyry.relay import Relay

HIGH_WATER_BYTES = 1024 * 1024
"""How much of one phone may wait for a binary until it is paused; of each further one at the same time a smaller part.
It goes on once nothing of it waits any more.

Pausing and resuming costs a system call, so it must not happen with every chunk."""
LEAST_HIGH_WATER_BYTES = 64 * 1024
FULL_BYTES = 8 * HIGH_WATER_BYTES
"""How much may wait for a binary until all its phones are paused, whoever it is from. Those of which nothing waits go
on once it is no more than `HIGH_WATER_BYTES`."""


GOING_AWAY, POLICY_VIOLATION = 1001, 1008
UNKNOWN_CONN_ID = "unknown_conn_id"
_PUSH_WAKE, _LATE = "push_wake", "late"
LATE_S = 30.0
"""How long envelopes for a phone that has left are nobody's fault: the binary may not know it, and they were on their
way."""
MOST_DEPARTED = 64


class _PhoneBatch(list[bytes]):
    """Frames of one batch for one phone."""

    def __init__(self, phone: PhoneSession) -> None:
        super().__init__()
        self._phone = phone

    def empty(self) -> None:
        """Deliver what is in it."""
        if self:
            self._phone.deliver(self._taken())

    def dismiss(self, code: int) -> None:
        """Deliver what is in it, then close the phone."""
        self._phone.dismiss(self._taken(), code)

    def _taken(self) -> list[bytes]:
        frames = self[:]
        self.clear()
        return frames


class BinarySession:
    """One connection of a binary: the holder of its server-id, or a challenger for it."""

    def __init__(self, relay: Relay, peer: Peer, request: Request) -> None:
        self._relay = relay
        self.peer = peer
        self.server_id = request.header("x-pyrycode-server")
        self._version = request.header("x-pyrycode-version")
        self._client = request.client
        self._id = relay.add(self)
        self._seated = False
        self._refused = False
        self._paused: dict[int, PhoneSession] = {}  # because of what waits of them, in that order
        self._full = False  # so that all of its phones are paused
        self._leftover: dict[Hashable, AddressKey] = {}  # much waits of these phones, which have left
        self._behind: dict[int, PhoneSession] = {}  # paused until what others of their address left is gone
        # Its phones' boxes, under what their envelopes begin with. They come by `welcome` and go by `farewell`: whoever
        # is registered while there is no binary is evicted before the next one is seated.
        self._batches: dict[bytes, _PhoneBatch] = {}
        self._departed: dict[str, float] = {}  # phones that have left, and when
        self._dropped_tat = 0.0  # of the quota of dropped envelopes
        self._head_bytes = len(wrapping(conn_id_for(self.server_id, "0" * 8))[0])
        peer.on_drain = self._resume_phones
        peer.on_source_drain = self._resume_phone

    def claim(self) -> None:
        """Ask the registry for the server-id."""
        self._relay.apply(self._relay.registry.claim(self.server_id, self._id, self._relay.now()))

    def apply(self, effect: Effect) -> None:
        """Carry out one of the registry's effects on this connection."""
        relay = self._relay
        match effect:
            case Seated():
                self._seated = True
                relay.count_upgrade("server", "accept")
                relay.events.claimed(self.server_id, self._version, self._client, self._id)
            case Probe():
                self.peer.ping(self._probe_answered)
            case Close(code=code, reason=reason, why=why):
                self._refused = True
                relay.count_rejection("server", why)
                relay.events.closed_by_registry(self.server_id, code, reason, self._id)
                self.peer.close(code, reason)

    def _probe_answered(self) -> None:
        self._relay.apply(self._relay.registry.answered(self.server_id, self._id, self._relay.now()))

    def messages(self, batch: Sequence[Message]) -> None:
        """Deliver each envelope's frame to its phone, one write for each phone; drop what cannot be delivered."""
        if self._relay.registry.holder(self.server_id) != self._id:
            # A challenger has no phones: every one of the incumbent's is evicted before it is seated.
            self._drop({UNKNOWN_CONN_ID: len(batch)})
            return
        messages, filled, dropped = iter(batch), list[_PhoneBatch](), dict[str, int]()
        while (message := take_addressed(messages, self._batches, self._head_bytes, filled)) is not None:
            kind = self._read(*message, filled)
            if kind is not None:
                dropped[kind] = dropped.get(kind, 0) + 1
        for phone_batch in filled:
            phone_batch.empty()
        if dropped:
            self._drop(dropped)

    def _read(self, payload: bytes, is_binary: bool, filled: list[_PhoneBatch]) -> str | None:
        """Put an envelope's frame into the box of its phone, or do whatever else it asks for; why it is dropped."""
        envelope = unwrap(payload, utf8_checked=not is_binary)
        if not isinstance(envelope, Unwrapped):
            return _PUSH_WAKE if isinstance(envelope, PushWake) else envelope
        phone_batch = self._batches.get(wrapping(envelope.conn_id)[0])
        if phone_batch is None:
            return self._why_unknown(envelope.conn_id)
        if envelope.frame is not None:
            filled.append(phone_batch)
            phone_batch.append(envelope.frame)
        if envelope.close_code:
            phone_batch.dismiss(envelope.close_code)
        return None

    def _why_unknown(self, conn_id: str) -> str:
        left_at_s = self._departed.get(conn_id)
        return UNKNOWN_CONN_ID if left_at_s is None or self._relay.now() - left_at_s > LATE_S else _LATE

    def _drop(self, dropped: dict[str, int]) -> None:
        """Count, tell and charge the envelopes of a batch that were dropped, by kind."""
        relay = self._relay
        wakes, late = dropped.pop(_PUSH_WAKE, 0), dropped.pop(_LATE, 0)
        charged = sum(dropped.values())
        if late:
            dropped[UNKNOWN_CONN_ID] = dropped.get(UNKNOWN_CONN_ID, 0) + late
        for kind, count in dropped.items():
            relay.counters.envelopes_dropped[kind] += count
            relay.events.envelope_dropped(self.server_id, kind, count, self._id)
        if wakes:
            relay.counters.push_wakes_dropped += wakes
            relay.events.push_wake_dropped(self.server_id, wakes, self._id)
        quota = relay.dropped_envelope_quota
        if quota is not None and charged:
            self._dropped_tat, debt_s = charge(quota, self._dropped_tat, relay.now(), charged)
            if debt_s:
                self.peer.close(POLICY_VIOLATION, "too many undeliverable envelopes")

    def forward(self, phone: PhoneSession, frames: Sequence[bytes]) -> None:
        """Send frames of a phone in their envelopes, and pause it once the binary does not keep up with it."""
        self._relay.counters.phone_to_binary += len(frames)
        self.peer.send(frames, before=phone.head, after=phone.tail, source=phone.id)
        buffered_bytes = self.peer.buffered_bytes
        if not buffered_bytes:
            return
        sharing = 1 + len(self._paused) + len(self._leftover)
        high_water_bytes = max(LEAST_HIGH_WATER_BYTES, HIGH_WATER_BYTES // sharing)
        if phone.id not in self._paused and self.peer.waiting_bytes(phone.id) > high_water_bytes:
            self._paused[phone.id] = phone
            phone.peer.pause()
        if not self._full and buffered_bytes > FULL_BYTES:
            self._full = True
            for other in self._phones():
                other.peer.pause()

    def notify(self, phone: PhoneSession, code: int) -> None:
        """The connection of a phone ended by itself: say so behind all of its frames, while this is the holder."""
        if self._relay.registry.holder(self.server_id) == self._id:
            self.peer.send([close_notice(phone.conn_id, code)], source=phone.id)

    def welcome(self, phone: PhoneSession) -> None:
        """A phone has joined: where all are paused, it waits with them, and it waits for what its address left here.

        Otherwise one client could fill the binary's queue by coming again and again.
        """
        self._batches[phone.head] = _PhoneBatch(phone)
        if self._full or self.peer.buffered_bytes > FULL_BYTES:
            self._full = True
            phone.peer.pause()
        elif phone.client.key in self._leftover.values():
            self._behind[phone.id] = phone
            phone.peer.pause()

    def farewell(self, phone: PhoneSession) -> None:
        """A phone that was welcomed has left."""
        del self._batches[phone.head]
        self._paused.pop(phone.id, None)
        self._behind.pop(phone.id, None)
        if self.peer.waiting_bytes(phone.id) > LEAST_HIGH_WATER_BYTES:
            self._leftover[phone.id] = phone.client.key
        self._departed[phone.conn_id] = self._relay.now()
        if len(self._departed) > MOST_DEPARTED:
            del self._departed[next(iter(self._departed))]

    def _resume_phone(self, source: Hashable) -> None:
        """Nothing waits of this phone any more."""
        phone = self._paused.pop(source, None)  # type: ignore[call-overload]
        self._leftover.pop(source, None)
        if self._full:
            if self.peer.buffered_bytes > HIGH_WATER_BYTES:
                return
            self._full = False
            self._resume(p for p in self._phones() if p.id not in self._paused and p.id not in self._behind)
        elif phone is not None:
            phone.peer.resume()
        if self._behind and not self._full:
            left = set(self._leftover.values())
            ready = [other for other in self._behind.values() if other.client.key not in left]
            for other in ready:
                del self._behind[other.id]
            self._resume(ready)

    def _resume_phones(self) -> None:
        """Nothing waits at all."""
        self._leftover.clear()
        if not (self._paused or self._behind or self._full):
            return
        phones = self._phones() if self._full else [*self._paused.values(), *self._behind.values()]
        self._paused.clear()
        self._behind.clear()
        self._full = False
        self._resume(phones)

    def _resume(self, phones: Iterable[PhoneSession]) -> None:
        for phone in phones:
            phone.peer.resume()
            if self._full:
                # What it had held filled the binary again, and all are paused.
                break

    def _phones(self) -> list[PhoneSession]:
        """Of this binary, as long as it holds the server-id."""
        registry = self._relay.registry
        if registry.holder(self.server_id) != self._id:
            return []
        sessions = map(self._relay.session, registry.phones(self.server_id))
        return [session for session in sessions if isinstance(session, PhoneSession)]

    def closed(self, code: int, reason: str) -> None:
        """The connection is gone: the grace begins, unless another holds the server-id by now."""
        relay = self._relay
        if relay.registry.holder(self.server_id) == self._id:
            # Nobody would ever resume them otherwise; what they send next finds no binary.
            self._resume_phones()
        relay.forget(self._id)
        if self._seated:
            relay.events.released(self.server_id, code, self._id)
        elif not self._refused:
            # A challenger that leaves before the probe ends: up to then the server-id was another's.
            relay.count_rejection("server", Why.CONFLICT)
        relay.apply(relay.registry.binary_lost(self.server_id, self._id, relay.now()))


class PhoneSession:
    """One connection of a phone."""

    def __init__(self, relay: Relay, peer: Peer, request: Request) -> None:
        self._relay = relay
        self.peer = peer
        self.server_id = request.header("x-pyrycode-server")
        self.conn_id = ""
        self._registered = False
        self.head = self.tail = b""  # what goes around its frames on the way to the binary
        self._host: BinarySession | None = None  # who welcomed it
        self._dismissed = False
        self._device_name = ", ".join(request.headers.get("x-pyrycode-device-name", ()))
        self.client = request.client
        self.id = relay.add(self)

    def join(self) -> None:
        """Ask the registry to be paired."""
        registry = self._relay.registry
        conn_id = conn_id_for(self.server_id, secrets.token_hex(4))
        while registry.has_conn_id(self.server_id, conn_id):
            conn_id = conn_id_for(self.server_id, secrets.token_hex(4))
        self._relay.apply(registry.join(self.server_id, self.id, conn_id, self._relay.now(), self.client.key))

    def apply(self, effect: Effect) -> None:
        """Carry out one of the registry's effects on this connection."""
        relay = self._relay
        match effect:
            case Registered(conn_id=conn_id):
                self.conn_id = conn_id
                self._registered = True
                self.head, self.tail = wrapping(conn_id)
                relay.count_upgrade("client", "accept")
                relay.events.registered(self.server_id, conn_id, self._device_name, self.client, self.id)
                self._host = self._binary()
                if self._host is not None:
                    self._host.welcome(self)
            case Close(code=code, reason=reason, why=why):
                host = self._host
                self._depart()
                if why is Why.DISPLACED and host is not None:
                    # The holder stays, so it has to know. The phone sent no close frame.
                    host.notify(self, GOING_AWAY)
                relay.count_rejection("client", why)
                relay.events.closed_by_registry(self.server_id, code, reason, self.id)
                self.peer.close(code, reason)

    def _binary(self) -> BinarySession | None:
        holder = self._relay.registry.holder(self.server_id)
        session = None if holder is None else self._relay.session(holder)
        return session if isinstance(session, BinarySession) else None

    def messages(self, batch: Sequence[Message]) -> None:
        """Wrap the frames and hand them to the binary in one write; close this phone where that cannot be done."""
        if not self._registered:
            return
        binary = self._binary()
        if binary is None:
            self._give_up(1000, "")
            return
        frames = acceptable_frames(batch)
        if frames:
            binary.forward(self, frames)
        if len(frames) < len(batch):
            self._give_up(FrameError.close_code, "frame is no JSON")

    def _give_up(self, code: int, reason: str) -> None:
        self._leave_registry(code)
        self.peer.close(code, reason)

    def deliver(self, frames: Sequence[bytes]) -> None:
        """Send frames of the binary, verbatim."""
        if frames:
            self._relay.counters.binary_to_phone += len(frames)
            self.peer.send(frames)

    def dismiss(self, frames: Sequence[bytes], code: int) -> None:
        """Send these last frames of the binary, and close as it asks."""
        # The binary knows the end of this phone, even if delivering the frames brings it about.
        self._dismissed = True
        self.deliver(frames)
        self._leave_registry(code)
        self.peer.close(code)

    def closed(self, code: int, reason: str) -> None:
        """The connection is gone."""
        self._leave_registry(code)
        self._relay.forget(self.id)
        if self.conn_id:
            self._relay.events.unregistered(self.server_id, self.conn_id, code, self.id)

    def _leave_registry(self, code: int) -> None:
        """Leave, unless the registry has put this phone out, and have the binary told unless it wanted just that."""
        if self._registered:
            host = self._host
            self._depart()
            self._relay.registry.phone_lost(self.server_id, self.conn_id)
            if host is not None and not self._dismissed:
                host.notify(self, code)

    def _depart(self) -> None:
        self._registered = False
        host, self._host = self._host, None
        if host is not None:
            host.farewell(self)
