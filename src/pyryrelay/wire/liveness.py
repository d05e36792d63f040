"""PURE: is the peer alive, and does the message that it began arrive? One instance for one connection.

A ping goes out every ``ping_interval_s``, and the pong must follow within ``pong_timeout_s``. A message must be
complete ``message_timeout_s`` after its first byte. A peer that we do not read from is not judged at all: neither its
pong nor the rest of its message could reach us.

Times are seconds of a monotonic clock, `math.inf` is never.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from enum import Enum

_NUMBER_BYTES = 8


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
        "_message_since_s",
        "_message_timeout_s",
        "_messages",
        "_ping_due_s",
        "_ping_interval_s",
        "_pings",
        "_pong_due_s",
        "_pong_timeout_s",
        "_probes",
        "_suspended",
    )

    def __init__(self, ping_interval_s: float, pong_timeout_s: float, message_timeout_s: float, now: float) -> None:
        self._ping_interval_s = ping_interval_s
        self._pong_timeout_s = pong_timeout_s
        self._message_timeout_s = message_timeout_s
        self._ping_due_s = now + ping_interval_s
        self._pong_due_s = math.inf
        self._message_since_s = math.inf
        self._messages = 0
        self._pings = 0
        self._awaited: deque[tuple[int, float]] = deque()
        self._suspended = False
        self._probes: dict[int, Callable[[], None]] = {}

    @property
    def due_s(self) -> float:
        """When to call `check` next."""
        return min(self._ping_due_s, self._pong_due_s, self._message_since_s + self._message_timeout_s)

    def check(self, now: float) -> Action:
        """What is due; a peer that failed is only told about once."""
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
        return self._pings.to_bytes(_NUMBER_BYTES, "big")

    def pong(self, payload: bytes) -> None:
        """A pong proves every ping up to the one that it answers (RFC 6455 section 5.5.3)."""
        number = int.from_bytes(payload, "big") if len(payload) == _NUMBER_BYTES else 0
        if not 0 < number <= self._pings:
            return
        while self._awaited and self._awaited[0][0] <= number:
            self._awaited.popleft()
        self._pong_due_s = self._awaited[0][1] if self._awaited else math.inf
        for answered in [self._probes.pop(probe) for probe in list(self._probes) if probe <= number]:
            answered()

    def heard(self) -> None:
        """Bytes arrived: whoever was probed is alive, though its pong may wait behind much else on a slow link."""
        if self._probes:
            probes, self._probes = self._probes, {}
            for answered in probes.values():
                answered()

    def received(self, messages: int, incomplete: bool, now: float) -> bool:
        """A chunk was parsed: ``messages`` so far, and whether another has begun. True if a new one has begun."""
        if self._suspended or not incomplete:
            self._message_since_s = math.inf
        elif self._message_since_s == math.inf or messages != self._messages:
            self._messages = messages
            self._message_since_s = now
            return True
        return False

    def suspend(self) -> None:
        """We stop reading from the peer."""
        self._suspended = True
        self._awaited.clear()
        self._ping_due_s = self._pong_due_s = self._message_since_s = math.inf

    def resume(self, now: float) -> None:
        """We read again: a full interval until the next ping."""
        self._suspended = False
        self._ping_due_s = now + self._ping_interval_s
