"""Who is in the cluster: how many members there are, and whether they have the same secret."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from twisted.internet.defer import Deferred, inlineCallbacks

from pyryrelay.cluster.keys import Keys
from pyryrelay.cluster.limits.scripts import MEET
from pyryrelay.cluster.redis.interface import Argument, Redis

__all__ = ["LIVES_S", "Members"]

LIVES_S: Final = 10.0
"""How long the word of a member holds that is not repeated, in seconds."""


class Members:
    """Counts members as the member ``me``. Call `meet` about once a second."""

    def __init__(self, redis: Redis, keys: Keys, me: bytes) -> None:
        self.count = 1
        self.is_secret_shared = True
        """Whether all members of this name have the same secret, as far as is known."""
        self._redis = redis
        self._names = [keys.key(0, "members"), keys.key(0, "mark")]
        # Not a hash of the secret itself: this one is of no other use.
        self._arguments: list[Argument] = [me, int(LIVES_S * 1000), keys.hashed(b"mark", b"")]

    @inlineCallbacks
    def meet(self) -> Generator[Deferred[Any], Any, None]:
        """Say that this member is here, and count. Fails with a `RedisError`."""
        count, is_shared = yield self._redis.call(MEET, self._names, self._arguments)
        self.count = max(1, int(count))
        self.is_secret_shared = bool(is_shared)
