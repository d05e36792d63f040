"""How a supervisor starts workers on systems where they cannot be forked from a process that has loaded everything.

Each worker is a Python of its own. One process is started in advance: it has loaded its modules when it is needed, and
waits for the greeting, so that a worker that was killed is replaced sooner. Times are seconds of the reactor's clock.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

from pyryrelay.handover.successor import Command
from pyryrelay.runtime.child_process import blocked_signals
from pyryrelay.runtime.process import why_not_started
from pyryrelay.workers.starting.greeting import VARIABLE, WorkerGreeting
from pyryrelay.workers.starting.process import BLOCKED, WorkerProcess, drop_lines

__all__ = ["SPARE_AFTER_S", "SpawningStarter", "spawn"]

SPARE_AFTER_S: Final = 1.0
"""How long after the start of a worker another process is started in advance: not while the machine is busy with it."""


def spawn(reactor: Any, command: Command, worker: WorkerProcess) -> None:
    """Start the process of a worker, by the same command as this one. A failure is reported to ``worker``."""
    arguments = [sys.executable, *command.arguments]
    with contextlib.ExitStack() as opened:
        try:
            ours, theirs = map(opened.enter_context, socket.socketpair())
            nothing = opened.enter_context(open(os.devnull, "rb"))
            with blocked_signals(BLOCKED):
                process = reactor.spawnProcess(
                    worker,
                    sys.executable,
                    arguments,
                    env={**command.environ, VARIABLE: f"{os.getpid()}:{theirs.fileno()}"},
                    path=command.directory,
                    childFDs={0: nothing.fileno(), 1: "r", 2: "r", theirs.fileno(): theirs.fileno()},
                )
        except OSError as error:
            worker.not_started(why_not_started(error))
            return
        theirs.close()
        nothing.close()
        opened.pop_all()
    worker.has_started(process, ours)


class SpawningStarter:
    """Starts workers; see `pyryrelay.workers.supervisor.Starter`. ``greeting`` returns what one is told."""

    def __init__(
        self,
        reactor: Any,
        command: Command,
        greeting: Callable[[int, int], WorkerGreeting],
        copy: Callable[[bytes], None] = drop_lines,
    ) -> None:
        self._reactor = reactor
        self._command = command
        self._greeting = greeting
        self._copy = copy
        self._is_stopped = False
        self._spare: WorkerProcess | None = None
        self._timer: Any = None

    def __call__(self, index: int, boot: int, ended: Callable[[str], None]) -> WorkerProcess:
        """Start a worker."""
        process, self._spare = self._usable_spare(), None
        if process is None:
            process = self._spawned()
        process.expect(index, ended)
        process.greet(self._greeting(index, boot))
        if not self._is_stopped:
            self._stop_timer()
            self._timer = self._reactor.callLater(SPARE_AFTER_S, self._start_spare)
        return process

    def _spawned(self) -> WorkerProcess:
        process = WorkerProcess(self._reactor, self._copy)
        spawn(self._reactor, self._command, process)
        return process

    def _start_spare(self) -> None:
        self._timer = None
        if not self._is_stopped and self._usable_spare() is None:
            self._spare = self._spawned()

    def _usable_spare(self) -> WorkerProcess | None:
        if self._spare is not None and self._spare.is_over:
            self._spare.dismiss()
            self._spare = None
        return self._spare

    def stop(self) -> None:
        """Start nothing in advance any more, and end what was."""
        self._is_stopped = True
        self._stop_timer()
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.dismiss()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
