"""What ``twistd pyryrelay`` runs: the options of its command line, and a service that suits a process of its own."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import MutableMapping, Sequence
from typing import Any, Final

from twisted.application.service import IService

from pyryrelay.cli.twistd_options import StartRefused, TwistdOptions, refuse_start
from pyryrelay.handover.link import GreetingError
from pyryrelay.handover.predecessor import Predecessor
from pyryrelay.handover.successor import Command
from pyryrelay.mounts import Settings
from pyryrelay.service import RelayService, Times
from pyryrelay.start.process import LATER_PID_FILE, ProcessService
from pyryrelay.start.supervisor import SupervisorService
from pyryrelay.start.worker import WorkerService
from pyryrelay.workers.starting.greeting import Greeted, find_supervisor

DAEMON_UMASK: Final = 0o077
"""What twistd sets in the background."""


class Options(TwistdOptions):
    """The command line of ``twistd pyryrelay``, with the options of every protocol that is mounted."""

    settings_type = Settings
    settings: Settings
    command: Command | None = None
    """How to start another process like this one."""
    predecessor: Predecessor | None = None
    supervisor: Greeted | None = None
    """What the supervisor has told this process, if it is a worker."""

    def parseOptions(self, options: Sequence[str] | None = None) -> None:  # noqa: N802
        """Parse `options`; if another process started this one to succeed it, that one is told about an error."""
        parent: Any = self.parent
        if parent is not None:
            self.command = Command.of_this_process(getattr(parent, "words", sys.argv[1:]))
        try:
            if parent is not None and isinstance(self.environ, MutableMapping):
                self._find_others(self.environ, parent)
            super().parseOptions(options)
            self._check_workers()
        except GreetingError as error:
            sys.stderr.write(f"pyryrelay: {error}\n")
            raise SystemExit(2) from None
        except StartRefused as error:
            if self.predecessor is not None:
                self.predecessor.failed(error.line)
            raise

    def _find_others(self, environ: MutableMapping[str, str], twistd_options: dict[str, Any]) -> None:
        """Find the process that this one succeeds, or the one that it works for. Raises `GreetingError`."""
        found = self.supervisor = find_supervisor(environ, os.getppid)
        if found is not None:
            self.is_successor = self.is_worker = True
            self.inherited = found.greeting.sockets.endpoints
            self.given = found.greeting.configuration
            self.worker_index = found.greeting.index
            work_for_supervisor(twistd_options)
            return
        self.predecessor = Predecessor.find(environ, os.getppid())
        if self.predecessor is not None:
            self.is_successor = True
            self.inherited = self.predecessor.sockets.endpoints
            self.expected_conflicts = self.predecessor.conflicts
            succeed_daemon(twistd_options)

    def _check_workers(self) -> None:
        if self.predecessor is not None and self.predecessor.workers != self.settings.worker_count:
            running, wanted = self.predecessor.workers, self.settings.worker_count
            refuse_start(f"--workers: the running relay has {running}, and not {wanted}; restart it to change that")
        twistd_options: Any = self.parent or {}
        if self.settings.worker_count > 1 and twistd_options.get("chroot"):
            refuse_start("--workers: with --chroot (of twistd), the program cannot be started again; leave one out")


def succeed_daemon(twistd_options: dict[str, Any]) -> None:
    """Change twistd's options for a process that succeeds another one, and is where that one is.

    It is in the background already if it shall be, and has the user already. It takes over the pid file later.
    """
    if not twistd_options.get("nodaemon"):
        twistd_options["nodaemon"] = True
        if not (twistd_options.get("logfile") or twistd_options.get("syslog") or twistd_options.get("logger")):
            twistd_options["logfile"] = "twistd.log"
        if twistd_options.get("umask") is None:
            twistd_options["umask"] = DAEMON_UMASK
    if os.geteuid() != 0:
        twistd_options["uid"] = twistd_options["gid"] = None
    name = twistd_options.get("pidfile")
    twistd_options[LATER_PID_FILE] = os.path.abspath(name) if name else ""
    twistd_options["pidfile"] = ""


def work_for_supervisor(twistd_options: dict[str, Any]) -> None:
    """Change twistd's options for a worker: the supervisor has the pid file and the log."""
    succeed_daemon(twistd_options)
    twistd_options |= {"logfile": None, "logger": None, "syslog": 0, LATER_PID_FILE: ""}


class TwistdService(ProcessService, RelayService):
    """The relay as twistd runs it, in one process."""


def makeService(options: Options, reactor: Any = None) -> IService:
    """The service for twistd. Called after the options were parsed and the reactor was chosen."""
    if reactor is None:
        from twisted.internet import reactor
    if options.supervisor is not None:
        return WorkerService.of(options, options.supervisor, reactor)
    kind = SupervisorService if options.settings.worker_count > 1 else TwistdService
    service = kind(
        options.settings,
        reactor,
        time.monotonic,
        Times(),
        options.read,
        options.base,
        options.warnings,
        options.predecessor,
    )
    if isinstance(service, SupervisorService):
        service.configuration = lambda: options.configuration
    service.twistd_options = {} if options.parent is None else options.parent
    service.command = options.command
    service.sighup = options.sighup
    service.setName("pyryrelay")
    return service
