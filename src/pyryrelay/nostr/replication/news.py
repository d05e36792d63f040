"""The fast lane: what clients publish while many events wait is announced at once, and not behind them.

What is announced here is left out when its turn comes, see `Progress.announced_ahead`. This is kept in memory, so it is
bounded: what is too much waits in the store with the rest, and so does everything after a crash. What a server has not
taken is tried again with `send`. Sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pyryrelay.broadcast import MAX_BODY_BYTES, Broadcast, BroadcastError
from pyryrelay.nostr.replication.entries import body_of, key_of
from pyryrelay.nostr.replication.progress import Progress
from pyryrelay.nostr.replication.totals import Totals

__all__ = ["MAX_NEWS", "MAX_NEWS_BYTES", "News"]

MAX_NEWS: Final = 1_000
MAX_NEWS_BYTES: Final = 4 * 1_048_576
"""How much may be on its way to a server, or be kept until there is one again."""


class News:
    """Events by their numbers: those that are on their way to a server, and those that wait until there is one."""

    def __init__(self, broadcast: Broadcast, progress: Progress, totals: Totals) -> None:
        self._broadcast = broadcast
        self._progress = progress
        self._totals = totals
        self._waiting: dict[int, bytes] = {}
        self._under_way: dict[int, bytes] = {}
        self._bytes = 0

    def __len__(self) -> int:
        """Count what is in memory."""
        return len(self._waiting) + len(self._under_way)

    def put(self, seq: int, json: bytes) -> bool:
        """Announce an event as soon as possible; False if it has to wait for its turn."""
        is_full = len(self) >= MAX_NEWS or self._bytes + len(json) > MAX_NEWS_BYTES or self._progress.is_full
        body = body_of(json)
        if is_full or len(body) > MAX_BODY_BYTES:
            return False
        self._waiting[seq] = body
        self._bytes += len(body)
        return True

    def send(self) -> None:
        """Announce what waits, and forget what has been announced meanwhile."""
        waiting, self._waiting = self._waiting, {}
        for seq, body in waiting.items():
            if seq <= self._progress.announced:
                self._bytes -= len(body)
                continue
            self._under_way[seq] = body
            rewinds = self._progress.rewinds
            added = self._broadcast.add(key_of(body), body)
            added.addCallbacks(self._added, self._failed, callbackArgs=(seq, rewinds), errbackArgs=(seq,))

    def are_under_way(self, seqs: Iterable[int]) -> bool:
        """Tell whether any of these is on its way to a server."""
        return bool(self._under_way) and any(seq in self._under_way for seq in seqs)

    def _added(self, ignored: object, seq: int, rewinds: int) -> None:
        self._bytes -= len(self._under_way.pop(seq))
        self._totals.announced += 1
        if self._progress.rewinds == rewinds:  # else the server that has it may be gone
            self._progress.announced_ahead(seq)

    def _failed(self, failure: Any, seq: int) -> None:
        self._waiting[seq] = self._under_way.pop(seq)
        failure.trap(BroadcastError)
