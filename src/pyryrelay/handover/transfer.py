"""What a running relay gives to its successor, in order, and how it takes it back if the successor fails.

First it stops accepting, and its jail's file is complete and closed. Then its protocols move their peers. The listening
sockets stay open here until the end: if the successor dies meanwhile, this process accepts again. Times are seconds of
a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, maybeDeferred
from twisted.internet.task import deferLater

from pyryrelay.http.listener_context import ListenerContext
from pyryrelay.jail.keeper import JailKeeper
from pyryrelay.jail.store import Row
from pyryrelay.listen.inherited import Inherited
from pyryrelay.listen.listeners import Listeners
from pyryrelay.logger import ErrbackLogger
from pyryrelay.observe.health import Health
from pyryrelay.protocol import RunningProtocol

__all__ = ["Lease", "Transfer"]

_log = ErrbackLogger(namespace="pyryrelay")
_log_failure: Final = _log.errback("A protocol failed to move its peers")

POLL_S: Final = 0.05
LATE_S: Final = 10.0
"""How long connections that were accepted before, and have sent no request yet, are waited for."""


class Lease(Protocol):
    """What other hosts know this process by; the successor keeps it, because it has the same sockets."""

    def hand_over(self) -> None:
        """Leave it to the successor."""

    def take_back(self) -> None:
        """Keep it again."""


@dataclass(slots=True)
class Transfer:
    """See the module's docstring. ``contexts`` are those of the public listeners."""

    reactor: Any
    listeners: Sequence[Listeners]
    jail_keeper: JailKeeper
    protocols: Mapping[str, RunningProtocol[Any]]
    contexts: Sequence[ListenerContext]
    health: Health
    lease: Lease
    is_given: bool = False
    """Whether the successor has the sockets, and everything that belongs to them."""

    def sockets(self) -> Inherited:
        """Return all listening sockets, which stay those of this process."""
        shared = [listeners.shared() for listeners in self.listeners]
        listening = {text: sock for each in shared for text, sock in each.listening.items()}
        return Inherited(listening, {text: sock for each in shared for text, sock in each.dropping.items()})

    @inlineCallbacks
    def give(self, kept: frozenset[str]) -> Generator[Deferred[Any], Any, list[Row]]:
        """Stop accepting, close the listeners that the successor has not kept, and return the jail's sentences."""
        self.is_given = True
        self.lease.hand_over()
        self.health.drain()
        for listeners in self.listeners:
            listeners.pause()
            yield listeners.close_others(kept)
        rows: list[Row] = yield self.jail_keeper.leave()
        return rows

    @inlineCallbacks
    def move_peers(self, over_s: float, released: Callable[[str], None]) -> Generator[Deferred[Any], Any, None]:
        """Have the protocols move their peers, and serve those that were accepted before and ask now.

        ``released`` is called with the name of each protocol that is done.
        """
        moves = [self._move(name, over_s, released) for name in self.protocols]
        yield DeferredList(moves)
        left_s = LATE_S
        while left_s > 0 and any(context.waiting for context in self.contexts):
            yield deferLater(self.reactor, POLL_S)
            left_s -= POLL_S

    def _move(self, name: str, over_s: float, released: Callable[[str], None]) -> Deferred[None]:
        moved: Deferred[Any] = maybeDeferred(self.protocols[name].hand_over, over_s).addErrback(_log_failure)
        return moved.addCallback(lambda _: released(name))

    def answer(self, protocol: str, question: bytes) -> bytes | Deferred[bytes] | None:
        """Answer a question of the successor's protocol of that name; None for one that this process does not speak."""
        found = self.protocols.get(protocol)
        return None if found is None else found.answer(question)

    def take_back(self) -> None:
        """Accept again, with the peers that have not moved: the successor has died."""
        self.is_given = False
        self.lease.take_back()
        self.health.undrain()
        self.jail_keeper.take_back()
        for protocol in self.protocols.values():
            protocol.take_back()
        for listeners in self.listeners:
            listeners.resume()
