"""A process that hands over to another one: what happens in which order, and what stops it.

`HandOver.begin` starts a successor. Until that is ready, everything goes on as before, and a successor that fails only
costs a line in the log. Then this process stops accepting, the successor begins, and this one moves its peers over
``--drain-over`` and ends. If the successor dies in that time, this process accepts again.

Times are seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from enum import Enum
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, inlineCallbacks, succeed

from pyryrelay import __version__
from pyryrelay.admin.api import UpgradeOutcome
from pyryrelay.handover.link import Greeting
from pyryrelay.handover.successor import Command, Successor
from pyryrelay.jail.store import Row
from pyryrelay.listen.inherited import Inherited
from pyryrelay.logger import ErrbackLogger

__all__ = ["Giving", "HandOver", "Handing"]

_log = ErrbackLogger(namespace="pyryrelay")
_log_failure: Final = _log.errback("The hand-over failed")


class _State(Enum):
    IDLE = "idle"
    STARTING = "starting"
    """A successor starts; this process serves."""
    GIVING = "giving"
    """This process has stopped accepting, and the successor has not begun."""
    DRAINING = "draining"
    """The successor accepts; this process moves its peers."""


class Giving(Protocol):
    """What is given to a successor: a `pyryrelay.handover.transfer.Transfer`, or that of a supervisor."""

    is_given: bool

    def sockets(self) -> Inherited:
        """Return all listening sockets, which stay those of this process."""

    def give(self, kept: frozenset[str]) -> Deferred[list[Row]]:
        """Stop accepting, close the listeners that the successor has not kept, and return the jail's sentences."""

    def move_peers(self, over_s: float, released: Callable[[str], None]) -> Deferred[None]:
        """Have the protocols move their peers; ``released`` is called with the name of each that is done."""

    def answer(self, protocol: str, question: bytes) -> bytes | Deferred[bytes] | None:
        """Answer a question of a protocol of that name; None for one that there is not."""

    def take_back(self) -> None:
        """Accept again: the successor has died."""


class Handing(Protocol):
    """The service of a process that hands over."""

    @property
    def transfer(self) -> Giving:
        """What is given to the successor."""

    @property
    def workers(self) -> int:
        """How many processes serve connections."""

    @property
    def seed(self) -> int:
        """The secret that divides connections among them; 0 for none."""

    def why_not(self) -> str | None:
        """Return why this process cannot hand over now; None if it can."""

    def conflicts(self) -> tuple[str, ...]:
        """Return what the successor's check will find in use because of this process."""

    def drain_over_s(self) -> float:
        """Return how long moving all peers may take."""

    def give_up_identity(self, pid: int) -> None:
        """Leave the pid file to another process, and tell the service manager about it."""

    def take_back_identity(self) -> None:
        """Undo `give_up_identity`."""

    def end(self) -> None:
        """End this process in an orderly way."""


class HandOver:
    """See the module's docstring, and `pyryrelay.handover.successor.SuccessorEvents`."""

    def __init__(self, reactor: Any, service: Handing, command: Command) -> None:
        """``command`` starts the successor."""
        self._reactor = reactor
        self._service = service
        self._command = command
        self._state = _State.IDLE
        self._successor: Successor | None = None
        self._outcome: Deferred[UpgradeOutcome] | None = None
        self._must_reload = False

    @property
    def is_on(self) -> bool:
        """Whether a successor starts, or has taken over."""
        return self._state is not _State.IDLE

    @property
    def is_done(self) -> bool:
        """Whether a successor has taken over, or is about to."""
        return self._state in (_State.GIVING, _State.DRAINING)

    def begin(self) -> Deferred[UpgradeOutcome]:
        """Start a successor; the Deferred fires when it has taken over, or has failed."""
        why_not = self._service.why_not()
        if why_not is None and self.is_on:
            why_not = f"process {self._pid} is already taking over"
        if why_not is not None:
            _log.error("no upgrade: {reason}", reason=why_not)
            return succeed(UpgradeOutcome(error=why_not))
        self._state, self._must_reload = _State.STARTING, False
        outcome = self._outcome = Deferred[UpgradeOutcome]()
        service = self._service
        greeting = Greeting(
            __version__, os.getpid(), service.conflicts(), service.transfer.sockets(), service.workers, service.seed
        )
        successor = self._successor = Successor(self._reactor, self._command, greeting, self)
        _log.info("upgrade began: starting another process, which takes over when it is ready")
        successor.start()
        return outcome

    @property
    def _pid(self) -> int:
        return 0 if self._successor is None else self._successor.pid

    def reloaded(self) -> None:
        """Note that the configuration was read again here: the successor may have read it before."""
        self._must_reload = True

    def stop(self) -> None:
        """This process ends: a successor that has not taken over ends, too, and one that has is left alone."""
        successor, self._successor = self._successor, None
        if successor is not None and self._state in (_State.STARTING, _State.GIVING):
            successor.cancel()
            self._report(UpgradeOutcome(error="this process was told to end"))
        elif successor is not None:
            successor.leave()

    def _report(self, outcome: UpgradeOutcome) -> None:
        deferred, self._outcome = self._outcome, None
        if deferred is not None:
            deferred.callback(outcome)

    # What the successor reports

    def failed(self, why: str) -> None:
        """Go on as before."""
        self._state, self._successor = _State.IDLE, None
        _log.error("upgrade failed: {reason}; this process goes on", reason=why)
        self._report(UpgradeOutcome(error=f"the new process could not take over: {why}"))

    def ready(self, kept: frozenset[str]) -> None:
        """Stop accepting, and let the successor begin."""
        self._state = _State.GIVING
        self._give(kept).addErrback(_log_failure)

    @inlineCallbacks
    def _give(self, kept: frozenset[str]) -> Generator[Deferred[Any], Any, None]:
        successor = self._successor
        rows = yield self._service.transfer.give(kept)
        if successor is None or successor is not self._successor:
            return
        self._service.give_up_identity(successor.pid)
        successor.take(jail=rows, reload=self._must_reload)

    def serving(self) -> None:
        """Move the peers."""
        successor, over_s = self._successor, self._service.drain_over_s()
        if successor is None or self._state is not _State.GIVING:
            return
        self._state = _State.DRAINING
        _log.info(
            "upgrade done: process {pid}, version {version}, has taken over; moving all peers within {seconds} s",
            pid=successor.pid,
            version=successor.version,
            seconds=over_s,
        )
        self._report(UpgradeOutcome(successor.pid, successor.version, over_s))
        self._drain(successor, over_s).addErrback(_log_failure)

    @inlineCallbacks
    def _drain(self, successor: Successor, over_s: float) -> Generator[Deferred[Any], Any, None]:
        yield self._service.transfer.move_peers(over_s, successor.released)
        if successor is self._successor:
            self._service.end()

    def lost(self) -> None:
        """Serve again."""
        pid, self._successor = self._pid, None
        self._state = _State.IDLE
        _log.error("upgrade failed later: process {pid} has died; this process accepts connections again", pid=pid)
        self._service.take_back_identity()
        self._service.transfer.take_back()
        self._report(UpgradeOutcome(error=f"process {pid} has died, and this process accepts connections again"))

    def ending(self) -> None:
        """End, too: the successor was told to."""
        if self._state is _State.STARTING:
            self.failed("it was told to end")
            return
        self._report(UpgradeOutcome(error="the new process was told to end"))
        self._service.end()

    def asked(self, protocol: str, question: bytes) -> bytes | Deferred[bytes] | None:
        """Pass a question on to the protocol."""
        return self._service.transfer.answer(protocol, question)
