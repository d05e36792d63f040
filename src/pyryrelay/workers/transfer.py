"""What a supervisor gives to its successor: the sockets and the jail are its own, and the workers move their peers.

Worker i of the successor asks worker i of this process, through both supervisors. The protocol of a worker has a name
of its own on the link between these: the index, a slash, and the name of the protocol. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay.handover.predecessor import Predecessor
from pyryrelay.jail.keeper import JailKeeper
from pyryrelay.jail.store import Row
from pyryrelay.listen.inherited import Inherited
from pyryrelay.listen.listeners import Listeners
from pyryrelay.observe.health import Health
from pyryrelay.protocol import Predecessor as ProtocolPredecessor
from pyryrelay.workers.rpc import Rpc, RpcError
from pyryrelay.workers.supervisor import Supervisor

__all__ = ["PredecessorOfWorker", "Sockets", "WorkersTransfer", "relay_questions"]

_log = Logger(namespace="pyryrelay")


class Sockets(Protocol):
    """The listening sockets of a supervisor."""

    def shared(self) -> Inherited:
        """Return all of them, which stay those of this object."""

    def close_others(self, kept: frozenset[str]) -> Deferred[None]:
        """Close those that the successor has not kept."""


class WorkersTransfer:
    """See the module's docstring. ``protocols`` are the names of the protocols that workers speak."""

    def __init__(
        self,
        workers: Supervisor,
        sockets: Sockets,
        admin: Listeners,
        jail_keeper: JailKeeper,
        health: Health,
        protocols: Sequence[str],
    ) -> None:
        self._workers = workers
        self._sockets: Sequence[Sockets] = (sockets, admin)
        self._admin = admin
        self._jail_keeper = jail_keeper
        self._health = health
        self._protocols = protocols
        self._waiting: set[str] = set()
        """Names of protocols of workers that have not released what only one process can have."""
        self._released: Callable[[str], None] = lambda name: None
        self.is_given = False
        workers.on("released", lambda index, body: self._release(f"{index}/{body['protocol']}"))
        workers.on_lost.append(lambda index, boot: self._release_all(index))

    def sockets(self) -> Inherited:
        """Return all listening sockets, which stay those of this process."""
        shared = [sockets.shared() for sockets in self._sockets]
        listening = {text: sock for each in shared for text, sock in each.listening.items()}
        return Inherited(listening, {text: sock for each in shared for text, sock in each.dropping.items()})

    @inlineCallbacks
    def give(self, kept: frozenset[str]) -> Generator[Deferred[Any], Any, list[Row]]:
        """Have all workers stop accepting, close what the successor has not kept, and return the jail's sentences."""
        self.is_given = True
        self._health.drain()
        self._workers.stop()
        self._admin.pause()
        yield self._workers.ask_all("pause", kept=sorted(kept))
        for sockets in self._sockets:
            yield sockets.close_others(kept)
        rows: list[Row] = yield self._jail_keeper.leave()
        return rows

    @inlineCallbacks
    def move_peers(self, over_s: float, released: Callable[[str], None]) -> Generator[Deferred[Any], Any, None]:
        """Have all workers move their peers. ``released`` is called with the name of each protocol of a worker."""
        self._waiting = {f"{index}/{name}" for index in range(self._workers.count) for name in self._protocols}
        self._released = released
        indexes = self._workers.indexes
        for index in range(self._workers.count):
            if index not in indexes:
                self._release_all(index)
        moves = [self._workers.ask(index, "drain", over_s=over_s).addErrback(_unless_lost) for index in indexes]
        yield DeferredList(moves)
        for name in list(self._waiting):
            self._release(name)

    def _release_all(self, index: int) -> None:
        for name in self._protocols:
            self._release(f"{index}/{name}")

    def _release(self, name: str) -> None:
        if name in self._waiting:
            self._waiting.discard(name)
            self._released(name)

    def answer(self, protocol: str, question: bytes) -> Deferred[bytes] | None:
        """Pass a question on to the worker that the name has; None if there is no such worker now."""
        index, _, name = protocol.partition("/")
        if not index.isdigit() or int(index) not in self._workers.indexes:
            return None

        def answered(answer: Any) -> Any:
            return answer.encode() if isinstance(answer, str) else None

        asked = self._workers.ask(int(index), "answer", protocol=name, question=question.decode())
        return asked.addCallbacks(answered, _unless_lost)

    def take_back(self) -> None:
        """Have all workers accept again: the successor has died."""
        self.is_given = False
        self._waiting = set()
        self._health.undrain()
        self._jail_keeper.take_back()
        self._admin.resume()
        self._workers.tell_all("resume")
        self._workers.go_on()


def _unless_lost(failure: Failure) -> None:
    """Log a failure, unless a worker has just ended: then there is nothing to move any more."""
    if not failure.check(RpcError):
        _log.failure("A worker failed to move its peers", failure)


def relay_questions(workers: Supervisor, predecessor: Predecessor) -> None:
    """Pass the questions of workers on to the workers of the process before this one."""

    def ask(index: int, body: Any) -> Deferred[str | None]:
        asked = predecessor.ask(f"{index}/{body['protocol']}", body["question"].encode())
        return asked.addCallback(lambda answer: None if answer is None else answer.decode())

    workers.on("predecessor", ask)
    workers.on("when_released", lambda index, body: predecessor.when_released(f"{index}/{body['protocol']}"))


class PredecessorOfWorker:
    """The worker with the same index in the process before this one, which the supervisor knows."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self.sockets = Inherited()

    def of(self, protocol: str) -> ProtocolPredecessor:
        """Return the protocol of that name in it."""
        return _Protocol(self._rpc, protocol)


class _Protocol:
    """See `pyryrelay.protocol.Predecessor`."""

    def __init__(self, rpc: Rpc, name: str) -> None:
        self._rpc = rpc
        self._name = name

    def ask(self, question: bytes) -> Deferred[bytes | None]:
        asked = self._rpc.ask("predecessor", protocol=self._name, question=question.decode())
        return asked.addCallbacks(lambda answer: None if answer is None else answer.encode(), _nothing)

    def when_released(self) -> Deferred[None]:
        return self._rpc.ask("when_released", protocol=self._name).addErrback(_nothing)


def _nothing(failure: Failure) -> None:
    """Take a failure for an answer that says nothing: the supervisor has ended, and so will this process."""
    failure.trap(RpcError)
