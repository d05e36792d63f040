"""How a protocol tells all relays of a cluster something: each entry reaches every other one, also after an outage.

A server of the cluster keeps the newest entries for some time, and those who follow read them from where they stopped.
So entries arrive at least once, each server's in the order in which they were added, and seldom again: after an outage,
or when a relay has started again, which does not know its own earlier entries. The protocol must not mind repetitions.

Entries are sealed with the secret of the cluster: only its members can read or make them. Those who can write to a
server may still repeat an entry, or delete some. Nothing here is kept on disk; a server that is started again is empty.

Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from twisted.internet.defer import Deferred

__all__ = ["MAX_BODY_BYTES", "Broadcast", "BroadcastError", "BroadcastListener", "Entry"]

MAX_BODY_BYTES: Final = 1_048_576
"""The largest body of an entry."""


class BroadcastError(Exception):
    """An entry that was perhaps not added; `str` of it is the reason. Add it again later: repetitions do no harm."""


class Entry(NamedTuple):
    """What another relay has added."""

    position: str
    """Where to go on after this entry: opaque, at most 100 characters of ASCII, and of use for this source alone."""
    body: bytes
    age_s: float
    """How long ago it was added, by the clocks of the servers, so a second or two may be wrong. The sender vouches for
    the time, so this is also the age of an entry that somebody has repeated."""


class BroadcastListener(Protocol):
    """What a protocol does with the entries. A source is one server of the cluster: a short name, such as ``0``."""

    def entries(self, source: str, entries: Sequence[Entry]) -> Deferred[None]:
        """Take entries of others, at least one, in order. More of this source are read when the Deferred has fired.

        There are at most 200 of them, with 1 MiB in all or a single body. If it fails, that is logged, and the same
        entries come again a second later. Sources do not wait for one another.
        """

    def passed(self, source: str, position: str) -> None:
        """Note that nothing up to this position is of interest: entries of this relay, or unreadable ones.

        Called after `entries` of the same read has fired, if something follows the last of them.
        """

    def connected(self) -> None:
        """Note that entries can be added to a server again, or for the first time; called for each of them.

        The server may have lost what was added in the last minute: add that again.
        """

    def lost(self, source: str, since_s: float) -> None:
        """Note that the server has lost entries; those that are left are next, from the oldest one on.

        All entries were read here that were added earlier than so many seconds ago. What others have added since then,
        except for the last minute, which they add again, may have been lost before it was read here. ``since_s`` is
        infinite if it is not known.
        """

    def missed(self, source: str, since_s: float, until_s: float) -> None:
        """Note that the server did not keep all entries until they were read; the next are the oldest that are left.

        What is gone was added between so many seconds ago; infinite and 0 if that is not known. This relay was away, or
        slow, for too long. It is logged and counted already.
        """


class Broadcast(Protocol):
    """What `pyryrelay.protocol.Services.broadcast` returns for one subject."""

    def add(self, key: bytes, body: bytes) -> Deferred[None]:
        """Add an entry; the Deferred fires when a server has it, or fails with `BroadcastError`, both within seconds.

        The key, such as the id of what the body is about, chooses the server. Entries that are added in one turn leave
        together. It fails at once while that server is down or too much waits for it, if the body exceeds
        `MAX_BODY_BYTES`, and after `stop`. Nothing is tried again.
        """

    def follow(self, positions: Mapping[str, str], listener: BroadcastListener) -> None:
        """Read what others add; call it once, in or after `pyryrelay.protocol.RunningProtocol.start`.

        ``positions`` has the position of each source up to which entries were taken in. A source that it does not name,
        or whose server has lost its entries meanwhile, is read from its oldest entry; one that has lost only the newest
        is read from ten minutes before the position. Sources that are gone do no harm.
        """

    def stop(self) -> None:
        """Read no more, and add nothing any more. The listener is not called after this."""
