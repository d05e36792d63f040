"""The session of each connection: `BinarySession` and `PhoneSession`.

Inner frames pass through as bytes: they are checked to be JSON, and never decoded, kept, logged or altered. A slow or
hostile phone affects only itself: if a binary falls behind, its phones are paused; if a phone does, it is closed.
Sizes are bytes.
"""

from __future__ import annotations

import secrets
from collections.abc import Hashable, Iterable, Sequence

from pyryrelay.close_codes import CloseCode
from pyryrelay.guard import AddressKey
from pyryrelay.guard.rate.gcra import charge
from pyryrelay.protocol import Message, Peer, Request
from pyryrelay.pyry.envelope import (
    FrameError,
    PushWake,
    Unwrapped,
    acceptable_frames,
    close_notice,
    push_feedback,
    take_addressed,
    unwrap,
    wrapping,
)
from pyryrelay.pyry.registry import Claimed, Close, CloseCause, Effect, Probe, Registered, conn_id_for
from pyryrelay.pyry.relay import Relay

HIGH_WATER_BYTES = 1024 * 1024
"""How large one phone's backlog at a binary may grow before the phone is paused. The phones that are paused at the same
time share it, down to `MIN_HIGH_WATER_BYTES` each. A phone is resumed once its backlog is empty.

Pausing and resuming costs a system call, so it must not happen with every chunk."""
MIN_HIGH_WATER_BYTES = 64 * 1024
FULL_BYTES = 8 * HIGH_WATER_BYTES
"""How large the whole backlog of a binary may grow before all of its phones are paused. When it has shrunk to
`HIGH_WATER_BYTES`, those phones are resumed that have no backlog."""

UNKNOWN_CONN_ID = "unknown_conn_id"
_PUSH_WAKE, _LATE = "push_wake", "late"
LATE_S = 30.0
"""How long envelopes for a phone that has left are not charged: the binary may have sent them before it knew."""
MAX_DEPARTED = 64
"""How many phones that have left are remembered for each binary."""


class _PhoneBatch(list[bytes]):
    """The frames for one phone in a batch of its binary."""

    def __init__(self, phone: PhoneSession) -> None:
        super().__init__()
        self._phone = phone

    def flush(self) -> None:
        """Deliver the frames."""
        if self:
            self._phone.deliver(self._take())

    def flush_and_close(self, code: int) -> None:
        """Deliver the frames, then close the phone."""
        self._phone.deliver_and_close(self._take(), code)

    def _take(self) -> list[bytes]:
        frames = self[:]
        self.clear()
        return frames


class BinarySession:
    """The session of a binary, which is the holder of its server-id or a challenger for it."""

    def __init__(self, relay: Relay, peer: Peer, request: Request) -> None:
        self._relay = relay
        self.peer = peer
        self.server_id = request.header("x-pyrycode-server")
        self._version = request.header("x-pyrycode-version")
        self._client = request.client
        self.id = relay.add(self)
        self._has_claimed = False
        self._was_refused = False
        # Phones that are paused for their own backlog, in the order in which they were paused.
        self._paused: dict[int, PhoneSession] = {}
        # Phones that left a large backlog behind, with their addresses, and later phones of such an address.
        self._abandoned: dict[Hashable, AddressKey] = {}
        self._held_back: dict[int, PhoneSession] = {}
        self._is_full = False  # all phones are paused
        # The batch of each phone, by what precedes its frames in their envelopes. Phones are added by `phone_joined`
        # and removed by `phone_left`. Those that register in a grace are evicted before a binary becomes the holder.
        self._batches: dict[bytes, _PhoneBatch] = {}
        self._departed: dict[str, float] = {}  # conn_ids of phones that have left, and when
        self._dropped_tat = 0.0  # for the quota of dropped envelopes
        self._head_bytes = len(wrapping(conn_id_for(self.server_id, "0" * 8))[0])
        peer.on_drain = self._resume_phones
        peer.on_source_drain = self._resume_phone

    def claim(self) -> None:
        """Ask the registry for the server-id."""
        self._relay.apply(self._relay.registry.claim(self.server_id, self.id, self._relay.now()))

    def apply(self, effect: Effect) -> None:
        """Carry out one of the registry's effects on this connection."""
        relay = self._relay
        match effect:
            case Claimed():
                self._has_claimed = True
                relay.count_upgrade("server", "accept")
                relay.events.claimed(self.server_id, self._version, self._client, self.id)
            case Probe():
                self.peer.ping(self._probe_answered)
            case Close(code=code, reason=reason, cause=cause):
                self._was_refused = True
                relay.count_rejection("server", cause)
                relay.events.closed_by_registry(self.server_id, code, reason, self.id)
                self.peer.close(code, reason)

    def _probe_answered(self) -> None:
        self._relay.apply(self._relay.registry.answered(self.server_id, self.id, self._relay.now()))

    def messages(self, batch: Sequence[Message]) -> None:
        """Deliver the frame of each envelope, with one write for each phone; drop what cannot be delivered."""
        if self._relay.registry.holder(self.server_id) != self.id:
            # A challenger has no phones: those of the incumbent are evicted before it becomes the holder.
            self._drop({UNKNOWN_CONN_ID: len(batch)})
            return
        messages, filled, dropped = iter(batch), list[_PhoneBatch](), dict[str, int]()
        while (message := take_addressed(messages, self._batches, self._head_bytes, filled)) is not None:
            kind = self._read(*message, filled)
            if kind is not None:
                dropped[kind] = dropped.get(kind, 0) + 1
        for phone_batch in filled:
            phone_batch.flush()
        if dropped:
            self._drop(dropped)

    def _read(self, payload: bytes, is_binary: bool, filled: list[_PhoneBatch]) -> str | None:
        """Add the frame of an envelope to the batch of its phone, and close the phone if asked to.

        Returns the kind under which the envelope is dropped, None if it is not.
        """
        envelope = unwrap(payload, utf8_checked=not is_binary)
        if not isinstance(envelope, Unwrapped):
            return self._wake(envelope) if isinstance(envelope, PushWake) else envelope
        phone_batch = self._batches.get(wrapping(envelope.conn_id)[0])
        if phone_batch is None:
            return self._unknown_kind(envelope.conn_id)
        if envelope.frame is not None:
            filled.append(phone_batch)
            phone_batch.append(envelope.frame)
        if envelope.close_code:
            phone_batch.flush_and_close(envelope.close_code)
        return None

    def _wake(self, wake: PushWake) -> str | None:
        """Have a phone woken; returns the kind under which the wake is dropped if the relay sends none."""
        relay = self._relay
        if relay.wakes is None:
            return _PUSH_WAKE
        relay.wakes.wake(self.server_id, wake, self.id, lambda: self._report_dead_token(wake))
        return None

    def _report_dead_token(self, wake: PushWake) -> None:
        """Tell this binary that a token which it gave is dead, if it still holds the server-id."""
        if self._relay.registry.holder(self.server_id) == self.id:
            self.peer.send([push_feedback(wake)])

    def _unknown_kind(self, conn_id: str) -> str:
        left_at_s = self._departed.get(conn_id)
        return UNKNOWN_CONN_ID if left_at_s is None or self._relay.now() - left_at_s > LATE_S else _LATE

    def _drop(self, dropped: dict[str, int]) -> None:
        """Count, log and charge the dropped envelopes of a batch, given by kind."""
        relay = self._relay
        wakes, late = dropped.pop(_PUSH_WAKE, 0), dropped.pop(_LATE, 0)
        charged = sum(dropped.values())
        if late:
            dropped[UNKNOWN_CONN_ID] = dropped.get(UNKNOWN_CONN_ID, 0) + late
        for kind, count in dropped.items():
            relay.counters.envelopes_dropped[kind] += count
            relay.events.envelope_dropped(self.server_id, kind, count, self.id)
        if wakes:
            relay.counters.push_wakes["dropped"] += wakes
            relay.events.push_wake_dropped(self.server_id, wakes, self.id)
        quota = relay.dropped_envelope_quota
        if quota is not None and charged:
            self._dropped_tat, debt_s = charge(quota, self._dropped_tat, relay.now(), charged)
            if debt_s:
                self.peer.close(CloseCode.POLICY_VIOLATION, "too many undeliverable envelopes")

    def forward(self, phone: PhoneSession, frames: Sequence[bytes]) -> None:
        """Send frames of a phone in their envelopes, and pause phones if the binary does not keep up."""
        self._relay.counters.phone_to_binary += len(frames)
        self.peer.send(frames, before=phone.head, after=phone.tail, source=phone.id)
        buffered_bytes = self.peer.buffered_bytes
        if not buffered_bytes:
            return
        sharing = 1 + len(self._paused) + len(self._abandoned)
        high_water_bytes = max(MIN_HIGH_WATER_BYTES, HIGH_WATER_BYTES // sharing)
        if phone.id not in self._paused and self.peer.waiting_bytes(phone.id) > high_water_bytes:
            self._paused[phone.id] = phone
            phone.peer.pause()
        if not self._is_full and buffered_bytes > FULL_BYTES:
            self._is_full = True
            for other in self._phones():
                other.peer.pause()

    def send_close_notice(self, phone: PhoneSession, code: int) -> None:
        """Tell the binary, after all frames of a phone, that its connection has ended. Only the holder is told."""
        if self._relay.registry.holder(self.server_id) == self.id:
            self.peer.send([close_notice(phone.conn_id, code)], source=phone.id)

    def phone_joined(self, phone: PhoneSession) -> None:
        """Add a phone. It is paused if all phones are, or while backlog that its address abandoned is still waiting.

        Otherwise one client could fill the binary's queue by reconnecting again and again.
        """
        self._batches[phone.head] = _PhoneBatch(phone)
        if self._is_full or self.peer.buffered_bytes > FULL_BYTES:
            self._is_full = True
            phone.peer.pause()
        elif phone.client.key in self._abandoned.values():
            self._held_back[phone.id] = phone
            phone.peer.pause()

    def phone_left(self, phone: PhoneSession) -> None:
        """Remove a phone that `phone_joined` has added."""
        del self._batches[phone.head]
        self._paused.pop(phone.id, None)
        self._held_back.pop(phone.id, None)
        if self.peer.waiting_bytes(phone.id) > MIN_HIGH_WATER_BYTES:
            self._abandoned[phone.id] = phone.client.key
        self._departed[phone.conn_id] = self._relay.now()
        if len(self._departed) > MAX_DEPARTED:
            del self._departed[next(iter(self._departed))]

    def _resume_phone(self, source: Hashable) -> None:
        """Resume the phone whose backlog is empty now, and others that were waiting for it."""
        phone = self._paused.pop(source, None)  # type: ignore[call-overload]
        self._abandoned.pop(source, None)
        if self._is_full:
            if self.peer.buffered_bytes > HIGH_WATER_BYTES:
                return
            self._is_full = False
            self._resume(p for p in self._phones() if p.id not in self._paused and p.id not in self._held_back)
        elif phone is not None:
            phone.peer.resume()
        if self._held_back and not self._is_full:
            left = set(self._abandoned.values())
            ready = [other for other in self._held_back.values() if other.client.key not in left]
            for other in ready:
                del self._held_back[other.id]
            self._resume(ready)

    def _resume_phones(self) -> None:
        """Resume all phones: the whole backlog is empty."""
        self._abandoned.clear()
        if not (self._paused or self._held_back or self._is_full):
            return
        phones = self._phones() if self._is_full else [*self._paused.values(), *self._held_back.values()]
        self._paused.clear()
        self._held_back.clear()
        self._is_full = False
        self._resume(phones)

    def _resume(self, phones: Iterable[PhoneSession]) -> None:
        for phone in phones:
            phone.peer.resume()
            if self._is_full:
                # What this phone had held back filled the backlog again, and all phones are paused.
                break

    def _phones(self) -> list[PhoneSession]:
        """Return the phones of this binary; none unless it holds the server-id."""
        registry = self._relay.registry
        if registry.holder(self.server_id) != self.id:
            return []
        sessions = map(self._relay.session, registry.phones(self.server_id))
        return [session for session in sessions if isinstance(session, PhoneSession)]

    def closed(self, code: int, reason: str) -> None:
        """Report the loss of the connection, which starts the grace if this binary is the holder."""
        relay = self._relay
        if relay.registry.holder(self.server_id) == self.id:
            # They would stay paused forever otherwise. What they send next finds no binary.
            self._resume_phones()
        relay.forget(self.id)
        if self._has_claimed:
            relay.events.released(self.server_id, code, self.id)
        elif not self._was_refused:
            # A challenger that leaves before the probe ends: the server-id was still held by another binary.
            relay.count_rejection("server", CloseCause.CONFLICT)
        relay.apply(relay.registry.binary_lost(self.server_id, self.id, relay.now()))


class PhoneSession:
    """The session of a phone."""

    def __init__(self, relay: Relay, peer: Peer, request: Request) -> None:
        self._relay = relay
        self.peer = peer
        self.server_id = request.header("x-pyrycode-server")
        self.conn_id = ""
        self._registered = False
        self.head = self.tail = b""  # precede and follow its frames in their envelopes
        self._binary: BinarySession | None = None  # the one whose `phone_joined` was called
        self._closed_by_binary = False
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
                self._binary = self._holder()
                if self._binary is not None:
                    self._binary.phone_joined(self)
            case Close(code=code, reason=reason, cause=cause):
                binary = self._binary
                self._unregister()
                if cause is CloseCause.DISPLACED and binary is not None:
                    # The binary keeps the server-id, so it needs to know. The phone sent no close frame.
                    binary.send_close_notice(self, CloseCode.GOING_AWAY)
                relay.count_rejection("client", cause)
                relay.events.closed_by_registry(self.server_id, code, reason, self.id)
                self.peer.close(code, reason)

    def _holder(self) -> BinarySession | None:
        holder = self._relay.registry.holder(self.server_id)
        session = None if holder is None else self._relay.session(holder)
        return session if isinstance(session, BinarySession) else None

    def messages(self, batch: Sequence[Message]) -> None:
        """Send the frames to the binary in one write; close this phone if there is no binary or a frame is not JSON."""
        if not self._registered:
            return
        binary = self._holder()
        if binary is None:
            self._close(CloseCode.NORMAL, "")
            return
        frames = acceptable_frames(batch)
        if frames:
            binary.forward(self, frames)
        if len(frames) < len(batch):
            self._close(FrameError.close_code, "frame is no JSON")

    def _close(self, code: int, reason: str) -> None:
        self._leave_registry(code)
        self.peer.close(code, reason)

    def deliver(self, frames: Sequence[bytes]) -> None:
        """Send frames of the binary unchanged."""
        if frames:
            self._relay.counters.binary_to_phone += len(frames)
            self.peer.send(frames)

    def deliver_and_close(self, frames: Sequence[bytes], code: int) -> None:
        """Send the last frames of the binary, and close the connection as the binary asks."""
        # The binary needs no close notice, even if delivering the frames ends the connection.
        self._closed_by_binary = True
        self.deliver(frames)
        self._leave_registry(code)
        self.peer.close(code)

    def closed(self, code: int, reason: str) -> None:
        """Report the loss of the connection."""
        self._leave_registry(code)
        self._relay.forget(self.id)
        if self.conn_id:
            self._relay.events.unregistered(self.server_id, self.conn_id, code, self.id)

    def _leave_registry(self, code: int) -> None:
        """Leave the registry unless it closed this phone, and notify the binary unless it asked for the close."""
        if self._registered:
            binary = self._binary
            self._unregister()
            self._relay.registry.phone_lost(self.server_id, self.conn_id)
            if binary is not None and not self._closed_by_binary:
                binary.send_close_notice(self, code)

    def _unregister(self) -> None:
        self._registered = False
        binary, self._binary = self._binary, None
        if binary is not None:
            binary.phone_left(self)
