"""How many wakes may be sent: for each server-id, for each token, and at the same time. PURE.

FCM answers 429 if one phone gets too many messages, which costs all phones a pause. So no token may get that many,
whatever number of server-ids ask for it. Tokens are not kept: buckets have a keyed hash of them.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

import hashlib
import secrets
from enum import StrEnum
from math import inf
from typing import Final

from pyryrelay.guard import Buckets, HashLadder, Quota, Tracking

WAKE_QUOTA: Final = Quota.parse("6/minute burst 6")
"""Wakes of one server-id: one in 10 s, six at once (specification, "Push wakes")."""
TOKEN_QUOTA: Final = Quota.parse("60/minute burst 60")
"""Wakes of one token, from all server-ids. FCM allows 240 a minute and 5000 an hour for one phone."""
MAX_IN_FLIGHT: Final = 32
MAX_TRACKED: Final = 10_000
MAX_TOKEN_CHARS: Final = 4096
PLATFORM: Final = "fcm"

# No server-id contains a space.
_LADDER: Final = HashLadder([f" {number}" for number in range(64)])


class Drop(StrEnum):
    """Why a wake is dropped before it is sent."""

    PLATFORM = "platform"
    """It is for another platform."""
    TOKEN = "token"
    """Its token is empty, or too long."""
    QUOTA = "quota"
    """The server-id has used up its quota."""
    TOKEN_QUOTA = "token_quota"
    """The token has used up its quota."""
    IN_FLIGHT = "in_flight"
    """Too many wakes are being sent."""
    PAUSED = "paused"
    """The push service asked for a pause."""
    STOPPING = "stopping"
    """The relay stops."""


class WakeLimits:
    """Decides which wakes are sent. `begun` is the number of those that are being sent."""

    def __init__(self, max_tracked: int = MAX_TRACKED) -> None:
        self.begun = 0
        tracking = Tracking(max_tracked, _LADDER)
        self._buckets: Buckets[str] = Buckets(WAKE_QUOTA, tracking)
        self._token_buckets: Buckets[str] = Buckets(TOKEN_QUOTA, tracking)
        self._secret = secrets.token_bytes(16)
        self._paused_until = -inf

    def begin(self, server_id: str, platform: str, token: str, now: float) -> Drop | None:
        """Begin a wake, which `end` must end; or return why it is dropped.

        Only a wake that nothing but a quota prevents is charged.
        """
        if platform != PLATFORM:
            return Drop.PLATFORM
        if not 0 < len(token) <= MAX_TOKEN_CHARS:
            return Drop.TOKEN
        if now < self._paused_until:
            return Drop.PAUSED
        if self.begun >= MAX_IN_FLIGHT:
            return Drop.IN_FLIGHT
        self._buckets.sweep(now)
        self._token_buckets.sweep(now)
        if not self._buckets.spend(server_id, now).allowed:
            return Drop.QUOTA
        if not self._token_buckets.spend(self._hash(token), now).allowed:
            return Drop.TOKEN_QUOTA
        self.begun += 1
        return None

    def _hash(self, token: str) -> str:
        return hashlib.blake2b(token.encode(), digest_size=16, key=self._secret).hexdigest()

    def end(self) -> None:
        """End a wake that has begun."""
        self.begun -= 1

    def pause(self, seconds: float, now: float) -> None:
        """Drop all wakes for so long."""
        self._paused_until = max(self._paused_until, now + seconds)
