"""What a process does around the relay: pid file, signals, log file, the service manager, and handing over.

Times are seconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from pyryrelay.admin.api import ReloadOutcome, UpgradeOutcome
from pyryrelay.handover.successor import Command
from pyryrelay.listen.listeners import ListenError
from pyryrelay.mounts import MountedSettings
from pyryrelay.observe.health import Health
from pyryrelay.observe.log_file import RelayLogFile, logs_elsewhere, path_of_log
from pyryrelay.observe.log_observer import LogOutput, file_output, standard_output
from pyryrelay.protocol_options import Severity
from pyryrelay.runtime.process import (
    EarlySighup,
    abort_start,
    handle_rotation,
    handle_signals,
    ignore_signals,
    tune_gc,
    tune_malloc,
)
from pyryrelay.runtime.stale_files import PidFile
from pyryrelay.runtime.systemd import READY, STOPPING, main_pid, notify
from pyryrelay.start.hand_over import HandOver
from pyryrelay.text import printable

__all__ = ["LATER_PID_FILE", "ProcessService"]

_log = Logger(namespace="pyryrelay")

LATER_PID_FILE: Final = "pyryrelay-pidfile"
"""The pid file of a process that does not have it at the moment, among twistd's options."""


class _Relay(Protocol):
    """What the class beside `ProcessService` has: a service of one process, or one of several."""

    def reload(self) -> Deferred[ReloadOutcome]: ...

    def upgrade(self) -> Deferred[UpgradeOutcome]: ...


class ProcessService(Service):
    """The part of a service that twistd runs, beside a class of a relay.

    Failures to listen end the process, and so does a signal, with exit code 0.
    """

    settings: MountedSettings
    health: Health
    transfer: Any
    """What is given to a successor: a `pyryrelay.start.hand_over.Giving`."""
    predecessor: Any
    """The process that this one succeeds: a `Predecessor`, or None."""
    _reactor: Any
    _base: Path
    twistd_options: MutableMapping[str, Any]
    sighup = EarlySighup()
    command: Command | None = None
    hand_over: HandOver | None = None
    _has_begun = False
    """Whether this process has taken over from its predecessor, if it has one."""
    _ending = False
    log_output: LogOutput | None = None
    """Where this process logs to, unless that is up to twistd."""
    _log_file: RelayLogFile | None = None
    _pid_file: PidFile | None = None

    def setServiceParent(self, parent: Any) -> None:
        """Join twistd's application, and have it log to our observer where it logs to a file or standard output."""
        if isinstance(parent, Componentized) and self.twistd_options and not logs_elsewhere(self.twistd_options):
            path = path_of_log(self.twistd_options)
            self.log_output = standard_output(self.settings) if path is None else self._file_output(path)
            if self.log_output is not None:
                parent.setComponent(ILogObserver, self.log_output.observer)
        cast(Any, super()).setServiceParent(parent)

    def _file_output(self, path: Path) -> LogOutput:
        """Open the log file and return what writes to it, or end the process with one line and exit code 2."""
        try:
            self._log_file = file = RelayLogFile.at(path, self.settings.log_max_bytes, self.settings.log_keep)
        except OSError as error:
            abort_start(f"pyryrelay: --logfile (of twistd): {str(path)!r} cannot be opened: {error.strerror}", {})
            raise SystemExit(2) from None
        handle_rotation(self._reactor, file.rotate_or_log)
        return file_output(self.settings, file)

    def _hand_over_log(self) -> None:
        """Give the log file to the user that twistd becomes, who could not rotate it otherwise."""
        uid, gid = self.twistd_options.get("uid"), self.twistd_options.get("gid")
        if self._log_file is not None and uid is not None and os.geteuid() == 0:
            self._log_file.hand_over(uid, -1 if gid is None else gid)

    def privilegedStartService(self) -> None:
        """Take over pid file and signals, and listen, or end the process with one line and exit code 2."""
        if name := self.twistd_options.get("pidfile"):
            self._pid_file = PidFile(Path(name))
            self._pid_file.lock()
        if self.command is not None:
            self.hand_over = HandOver(self._reactor, self, self.command)
        handle_signals(self._reactor, self._end, self._reload_unless_draining, self.upgrade)
        if self.sighup.received:
            self._reactor.callFromThread(self.reload)
        self._reactor.addSystemEventTrigger("after", "shutdown", ignore_signals)
        try:
            cast(Any, super()).privilegedStartService()
        except ListenError as error:
            _log.critical("{warning}", warning=str(error))
            if self.predecessor is not None:
                self.predecessor.failed(str(error))
            abort_start(f"pyryrelay: {error}", self.twistd_options)
            raise SystemExit(2) from None
        self._hand_over_log()

    def startService(self) -> None:
        """Start, and prepare the process for a long life once everything is there."""
        if self.settings.log_format == "json" and logs_elsewhere(self.twistd_options):
            warning = "--log-format json: twistd's --syslog and --logger have a format of their own; leave them out"
            _log.warn("{warning}", warning=warning)
        cast(Any, super()).startService()
        self._reactor.callWhenRunning(self._running)

    def _running(self) -> None:
        tune_gc()
        tune_malloc()
        if self.predecessor is not None:
            self.predecessor.connect(self._reactor, self._take_over, self._cancelled)
        self.get_ready().addCallback(self._is_ready)

    def get_ready(self) -> Deferred[None]:
        """Fire when everything is there that connections need."""
        return succeed(None)

    def _is_ready(self, _: None) -> None:
        if self.predecessor is None:
            notify(READY)
        else:
            self.predecessor.ready()

    def stopService(self) -> Any:
        """See `pyryrelay.service.RelayService`."""
        if not self.transfer.is_given and (self.predecessor is None or self._has_begun):
            notify(STOPPING)
        if self.predecessor is not None:
            self.predecessor.ending()
        if self.hand_over is not None:
            self.hand_over.stop()
        return cast(Any, super()).stopService()

    def _end(self) -> None:
        """Stop, and on being told again stop waiting for peers."""
        if self._ending:
            self.skip_drain()
        else:
            self.end()

    def _reload_unless_draining(self) -> None:
        if self.hand_over is not None and self.hand_over.is_done:
            _log.info("this process has handed over and reads no configuration: reload the new one")
        else:
            self.reload()

    def reload(self) -> Deferred[ReloadOutcome]:
        """See `pyryrelay.service.RelayService`."""
        if self.hand_over is not None:
            self.hand_over.reloaded()
        return cast(_Relay, super()).reload()

    def serve(self, sentences: Sequence[Sequence[object]] = ()) -> Deferred[None]:
        """See `pyryrelay.service.RelayService`."""
        began: Deferred[None] = cast(Any, super()).serve(sentences)
        return began

    def skip_drain(self) -> None:
        """See `pyryrelay.service.RelayService`."""
        cast(Any, super()).skip_drain()

    # Succeeding another process

    def _take_over(self, message: Mapping[str, Any]) -> None:
        """Begin to serve, as the process that the pid file and the service manager know."""
        self._has_begun = True
        self.serve(message.get("jail", ())).addCallback(self._begun)
        self._take_pid_file(self.twistd_options.get(LATER_PID_FILE) or "")
        notify(READY)
        if message.get("reload"):
            self.reload()

    def _begun(self, _: None) -> None:
        """Have the predecessor move its peers: all that could depend on what it holds have asked for that."""
        predecessor = self.predecessor
        if predecessor is not None:
            predecessor.serving()
            _log.info(
                "taken over from process {pid}, version {version}", pid=predecessor.pid, version=predecessor.version
            )

    def _cancelled(self) -> None:
        _log.info("the process before this one was told to end, and so does this one")
        self.end()

    def _take_pid_file(self, name: str) -> None:
        if not name:
            return
        self._pid_file = pid_file = PidFile(Path(name))
        try:
            pid_file.take_over()
        except OSError as error:
            line = f"--pidfile (of twistd): {name!r} still names the process before this one: {error.strerror}"
            _log.warn("{warning}", warning=line)
        self.twistd_options["pidfile"] = name

    # Handing over; see `pyryrelay.start.hand_over.Handing`

    def upgrade(self) -> Deferred[UpgradeOutcome]:
        """See `pyryrelay.service.RelayService`."""
        return cast(_Relay, super()).upgrade() if self.hand_over is None else self.hand_over.begin()

    workers = 1
    """How many processes serve connections."""
    seed = 0
    """The secret that decides which of them accepts an address; it stays the same in upgrades."""

    def why_not(self) -> str | None:
        """Return why this process cannot hand over now; None if it can."""
        if self._ending:
            return "this process ends"
        if not self.health.is_accepting:
            return "this process has not taken over itself"
        if self.predecessor is not None and not self.predecessor.is_gone:
            return f"process {self.predecessor.pid}, from which this one has taken over, still moves its peers"
        if self.twistd_options.get("chroot"):
            return "with --chroot (of twistd), the program cannot be started again: restart it"
        return None

    def conflicts(self) -> tuple[str, ...]:
        """Return what the successor's check will find in use because of this process."""
        found = [
            finding
            for protocol in self.settings.active_protocols()
            for finding in protocol.findings(self.settings, self._base)
        ]
        return tuple(printable(str(finding)) for finding in found if finding.check.severity is Severity.CONFLICT)

    def drain_over_s(self) -> float:
        """Return how long moving all peers may take."""
        return self.settings.drain_over_s

    def give_up_identity(self, pid: int) -> None:
        """Leave the pid file to another process, and tell the service manager about it."""
        if self._pid_file is not None:
            self._pid_file.give_up()
            self._pid_file = None
        self.twistd_options[LATER_PID_FILE] = self.twistd_options.get("pidfile") or ""
        self.twistd_options["pidfile"] = ""
        notify(main_pid(pid))

    def take_back_identity(self) -> None:
        """Undo `give_up_identity`."""
        self._take_pid_file(self.twistd_options.get(LATER_PID_FILE) or "")
        notify(main_pid(os.getpid()))

    def end(self) -> None:
        """End this process in an orderly way."""
        if not self._ending:
            self._ending = True
            self._reactor.stop()
