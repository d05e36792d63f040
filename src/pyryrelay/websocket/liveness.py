"""PURE: whether a peer is alive, and completes the message that it has begun. Each connection has an instance.

A ping is due every ``ping_interval_s``, and its pong must arrive within ``pong_timeout_s``. A message must be complete
``message_timeout_s`` after its first byte. While nothing is read from a peer, these clocks stand still: neither its
pong nor the rest of its message could arrive. Making the relay pause gains a peer no time.

The payload of a ping is its number and a keyed hash of the number, so that only peers that read their pings can answer
them. Otherwise a peer that reads nothing could guess its pongs, and would keep its outbox filled for ever. Each
connection draws a key of its own, so its pings say nothing about those of another one.

Times are seconds of a monotonic clock; `math.inf` means never.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from enum import Enum
from hashlib import blake2b

_NUMBER_BYTES = 8
_TAG_BYTES = 8
PAYLOAD_BYTES = _NUMBER_BYTES + _TAG_BYTES


class Action(Enum):
    """What to do because a deadline has passed."""

    NOTHING = "nothing"
    PING = "ping"
    HEARTBEAT_TIMEOUT = "heartbeat timeout"
    MESSAGE_TIMEOUT = "message took too long"


class Liveness:
    """See the module's text. Call `check` when ``due_s`` has passed."""

    __slots__ = (
        "_awaited",
        "_draw_key",
        "_key",
        "_message_since_s",
        "_message_timeout_s",
        "_messages",
        "_ping_due_s",
        "_ping_interval_s",
        "_pings",
        "_pong_due_s",
        "_pong_timeout_s",
        "_probes",
        "_suspended_at_s",
    )

    def __init__(
        self,
        ping_interval_s: float,
        pong_timeout_s: float,
        message_timeout_s: float,
        now: float,
        draw_key: Callable[[], bytes],
    ) -> None:
        """Start the clocks. ``draw_key`` returns up to 64 random bytes, and is called at the first ping."""
        self._draw_key = draw_key
        self._key = b""
        self._ping_interval_s = ping_interval_s
        self._pong_timeout_s = pong_timeout_s
        self._message_timeout_s = message_timeout_s
        self._ping_due_s = now + ping_interval_s
        self._pong_due_s = math.inf
        self._message_since_s = math.inf
        self._messages = 0
        self._pings = 0
        # One or two at most, since pings are as far apart as pongs may take. An empty deque is 760 bytes.
        self._awaited: list[tuple[int, float]] = []
        self._suspended_at_s: float | None = None
        self._probes: dict[int, Callable[[], None]] = {}

    @property
    def due_s(self) -> float:
        """When to call `check` next: the earliest deadline."""
        if self._suspended_at_s is not None:
            return math.inf
        return min(self._ping_due_s, self._pong_due_s, self._message_since_s + self._message_timeout_s)

    def check(self, now: float) -> Action:
        """Return what is due. After a failure the caller closes the peer, and does not call this again."""
        if self._suspended_at_s is not None:
            return Action.NOTHING
        if now >= self._pong_due_s:
            return Action.HEARTBEAT_TIMEOUT
        if now >= self._message_since_s + self._message_timeout_s:
            return Action.MESSAGE_TIMEOUT
        if now < self._ping_due_s:
            return Action.NOTHING
        self._ping_due_s = now + self._ping_interval_s
        # This is the ping that the caller sends next.
        self._awaited.append((self._pings + 1, now + self._pong_timeout_s))
        self._pong_due_s = self._awaited[0][1]
        return Action.PING

    def ping(self, answered: Callable[[], None] | None = None) -> bytes:
        """Return the payload of the next ping. `pong` calls ``answered`` when the ping is proven to have arrived."""
        self._pings += 1
        if answered is not None:
            self._probes[self._pings] = answered
        if not self._key:
            self._key = self._draw_key()
        return self._payload(self._pings.to_bytes(_NUMBER_BYTES, "big"))

    def _payload(self, number: bytes) -> bytes:
        return number + blake2b(number, digest_size=_TAG_BYTES, key=self._key).digest()

    def pong(self, payload: bytes) -> None:
        """Process a pong: it proves every ping up to the one that it answers (RFC 6455 section 5.5.3)."""
        number = int.from_bytes(payload[:_NUMBER_BYTES], "big")
        if not 0 < number <= self._pings or payload != self._payload(payload[:_NUMBER_BYTES]):
            return
        while self._awaited and self._awaited[0][0] <= number:
            self._awaited.pop(0)
        self._pong_due_s = self._awaited[0][1] if self._awaited else math.inf
        for answered in [self._probes.pop(probe) for probe in list(self._probes) if probe <= number]:
            answered()

    def pongs(self, payloads: Iterable[bytes]) -> None:
        """Process pongs in the order of their arrival. Those that answer no ping are ignored."""
        for payload in payloads:
            if len(payload) == PAYLOAD_BYTES:
                self.pong(payload)

    def heard(self) -> None:
        """Answer all probes, because bytes have arrived: on a slow link the pong may be behind much else."""
        if self._probes:
            probes, self._probes = self._probes, {}
            for answered in probes.values():
                answered()

    def forget_probes(self) -> None:
        """Call no ``answered`` any more, because the connection is lost."""
        self._probes.clear()

    def received(self, messages: int, incomplete: bool, now: float) -> bool:
        """Record the number of messages so far, and whether another is incomplete. Returns True if that one is new."""
        if not incomplete:
            self._message_since_s = math.inf
        elif self._message_since_s == math.inf or messages != self._messages:
            self._messages = messages
            self._message_since_s = now
            return True
        return False

    def suspend(self, now: float) -> None:
        """Stop the clocks, because nothing is read from the peer any more."""
        self._suspended_at_s = now

    def resume(self, now: float) -> None:
        """Let the clocks continue from where they stand, because the peer is read from again."""
        if self._suspended_at_s is None:
            return
        stood_s = now - self._suspended_at_s
        self._suspended_at_s = None
        self._ping_due_s += stood_s
        self._pong_due_s += stood_s
        self._message_since_s += stood_s
        self._awaited = [(number, due_s + stood_s) for number, due_s in self._awaited]
