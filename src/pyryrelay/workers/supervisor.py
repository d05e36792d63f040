"""The supervisor's view of its workers: which are there, what they are asked, and the start of another one in place of
one that has died.

A worker that ends is replaced at once, with the same index. Only if it ends before it was ready, again and again, the
next start waits, longer each time. A worker that hangs is killed, and replaced in the same way: the kernel steers
clients to it, and nobody else can serve them. Times are seconds of the reactor's clock.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from pyryrelay.logger import Repeats
from pyryrelay.workers.rpc import Rpc, RpcError

__all__ = ["END_LOOK_S", "LOOK_S", "Process", "Starter", "State", "Supervisor", "WorkerStatus"]

_log = Logger(namespace="pyryrelay")

ANSWER_S: Final = 5.0
"""How long `Supervisor.ask_all` waits for a worker."""
READY_S: Final = 60.0
"""How long a worker may take to get ready; then it is killed."""
LOOK_S: Final = 5.0
"""How often workers are asked whether they go on."""
MISSED: Final = 6
"""A worker that has not answered when it was to be asked again so often hangs. It is a number and no time, so that a
supervisor that was stopped itself first reads the answers that have come meanwhile."""
END_LOOK_S: Final = 1.0
END_MISSED: Final = 5
"""The same for workers that were told to end, which are asked oftener."""
TELL_S: Final = 10.0
"""Minimum interval between log lines about workers that end before they are ready, all for the same reason."""
BACK_OFF_S: Final = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""What the start waits for after so many workers of an index that ended before they were ready."""


class State(Enum):
    """What a worker does."""

    DOWN = "down"
    """There is no process; one will be started."""
    STARTING = "starting"
    READY = "ready"


class Process(Protocol):
    """The process of a worker."""

    @property
    def pid(self) -> int:
        """Its number; 0 if it could not be started."""

    @property
    def rpc(self) -> Rpc:
        """The connection to it."""

    def kill(self) -> None:
        """End it at once, whatever it does."""


class Starter(Protocol):
    """Starts the process of a worker."""

    def __call__(self, index: int, boot: int, ended: Callable[[str], None]) -> Process:
        """Start a worker. ``ended`` is called exactly once, in a later turn, with what became of it, for the log."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker, as operators see it. ``started_at`` is of the reactor's clock; None if there is no process."""

    index: int
    pid: int
    boot: int
    state: State
    started_at: float | None


class _Worker:
    """One index, and the process that has it now."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.boot = 0
        self.state = State.DOWN
        self.process: Process | None = None
        self.started_at: float | None = None
        self.failures = 0
        """How many processes have ended before they were ready, one after another."""
        self.timer: IDelayedCall | None = None
        self.is_hanging = False
        self.missed: int | None = None
        """How often it should have been asked again, and had not answered; None if no answer is awaited."""

    def stop_timer(self) -> None:
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        self.timer = None


class Supervisor:
    """See the module's docstring."""

    def __init__(self, reactor: Any, count: int, start: Starter) -> None:
        """``start`` starts the process of a worker. Do nothing before `start_all`."""
        self._reactor = reactor
        self._start = start
        self._workers = tuple(_Worker(index) for index in range(count))
        self._boots = itertools.count(1)
        self._handlers: dict[str, Callable[[int, Mapping[str, Any]], Any]] = {"ready": self._said_ready}
        self._is_stopping = False
        self._is_ending = False
        self._repeats = Repeats(reactor.seconds, TELL_S)
        self.restarts = 0
        """How many workers have ended without having been told to."""
        self.on_ready: list[Callable[[int], None]] = []
        """Called with the index of each worker that is ready to serve."""
        self.on_lost: list[Callable[[int, int], None]] = []
        """Called with the index and the boot of each worker that has ended."""
        self.on_failed: list[Callable[[int, str], None]] = []
        """Called with the index of a worker that has ended before it was ready, and what became of it."""

    @property
    def count(self) -> int:
        """How many workers there are to be."""
        return len(self._workers)

    @property
    def indexes(self) -> Sequence[int]:
        """The indexes of the workers that are ready."""
        return [worker.index for worker in self._workers if worker.state is State.READY]

    @property
    def absent(self) -> Sequence[int]:
        """The indexes of the workers that are not ready, or have left a question unanswered for `LOOK_S` or longer."""
        return [worker.index for worker in self._workers if worker.state is not State.READY or worker.missed]

    @property
    def is_complete(self) -> bool:
        """Whether all workers are ready."""
        return len(self.indexes) == self.count

    @property
    def is_empty(self) -> bool:
        """Whether no worker has a process."""
        return all(worker.process is None for worker in self._workers)

    def status(self) -> list[WorkerStatus]:
        """Return what all workers do, by index."""
        return [
            WorkerStatus(
                worker.index,
                0 if worker.process is None else worker.process.pid,
                worker.boot,
                worker.state,
                worker.started_at,
            )
            for worker in self._workers
        ]

    # Talking to workers

    def ask(self, index: int, name: str, /, **body: object) -> Deferred[Any]:
        """Ask one worker. Fails with `RpcError` if it is not ready, ends, or cannot answer."""
        worker = self._workers[index]
        if worker.process is None or worker.state is not State.READY:
            return fail(RpcError(f"{name}: worker {index} is not ready"))
        return worker.process.rpc.ask(name, **body)

    def ask_all(self, name: str, /, timeout_s: float = ANSWER_S, **body: object) -> Deferred[dict[int, Any]]:
        """Ask all workers that are ready; the answers by index, without those who cannot answer in time."""
        indexes = self.indexes
        asked = [self.ask(index, name, **body).addTimeout(timeout_s, self._reactor) for index in indexes]

        def answered(outcomes: Sequence[tuple[bool, Any]]) -> dict[int, Any]:
            return {index: value for index, (is_good, value) in zip(indexes, outcomes, strict=True) if is_good}

        return DeferredList(asked, consumeErrors=True).addCallback(answered)

    def tell(self, index: int, name: str, /, **body: object) -> None:
        """Send a message to one worker, if it is ready."""
        worker = self._workers[index]
        if worker.process is not None and worker.state is State.READY:
            worker.process.rpc.tell(name, **body)

    def tell_all(self, name: str, /, **body: object) -> None:
        """Send a message to all workers that are ready."""
        for worker in self._workers:
            self.tell(worker.index, name, **body)

    def on(self, name: str, handler: Callable[[int, Mapping[str, Any]], Any]) -> None:
        """Have questions and messages of that name handled, of every worker. See `pyryrelay.workers.rpc.Rpc.on`."""
        self._handlers[name] = handler
        for worker in self._workers:
            if worker.process is not None:
                self._listen(worker.index, worker.process, name)

    def _listen(self, index: int, process: Process, name: str) -> None:
        # The name is looked up later, as its handler may be replaced.
        process.rpc.on(name, lambda body: self._handlers[name](index, body))

    # Their processes

    def start_all(self) -> None:
        """Start all workers."""
        for worker in self._workers:
            self._begin(worker)

    def stop(self) -> None:
        """Start no worker any more: they are about to end."""
        self._is_stopping = True
        for worker in self._workers:
            if worker.process is None:
                worker.stop_timer()

    def go_on(self) -> None:
        """Undo `stop`."""
        self._is_stopping = False
        for worker in self._workers:
            if worker.process is None:
                self._begin(worker)

    def end_all(self) -> None:
        """Tell all workers to end in an orderly way. Those that are not ready have nothing to bring into order."""
        self._is_ending = True
        for worker in self._workers:
            if worker.process is not None and worker.state is not State.READY:
                worker.process.kill()
        self.tell_all("stop")

    def kill_all(self) -> None:
        """End all workers at once, whatever they do."""
        for worker in self._workers:
            if worker.process is not None:
                worker.process.kill()

    def look_after(self) -> None:
        """Kill the workers that hang; call it every `LOOK_S`, and every `END_LOOK_S` behind `end_all`."""
        limit, every_s = (END_MISSED, END_LOOK_S) if self._is_ending else (MISSED, LOOK_S)
        for worker in self._workers:
            if worker.process is None or worker.state is not State.READY or worker.is_hanging:
                continue
            if worker.missed is None:
                worker.missed = 0
                # Whatever it says, it goes on: it need not know the question.
                self.ask(worker.index, "alive").addBoth(self._goes_on, worker, worker.boot)
                continue
            worker.missed += 1
            if worker.missed >= limit:
                worker.is_hanging = True
                _log.error(
                    "worker {worker} hangs: no answer for {seconds} s, so it is killed (process {pid})",
                    worker=worker.index,
                    seconds=limit * every_s,
                    pid=worker.process.pid,
                )
                worker.process.kill()

    @staticmethod
    def _goes_on(_: object, worker: _Worker, boot: int) -> None:
        if worker.boot == boot:
            worker.missed = None

    def _begin(self, worker: _Worker) -> None:
        worker.boot = boot = next(self._boots)
        worker.missed, worker.is_hanging = None, False
        worker.state, worker.started_at = State.STARTING, self._reactor.seconds()
        worker.process = process = self._start(worker.index, boot, lambda outcome: self._ended(worker, boot, outcome))
        worker.timer = self._reactor.callLater(READY_S, process.kill)
        for name in self._handlers:
            self._listen(worker.index, process, name)

    def _said_ready(self, index: int, body: Mapping[str, Any]) -> None:
        worker = self._workers[index]
        if worker.state is State.STARTING:
            worker.state, worker.failures = State.READY, 0
            worker.stop_timer()
            for call in self.on_ready:
                call(index)

    def _ended(self, worker: _Worker, boot: int, outcome: str) -> None:
        was_ready, pid = worker.state is State.READY, 0 if worker.process is None else worker.process.pid
        worker.state, worker.process, worker.started_at = State.DOWN, None, None
        worker.stop_timer()
        if self._is_stopping:
            self._tell_lost(worker.index, boot)
            return
        self.restarts += 1
        worker.failures = 0 if was_ready else worker.failures + 1
        delay_s = BACK_OFF_S[min(worker.failures, len(BACK_OFF_S) - 1)]
        left_out = 0 if was_ready else self._repeats.due(outcome)
        if left_out is not None:
            _log.error(
                "worker {worker} ended: {reason} (process {pid}); another one starts in {seconds} s "
                "({left_out} more left out)",
                worker=worker.index,
                reason=outcome,
                pid=pid,
                seconds=delay_s,
                left_out=left_out,
            )
        if delay_s:
            worker.timer = self._reactor.callLater(delay_s, self._begin, worker)
        else:
            self._begin(worker)
        self._tell_lost(worker.index, boot)
        if not was_ready:
            for call in self.on_failed:
                call(worker.index, outcome)

    def _tell_lost(self, index: int, boot: int) -> None:
        for call in self.on_lost:
            call(index, boot)
