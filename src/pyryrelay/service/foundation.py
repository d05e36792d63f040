"""What every relay is built on, one of a single process and the supervisor of several: settings, clock, threads, and
the parts that both have.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from pyryrelay import __version__
from pyryrelay.admin.api import UpgradeOutcome
from pyryrelay.admin.status import CertificateStatus
from pyryrelay.guard import Jail
from pyryrelay.http.listener_context import HEAD_TIMEOUT_S
from pyryrelay.jail.keeper import JailKeeper
from pyryrelay.jail.store import JailStore
from pyryrelay.listen.inherited import Inherited
from pyryrelay.listen.listeners import Listeners
from pyryrelay.listen.sockets import Address, Socket
from pyryrelay.mounts import MountedSettings
from pyryrelay.observe.log import EventLog
from pyryrelay.preflight.inspection import of_settings
from pyryrelay.preflight.native import native_parts
from pyryrelay.preflight.report import report
from pyryrelay.protocol import Page
from pyryrelay.reload import Lists, Reloader
from pyryrelay.runtime.monotonic import follow_monotonic_clock
from pyryrelay.runtime.periodic import Periodic
from pyryrelay.runtime.process import Threads
from pyryrelay.service.certificates import acme_keeper, certificate_keeper, prepare_certificates

if TYPE_CHECKING:
    from pyryrelay.acme.keeper import AcmeKeeper, OtherProcesses
    from pyryrelay.listen.tls.certificates import CertificateInfo

__all__ = ["Foundation", "Times"]

_log = Logger(namespace="pyryrelay")


@dataclass(frozen=True, slots=True)
class Times:
    """The specification's times that are no options; tests shorten them."""

    head_timeout_s: float = HEAD_TIMEOUT_S
    message_timeout_s: float = 30.0
    ping_interval_s: float | None = None
    """None is `ConnectionSettings.ping_interval_s`."""
    pong_timeout_s: float = 30.0
    close_timeout_s: float = 5.0
    drain_s: float = 10.0


class Foundation:
    """See the module's docstring.

    ``reread`` gives the settings anew for `reload`; without it a reload reads the list files alone. Relative names of
    files count from ``base``, by default the current folder. ``warnings`` are told at the start, by default those of
    the settings. Listeners open ``inherited`` sockets. With a supervisor (``is_worker``), that logs what happens to
    the certificates.
    """

    running: Any = False
    """Whether it has started, as `twisted.application.service.Service` has it."""

    def __init__(
        self,
        settings: MountedSettings,
        reactor: Any,
        now: Callable[[], float],
        times: Times,
        reread: Callable[[], MountedSettings] | None = None,
        base: Path | None = None,
        warnings: Sequence[str] | None = None,
        inherited: Inherited | None = None,
        *,
        is_worker: bool = False,
    ) -> None:
        self.settings = settings
        self._base = Path.cwd() if base is None else base
        if warnings is None:
            warnings = report([*of_settings(settings, self._base), *native_parts()], settings).warnings
        self._warnings = warnings
        self._reactor = reactor
        # Before anything is scheduled: timers must not wait until a wall clock that was set back has caught up.
        follow_monotonic_clock(reactor)
        self._threads = Threads(reactor)
        self._now = now
        self._times = times
        self._periodic = Periodic(reactor)
        self._inherited = inherited
        self.log = EventLog(settings.log_client_address, now, partial(reactor.callLater, 0))
        self.certificates = certificate_keeper(settings, self._base, self._in_thread, speaks=not is_worker)
        lists = Lists(settings, self._base)
        lists.load()
        self.reloader: Reloader[MountedSettings] = Reloader(
            settings,
            lists,
            self._base,
            reread or self._settings_in_force,
            self._configure,
            self._in_thread,
            partial(prepare_certificates, self.certificates),
        )

    def _configure(self, settings: MountedSettings, lists: Lists) -> None:
        """Enforce settings from now on, as far as they can change while running; the lists are those of files, too."""
        raise NotImplementedError

    def _settings_in_force(self) -> MountedSettings:
        return self.reloader.settings

    def _in_thread(self, call: Callable[[], Any]) -> Deferred[Any]:
        """Make a call in another thread, and return its result."""
        return self._threads.call(call)

    def _new_listeners(self, is_passed: Callable[[str, Socket, Address], bool] | None = None) -> Listeners:
        files = None if self.certificates is None else self.certificates.files
        return Listeners(self._reactor, files, self._inherited, is_passed)

    def _keeper_of(self, jail: Jail, *, has_file: bool = True) -> JailKeeper:
        """Return what keeps a jail, and has the file of the settings unless another process has it."""
        name = self.settings.jail_file if has_file else ""
        store = JailStore(self._base / name, self.log.warn) if name else None
        return JailKeeper(jail, store, self._now, time.time, self.log.warn, self._in_thread)

    def _acme_keeper(
        self,
        pages: MutableMapping[str, Callable[[], Page]],
        may_order: Callable[[], bool],
        others: OtherProcesses | None = None,
    ) -> AcmeKeeper | None:
        """See `acme_keeper`."""
        keeper, reactor, in_thread = self.certificates, self._reactor, self._in_thread
        return acme_keeper(self.settings, keeper, pages, self._base, reactor, in_thread, may_order, others)

    def _expiries(self) -> Sequence[CertificateInfo]:
        return () if self.certificates is None else self.certificates.expiries()

    def _certificates(self) -> list[CertificateStatus]:
        """Return what operators see of the certificates."""
        return [CertificateStatus(*info) for info in self._expiries()]

    def _tell_warnings(self) -> None:
        for line in self._warnings:
            _log.warn("{warning}", warning=line)

    def _tell_where(self) -> None:
        """Log where the relay can be reached."""
        for text in self.settings.listen:
            _log.info("pyryrelay {version} listens on {endpoint}", version=__version__, endpoint=text)
        if self.settings.admin_listen:
            _log.info("metrics on {endpoint}", endpoint=self.settings.admin_listen)

    def upgrade(self) -> Deferred[UpgradeOutcome]:
        """Start another process that takes over. Only a process that runs nothing else can do that."""
        return succeed(UpgradeOutcome(error="this relay is part of another program: restart that program"))
