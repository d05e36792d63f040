"""PURE: is the peer alive, and does the message that it began arrive? One instance for one connection.

A ping goes out every ``ping_interval_s``, and the pong must follow within ``pong_timeout_s``. A message must be
complete ``message_timeout_s`` after its first byte. While we do not read from a peer its clocks stand still: neither
its pong nor the rest of its message could reach us, and whoever makes us pause gains no time by it.

The payload of a ping is its number and a keyed hash of it, so that only a peer that reads its pings can answer them:
one that does not could otherwise guess its pongs, and keep for ever what waits for it. The key is drawn once for each
connection; its pings say nothing about those of another one.

Times are seconds of a monotonic clock, `math.inf` is never.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from hashlib import blake2b

_NUMBER_BYTES = 8
_TAG_BYTES = 8
PAYLOAD_BYTES = _NUMBER_BYTES + _TAG_BYTES


class Action(Enum):
    """What a deadline that has passed asks for."""

    NOTHING = "nothing"
    PING = "ping"
    HEARTBEAT_TIMEOUT = "heartbeat timeout"
    MESSAGE_TIMEOUT = "message took too long"


class Liveness:
    """See the module's text. ``due_s`` is the earliest deadline; `check` says what to do once it has passed."""

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
        """``draw_key`` returns up to 64 random bytes, and is called at the first ping."""
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
        self._awaited: deque[tuple[int, float]] = deque()
        self._suspended_at_s: float | None = None
        self._probes: dict[int, Callable[[], None]] = {}

    @property
    def due_s(self) -> float:
        """When to call `check` next."""
        if self._suspended_at_s is not None:
            return math.inf
        return min(self._ping_due_s, self._pong_due_s, self._message_since_s + self._message_timeout_s)

    def check(self, now: float) -> Action:
        """What is due. Whoever is told of a failure closes the peer, and asks no more."""
        if self._suspended_at_s is not None:
            return Action.NOTHING
        if now >= self._pong_due_s:
            return Action.HEARTBEAT_TIMEOUT
        if now >= self._message_since_s + self._message_timeout_s:
            return Action.MESSAGE_TIMEOUT
        if now < self._ping_due_s:
            return Action.NOTHING
        self._ping_due_s = now + self._ping_interval_s
        # the ping that the caller sends next
        self._awaited.append((self._pings + 1, now + self._pong_timeout_s))
        self._pong_due_s = self._awaited[0][1]
        return Action.PING

    def ping(self, answered: Callable[[], None] | None = None) -> bytes:
        """The payload of the next ping. ``answered`` is called by `pong` when it is proven to have arrived."""
        self._pings += 1
        if answered is not None:
            self._probes[self._pings] = answered
        if not self._key:
            self._key = self._draw_key()
        return self._payload(self._pings.to_bytes(_NUMBER_BYTES, "big"))

    def _payload(self, number: bytes) -> bytes:
        return number + blake2b(number, digest_size=_TAG_BYTES, key=self._key).digest()

    def pong(self, payload: bytes) -> None:
        """A pong proves every ping up to the one that it answers (RFC 6455 section 5.5.3)."""
        number = int.from_bytes(payload[:_NUMBER_BYTES], "big")
        if not 0 < number <= self._pings or payload != self._payload(payload[:_NUMBER_BYTES]):
            return
        while self._awaited and self._awaited[0][0] <= number:
            self._awaited.popleft()
        self._pong_due_s = self._awaited[0][1] if self._awaited else math.inf
        for answered in [self._probes.pop(probe) for probe in list(self._probes) if probe <= number]:
            answered()

    def pongs(self, payloads: Iterable[bytes]) -> None:
        """Pongs in the order of their arrival; those that answer nothing are ignored."""
        for payload in payloads:
            if len(payload) == PAYLOAD_BYTES:
                self.pong(payload)

    def heard(self) -> None:
        """Bytes arrived: whoever was probed is alive, though its pong may wait behind much else on a slow link."""
        if self._probes:
            probes, self._probes = self._probes, {}
            for answered in probes.values():
                answered()

    def forget_probes(self) -> None:
        """The connection is lost: nobody is told any more."""
        self._probes.clear()

    def received(self, messages: int, incomplete: bool, now: float) -> bool:
        """A chunk was parsed: ``messages`` so far, and whether another has begun. True if a new one has begun."""
        if not incomplete:
            self._message_since_s = math.inf
        elif self._message_since_s == math.inf or messages != self._messages:
            self._messages = messages
            self._message_since_s = now
            return True
        return False

    def suspend(self, now: float) -> None:
        """We stop reading from the peer."""
        self._suspended_at_s = now

    def resume(self, now: float) -> None:
        """We read again, and every clock goes on where it stood."""
        if self._suspended_at_s is None:
            return
        stood_s = now - self._suspended_at_s
        self._suspended_at_s = None
        self._ping_due_s += stood_s
        self._pong_due_s += stood_s
        self._message_since_s += stood_s
        self._awaited = deque((number, due_s + stood_s) for number, due_s in self._awaited)
