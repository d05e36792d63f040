"""What ``twistd pyryrelay`` runs: the options of its command line, and a service that suits a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from twisted.application.service import IService
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from pyryrelay.cli.twistd_options import TwistdOptions
from pyryrelay.listen.listeners import ListenError
from pyryrelay.mounts import Settings
from pyryrelay.observe.log_file import RelayLogFile, logs_elsewhere, path_of_log
from pyryrelay.observe.log_observer import file_observer, output_observer
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
from pyryrelay.runtime.systemd import READY, STOPPING, notify
from pyryrelay.service import RelayService, Times

_log = Logger(namespace="pyryrelay")


class Options(TwistdOptions):
    """The command line of ``twistd pyryrelay``, with the options of every protocol that is mounted."""

    settings_type = Settings
    settings: Settings


class TwistdService(RelayService):
    """The relay as twistd runs it: failures to listen end the process, and so does a signal, with exit code 0."""

    twistd_options: Mapping[str, Any] = MappingProxyType({})
    sighup = EarlySighup()
    _ending = False
    _log_file: RelayLogFile | None = None
    _pid_file: PidFile | None = None

    def setServiceParent(self, parent: Any) -> None:
        """Join twistd's application, and have it log to a file of ours where it logs to a file."""
        if isinstance(parent, Componentized) and self.twistd_options and not logs_elsewhere(self.twistd_options):
            path = path_of_log(self.twistd_options)
            observer = output_observer(self.settings) if path is None else self._file_observer(path)
            if observer is not None:
                parent.setComponent(ILogObserver, observer)
        super().setServiceParent(parent)

    def _file_observer(self, path: Path) -> ILogObserver:
        """Open the log file and return what writes to it, or end the process with one line and exit code 2."""
        try:
            self._log_file = file = RelayLogFile.at(path, self.settings.log_max_bytes, self.settings.log_keep)
        except OSError as error:
            abort_start(f"pyryrelay: --logfile (of twistd): {str(path)!r} cannot be opened: {error.strerror}", {})
            raise SystemExit(2) from None
        handle_rotation(self._reactor, file.rotate_or_log)
        return file_observer(self.settings, file)

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
        handle_signals(self._reactor, self._end, self.reload)
        if self.sighup.received:
            self._reactor.callFromThread(self.reload)
        self._reactor.addSystemEventTrigger("after", "shutdown", ignore_signals)
        try:
            super().privilegedStartService()
        except ListenError as error:
            _log.critical("{warning}", warning=str(error))
            abort_start(f"pyryrelay: {error}", self.twistd_options)
            raise SystemExit(2) from None
        self._hand_over_log()

    def startService(self) -> None:
        """Start, and prepare the process for a long life once everything is there."""
        if self.settings.log_format == "json" and logs_elsewhere(self.twistd_options):
            warning = "--log-format json: twistd's --syslog and --logger have a format of their own; leave them out"
            _log.warn("{warning}", warning=warning)
        super().startService()
        self._reactor.callWhenRunning(self._running)

    def _running(self) -> None:
        tune_gc()
        tune_malloc()
        notify(READY)

    def stopService(self) -> Any:
        """See `pyryrelay.service.RelayService`."""
        notify(STOPPING)
        return super().stopService()

    def _end(self) -> None:
        """Stop, and on being told again stop waiting for peers."""
        if self._ending or self.health.draining:
            self.skip_drain()
        else:
            self._ending = True
            self._reactor.stop()


def makeService(options: Options, reactor: Any = None) -> IService:
    """The service for twistd. Called after the options were parsed and the reactor was chosen."""
    if reactor is None:
        from twisted.internet import reactor
    service = TwistdService(
        options.settings, reactor, time.monotonic, Times(), options.read, options.base, options.warnings
    )
    service.twistd_options = options.parent or {}
    service.sighup = options.sighup
    service.setName("pyryrelay")
    return service
