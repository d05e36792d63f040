"""A worker: a relay that serves connections for a supervisor, which says when it begins, reloads and ends.

It has no admin listener, pid file or log of its own. It ends within a second when its supervisor is gone. Times are
seconds.
"""

from __future__ import annotations

import atexit
import signal
import time
from collections.abc import Mapping
from typing import Any, Final, Self

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from pyryrelay.admin.api import ReloadOutcome
from pyryrelay.observe.worker_log import PipeWriter, WorkerLog
from pyryrelay.runtime.process import handle_stop, tune_gc, tune_malloc
from pyryrelay.service import RelayService, Times
from pyryrelay.workers.place import WorkerPlace
from pyryrelay.workers.starting.greeting import Greeted
from pyryrelay.workers.transfer import PredecessorOfWorker

__all__ = ["WorkerService"]

_log = Logger(namespace="pyryrelay")

LOST_S: Final = 0.8
"""How long the orderly end of a worker may take when its supervisor is gone; the system ends it then."""
_STANDARD_OUTPUT: Final = 1


class WorkerService(RelayService):
    """See the module's docstring."""

    place: WorkerPlace
    supervisor: Greeted
    options: Any
    _ending = False

    @classmethod
    def of(cls, options: Any, supervisor: Greeted, reactor: Any) -> Self:
        """Return a worker with the options of `pyryrelay.start.twistd`."""
        place = supervisor.place()
        predecessor = PredecessorOfWorker(place.rpc) if supervisor.greeting.succeeds else None
        service = cls(
            options.settings, reactor, time.monotonic, Times(), options.read, options.base, (), predecessor, place
        )
        service.options, service.supervisor = options, supervisor
        service.name = "pyryrelay"
        service.listen_to_supervisor()
        return service

    def listen_to_supervisor(self) -> None:
        """Handle what the supervisor asks."""
        rpc = self.place.rpc
        rpc.on("serve", lambda body: self.serve(body.get("jail", ())))
        rpc.on("pause", lambda body: self.transfer.give(frozenset(body["kept"])))
        rpc.on("resume", lambda body: self.transfer.take_back())
        rpc.on("drain", self._drain)
        rpc.on("answer", self._answer)
        rpc.on("reload", self._reload)
        rpc.on("stop", lambda body: self.end())
        rpc.on("skip_drain", lambda body: self.skip_drain())
        rpc.on_lost.append(self._supervisor_lost)

    def setServiceParent(self, parent: Any) -> None:
        """Join twistd's application, and have it log to the supervisor."""
        if isinstance(parent, Componentized):
            greeting, write = self.supervisor.greeting, PipeWriter(_STANDARD_OUTPUT, self._reactor.callLater).write
            log = WorkerLog(greeting.log_form, greeting.index, write, self._reactor.callLater)
            self._reactor.addSystemEventTrigger("after", "shutdown", log.flush)
            atexit.register(log.flush)  # if it ends before the reactor has run
            parent.setComponent(ILogObserver, log)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        """Take over the one signal that is not blocked, and listen on the supervisor's sockets."""
        handle_stop(self._reactor, self.end)
        super().privilegedStartService()

    def startService(self) -> None:
        """Start, and tell the supervisor when everything is there."""
        super().startService()
        self._reactor.callWhenRunning(self._running)

    def _running(self) -> None:
        tune_gc()
        tune_malloc()
        rpc, greeting = self.place.rpc, self.supervisor.greeting
        rpc.connect(self._reactor, self.supervisor.end)
        if greeting.reloaded is None or greeting.reloaded == greeting.configuration:
            rpc.tell("ready")
            return
        # The others have reloaded this. If it is wrong, they go on as before, too.
        self.options.given = greeting.reloaded
        self.reload().addBoth(lambda _: rpc.tell("ready"))

    # What the supervisor asks

    def _drain(self, body: Mapping[str, Any]) -> Deferred[None]:
        def released(protocol: str) -> None:
            self.place.rpc.tell("released", protocol=protocol)

        return self.transfer.move_peers(body["over_s"], released)

    def _answer(self, body: Mapping[str, Any]) -> Deferred[str | None]:
        asked: Deferred[Any] = maybeDeferred(self.transfer.answer, body["protocol"], body["question"].encode())
        return asked.addCallback(lambda answer: None if answer is None else answer.decode())

    def _reload(self, body: Mapping[str, Any]) -> Deferred[Mapping[str, Any]]:
        self.options.given = None if body["configuration"] is None else body["configuration"].encode()

        def shown(outcome: ReloadOutcome) -> Mapping[str, Any]:
            return {
                "changed": list(outcome.changed),
                "needs_restart": list(outcome.needs_restart),
                "error": outcome.error,
            }

        return self.reload().addCallback(shown)

    def end(self) -> None:
        """End this process in an orderly way."""
        if not self._ending:
            self._ending = True
            self._reactor.stop()

    def _supervisor_lost(self) -> None:
        """End at once: nobody passes the sockets on, or collects what is logged."""
        if self._reactor.running:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, LOST_S)
            self.skip_drain()
            self.end()
