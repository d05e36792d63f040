"""Asks the directory who is in the cluster, and writes a line when an instance comes, leaves, or is gone.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay.cluster.directory.directory import Directory
from pyryrelay.cluster.directory.members import Listed
from pyryrelay.cluster.directory.roster import Change, Kind, Roster
from pyryrelay.cluster.redis.interface import RedisError

__all__ = ["ASK_S", "MOST_LINES", "RollCall"]

_log = Logger(namespace="pyryrelay")

ASK_S: Final = 5.0
"""How often instances are asked for although nobody looks."""
MOST_LINES: Final = 20
"""How many lines are written at once; whoever has more instances hears only how many are left out."""


class RollCall:
    """See the module's docstring. ``used_s`` tells how long the first server of the directory has been in use."""

    def __init__(self, directory: Directory, now: Callable[[], float], used_s: Callable[[], float]) -> None:
        self.roster = Roster(directory.member.name)
        self._directory = directory
        self._now = now
        self._used_s = used_s

    def ask(self) -> Deferred[None]:
        """Ask now. Never fails: who cannot be asked tells nothing, and the servers are told of elsewhere."""
        return self._directory.members().addCallbacks(self._heard, _away)

    def _heard(self, listed: Sequence[Listed]) -> None:
        changes = self.roster.hear(listed, self._now(), self._used_s())
        for change in changes[:MOST_LINES]:
            _tell(change)
        if len(changes) > MOST_LINES:
            count = len(changes) - MOST_LINES
            _log.info("{count} more instances of the cluster have come or gone: see pyryrelay cluster", count=count)


def _tell(change: Change) -> None:
    endpoint, seconds = change.listed.member.address, round(change.seconds, 1)
    match change.kind:
        case Kind.JOINED:
            _log.info("instance {endpoint} has joined the cluster", endpoint=endpoint)
        case Kind.RESTARTED:
            _log.info("instance {endpoint} of the cluster was started again", endpoint=endpoint)
        case Kind.BACK:
            _log.info(
                "instance {endpoint} of the cluster is back, after {seconds} s without",
                endpoint=endpoint,
                seconds=seconds,
            )
        case Kind.LEFT:
            _log.info("instance {endpoint} has left the cluster in order", endpoint=endpoint)
        case Kind.GONE:
            _log.warn(
                "instance {endpoint} of the cluster is gone: its lease has been over for {seconds} s, and it held "
                "{count} keys; it has died or hangs, or cannot reach the server",
                endpoint=endpoint,
                seconds=seconds,
                count=change.listed.load.keys,
            )


def _away(failure: Failure) -> None:
    failure.trap(RedisError)
