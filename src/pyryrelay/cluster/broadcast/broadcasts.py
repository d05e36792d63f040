"""The broadcasts of this relay: for each subject a stream on each server. Nothing is opened until somebody follows.

What is added goes by the connections that the rest of the cluster uses. Those who follow get a connection of their own
to each server, because a wait for entries holds up whatever comes behind it. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from zlib import crc32

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from pyryrelay.broadcast import BroadcastListener
from pyryrelay.cluster.broadcast.adding import Adder
from pyryrelay.cluster.broadcast.figures import Figures
from pyryrelay.cluster.broadcast.reading import Reader, Reports
from pyryrelay.cluster.broadcast.seals import Seals
from pyryrelay.cluster.broadcast.stream import Stream, stream_of
from pyryrelay.cluster.keys import Keys
from pyryrelay.cluster.outages import Outages
from pyryrelay.cluster.redis.client import RedisClient
from pyryrelay.cluster.shards import Shards

__all__ = ["NOT_FOLLOWED_S", "Broadcasts", "Following", "SubjectBroadcast", "Terms"]

NOT_FOLLOWED_S: Final = 5.0
"""How long a server that can be used may refuse the connection for reading until that is told."""

NewClient = Callable[[int, Callable[[str], object]], RedisClient]


@dataclass(frozen=True, slots=True)
class Terms:
    """What broadcasts need. ``new_client`` makes a client for reading from a server; see `Reader`."""

    shards: Shards
    keys: Keys
    outages: Outages
    limit_bytes: int
    now: Callable[[], float]
    call_later: Callable[..., IDelayedCall]
    new_client: NewClient


class Following:
    """Reads one stream, by a client of its own."""

    def __init__(self, terms: Terms, number: int, stream: Stream, position: str, subject: SubjectBroadcast) -> None:
        self._terms = terms
        self._number = number
        self.client = terms.new_client(number, self._changed)
        self._down_since: float | None = terms.now()
        listener = subject.listener
        assert listener is not None
        reports = Reports(partial(subject.may_add, number), self._missed, self._refused)
        self.reader = Reader(
            self.client,
            stream,
            position,
            listener,
            terms.now,
            self._server_time,
            terms.call_later,
            reports,
        )

    def _server_time(self) -> float | None:
        """Return the time of the server's clock, which each client asks for before it can be used."""
        ahead_s = self._terms.shards.clients[self._number].ahead_s
        if ahead_s is None:
            ahead_s = self.client.ahead_s
        return None if ahead_s is None else self._terms.now() + ahead_s

    def _changed(self, reason: str) -> None:
        if not reason:
            self._down_since = None
            self.reader.connected()
        elif self._down_since is None:
            self._down_since = self._terms.now()

    @property
    def _name(self) -> str:
        return self._terms.shards.clients[self._number].name

    def judge(self) -> None:
        """Warn if the server can be used, but not for reading."""
        down_since, can_be_used = self._down_since, self._terms.shards.clients[self._number].is_up
        if can_be_used and down_since is not None and self._terms.now() > down_since + NOT_FOLLOWED_S:
            self._refused(self.client.problem)

    def _refused(self, reason: str) -> None:
        text = f"what other relays tell cannot be read from server {self._name} of the cluster: {reason}"
        self._terms.outages.warn(f"reading from {self._name}", text)

    def _missed(self) -> None:
        self._terms.outages.warn(
            f"missed on {self._name}",
            f"server {self._name} of the cluster did not keep what other relays had told until it was read here, so "
            "some of it may be missing: give it more memory with --cluster-kept-bytes, or see why this relay was away",
        )

    def stop(self) -> None:
        """End the connection."""
        self.reader.stop()
        self.client.stop()


class SubjectBroadcast:
    """See `pyryrelay.broadcast.Broadcast`."""

    def __init__(self, terms: Terms, streams: Sequence[Stream], stopped: Callable[[SubjectBroadcast], object]) -> None:
        self.listener: BroadcastListener | None = None
        self.following: list[Following] = []
        self.streams = streams
        self._terms = terms
        self._stopped = stopped
        self._is_stopped = False
        self._adders = [self._adder(number) for number in range(len(terms.shards))]

    def _adder(self, number: int) -> Adder:
        terms, client = self._terms, self._terms.shards.clients[number]
        refused = partial(self._refused, number)
        return Adder(client, self.streams[number], terms.limit_bytes, terms.now, terms.call_later, refused)

    def _refused(self, number: int, problem: str) -> None:
        name = self._terms.shards.clients[number].name
        text = f"server {name} of the cluster does not take what this relay tells: {problem}"
        self._terms.outages.warn(f"adding to {name}", text)

    def add(self, key: bytes, body: bytes) -> Deferred[None]:
        """See `pyryrelay.broadcast.Broadcast.add`."""
        return self._adders[crc32(key) % len(self._adders)].add(body)

    def follow(self, positions: Mapping[str, str], listener: BroadcastListener) -> None:
        """See `pyryrelay.broadcast.Broadcast.follow`."""
        self.listener = listener
        for number, stream in enumerate(self.streams):
            self.following.append(Following(self._terms, number, stream, positions.get(stream.source, ""), self))
        for number, following in enumerate(self.following):
            following.client.start()
            if self._terms.shards.clients[number].is_up:
                self._terms.call_later(0, self.may_add, number)

    def may_add(self, number: int) -> None:
        """Tell the listener that a server has begun to take entries, perhaps without the newest ones."""
        if self.listener is not None and self._terms.shards.clients[number].is_up:
            self.listener.connected()

    def stop(self) -> None:
        """See `pyryrelay.broadcast.Broadcast.stop`."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self.listener = None
        for adder in self._adders:
            adder.stop()
        for following in self.following:
            following.stop()
        self.following = []
        self._stopped(self)


class Broadcasts:
    """All broadcasts. Call `changed` when a server can be used again, and `judge` once a second.

    The streams of a subject, with what is counted about them, are the same until the process ends.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._streams: dict[str, list[Stream]] = {}
        self._running: list[SubjectBroadcast] = []

    def of(self, subject: str) -> SubjectBroadcast:
        """Return a new broadcast of a subject; see `pyryrelay.protocol.Services`."""
        keys = self._terms.keys
        if subject not in self._streams:
            seals = Seals(keys.sealing_key)
            servers = range(len(self._terms.shards))
            self._streams[subject] = [stream_of(keys, subject, number, seals) for number in servers]
        made = SubjectBroadcast(self._terms, self._streams[subject], self._running.remove)
        self._running.append(made)
        return made

    def figures(self, number: int) -> list[Figures]:
        """Return what is counted about the streams on a server."""
        return [streams[number].figures for streams in self._streams.values()]

    def behind_s(self, number: int) -> float:
        """Return how far reading from a server is behind; 0 if nobody follows. See `Reader.behind_s`."""
        readers = [each.following[number].reader for each in self._running if each.following]
        return max((reader.behind_s for reader in readers), default=0.0)

    def changed(self, number: int) -> None:
        """Note that entries can be added to a server again."""
        for broadcast in [*self._running]:
            broadcast.may_add(number)

    def judge(self) -> None:
        """Warn of what cannot be read."""
        for broadcast in self._running:
            for following in broadcast.following:
                following.judge()

    def stop(self) -> None:
        """End all of them."""
        for broadcast in [*self._running]:
            broadcast.stop()
