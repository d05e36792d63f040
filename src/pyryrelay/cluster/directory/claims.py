"""What an instance has claimed, per key: epochs, claims that wait, and what is to be released. PURE.

A claim may be granted after its client has left, and two clients may claim one key at the same time. So claims are
counted per key, and a key is released only if nobody waits for it any more and nobody here holds it.

Units: seconds of the caller's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final

__all__ = ["LOST_S", "MAX_RELEASES", "SEAT_S", "Claims"]

SEAT_S: Final = 1.0
"""How long after a grant its client may take to hold the key. It does so in the same turn unless it has left."""
MAX_RELEASES: Final = 10_000
"""How many releases are kept for a directory that is away. Without its release, an entry lasts until it expires."""
LOST_S: Final = 60.0
"""What was released so long ago is not released again if the directory may have lost its last writes."""


class Claims:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._waiting: dict[str, int] = {}
        self._epochs: dict[str, int] = {}
        self._granted: dict[str, float] = {}
        self._releases: dict[str, int] = {}
        self._lately: dict[str, float] = {}
        """When keys were released, in that order."""

    def __len__(self) -> int:
        """Return the number of keys that the directory has confirmed."""
        return len(self._epochs)

    def begin(self, key: str) -> None:
        """Count a client that waits for a key."""
        self._waiting[key] = self._waiting.get(key, 0) + 1
        # It must not be released any more: the entry that a waiting release names may become that of the client.
        self._releases.pop(key, None)
        self._lately.pop(key, None)

    def end(self, key: str) -> None:
        """Count a client less, whatever became of it."""
        left = self._waiting[key] - 1
        if left:
            self._waiting[key] = left
        else:
            del self._waiting[key]

    def granted(self, key: str, epoch: int, now: float) -> None:
        """Note that the directory has granted a key, whether or not its client is still there."""
        self._epochs[key] = epoch
        self._granted[key] = now

    def doubtful(self, key: str, now: float) -> None:
        """Note that a claim may have been granted: its answer was lost. Its client is told that it was not."""
        self._granted.setdefault(key, now)

    def confirmed(self, key: str, epoch: int) -> None:
        """Note the epoch of a key that is held here."""
        self._epochs[key] = epoch

    def epoch(self, key: str) -> int:
        """Return the epoch of a key; 0 if the directory has not confirmed it."""
        return self._epochs.get(key, 0)

    def lost(self, key: str) -> None:
        """Forget a key that another instance holds."""
        self._epochs.pop(key, None)
        self._granted.pop(key, None)
        self._releases.pop(key, None)

    def vacated(self, key: str) -> int | None:
        """Return the epoch to release, because nobody here holds the key any more; None if somebody waits for it."""
        if key in self._waiting:
            # The claim may already be granted. If its client has left, `unused` finds it.
            self._granted.setdefault(key, 0.0)
            return None
        self._granted.pop(key, None)
        return self._epochs.pop(key, 0)

    def unused(self, holds: Callable[[str], bool], now: float) -> list[tuple[str, int]]:
        """Return the keys that were granted to clients that did not take them, with their epochs, to be released."""
        found = []
        for key, granted_at in list(self._granted.items()):
            if now - granted_at < SEAT_S or key in self._waiting:
                continue
            del self._granted[key]
            if not holds(key):
                found.append((key, self._epochs.pop(key, 0)))
        return found

    def keep_release(self, key: str, epoch: int) -> None:
        """Keep a release that could not be sent."""
        if len(self._releases) < MAX_RELEASES and key not in self._waiting and key not in self._epochs:
            self._releases[key] = epoch

    def take_releases(self, most: int, holds: Callable[[str], bool]) -> list[tuple[str, int]]:
        """Take up to ``most`` releases that were kept, leaving out keys that are held again."""
        taken = []
        for key in list(self._releases)[:most]:
            epoch = self._releases.pop(key)
            if not holds(key):
                taken.append((key, epoch))
        return taken

    def released(self, key: str, now: float) -> None:
        """Note a release that has been executed. A server that takes over may not know of it."""
        self._lately.pop(key, None)
        for first in list(islice(self._lately, 2)):
            if len(self._lately) >= MAX_RELEASES or now - self._lately[first] > LOST_S:
                del self._lately[first]
        self._lately[key] = now

    def repeat_releases(self, now: float) -> None:
        """Keep the releases of the last `LOST_S` to be sent again, whatever the epochs of their entries are now."""
        lately, self._lately = self._lately, {}
        for key, at in lately.items():
            if now - at <= LOST_S:
                self.keep_release(key, 0)
