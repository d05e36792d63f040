"""The certificates of a running relay: taken over from files, reminded of, and told to metrics.

Everything runs in the reactor's thread; files are read in another one. Times are seconds since 1970.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay.config.certificate_options import EXPIRES_SOON_DAYS, CertificatePlace
from pyryrelay.listen.tls.certificates import CertificateInfo, CertificateStore
from pyryrelay.listen.tls.file_watch import CertificateFiles, Found
from pyryrelay.runtime.periodic import Periodic

__all__ = ["LOOK_S", "REMIND_S", "RENEW_TICKET_KEYS_S", "CertificateKeeper", "expiry_problem"]

LOOK_S: Final = 2.0
"""How often files are looked at."""
REMIND_S: Final = 3600.0
"""How often it is looked whether a certificate expires soon."""
RENEW_TICKET_KEYS_S: Final = 43_200.0
"""How long a key of session tickets is used; tickets are valid for two hours."""
_DAY_S: Final = 86_400.0
_EARLY_S: Final = 600.0
"""So much of a day may be missing between two reminders, which do not come exactly on time."""

_log = Logger(namespace="pyryrelay")


def expiry_problem(expires_at: float, now: float) -> str | None:
    """Return what is wrong with a certificate that has expired or soon will, as the end of a sentence."""
    date = datetime.datetime.fromtimestamp(expires_at, datetime.UTC)
    if now >= expires_at:
        return f"expired on {date:%Y-%m-%d}: clients refuse to connect; renew it"
    return f"expires on {date:%Y-%m-%d}; renew it" if expires_at - now < EXPIRES_SOON_DAYS * _DAY_S else None


class CertificateKeeper:
    """See the module's docstring. ``clock`` is the wall clock, and ``in_thread`` makes a call in a thread.

    Unless it ``speaks``, it logs nothing, because another process with the same files does.
    """

    def __init__(
        self,
        files: CertificateFiles,
        clock: Callable[[], float],
        in_thread: Callable[[Callable[[], Any]], Deferred[Any]],
        *,
        speaks: bool = True,
    ) -> None:
        self.files = files
        self._speaks = speaks
        self._clock = clock
        self._in_thread = in_thread
        self._is_looking = False
        self._reminded: dict[tuple[str, float], float] = {}

    @property
    def store(self) -> CertificateStore:
        """The certificates of all endpoints. Others than those from files may be put into it."""
        return self.files.store

    def expiries(self) -> Sequence[CertificateInfo]:
        """Return what there is to tell of all certificates."""
        return self.store.expiries()

    def start(self, periodic: Periodic) -> None:
        """Begin to look and to remind. The operator has just been told of those that have expired."""
        now = self._clock()
        self._reminded = {(info.source, info.expires_at): now for info in self.expiries() if info.expires_at <= now}
        self.remind()
        periodic.every(LOOK_S, self.look)
        periodic.every(REMIND_S, self.remind)
        periodic.every(RENEW_TICKET_KEYS_S, self.store.renew_ticket_keys)

    def prepare(self, places: Sequence[CertificatePlace]) -> Callable[[], None]:
        """Read new certificates for a reload, and return what takes them into use. Blocks. Raises `CertificateError`.

        Files of the others are looked at again after that.
        """
        prepared = self.files.prepare(places)

        def adopt() -> None:
            self.files.adopt(prepared)
            self.look()

        return adopt

    def look(self) -> Deferred[None]:
        """Take over the certificates whose files have changed, unless a look is under way."""
        if self._is_looking or not self.files:
            return succeed(None)
        self._is_looking = True
        return self._in_thread(partial(self.files.look, self._clock())).addCallbacks(self._take, self._failed)

    def _take(self, found: Found) -> None:
        self._is_looking = False
        for store, certificate in found.certificates:
            if certificate.source not in store:
                continue  # a reload has removed it meanwhile
            store.install(certificate)
            if not self._speaks:
                continue
            date = datetime.datetime.fromtimestamp(certificate.expires_at, datetime.UTC)
            _log.info(
                "took over a new certificate of {names}, which expires on {date}",
                names=", ".join(certificate.names),
                date=f"{date:%Y-%m-%d}",
            )
        for line in found.warnings if self._speaks else ():
            _log.warn("{warning}", warning=line)

    def _failed(self, failure: Failure) -> None:
        self._is_looking = False
        _log.failure("Periodic work failed", failure)

    def remind(self) -> None:
        """Warn of each certificate that has expired or soon will, once a day."""
        if not self._speaks:
            return
        now, before = self._clock(), self._reminded
        self._reminded = {}
        for info in self.expiries():
            problem = expiry_problem(info.expires_at, now)
            if problem is None:
                continue
            key = info.source, info.expires_at
            last = before.get(key)
            if last is not None and 0 <= now - last < _DAY_S - _EARLY_S:
                self._reminded[key] = last
                continue
            self._reminded[key] = now
            names = ", ".join(info.names)
            _log.warn("{warning}", warning=f"the certificate of {names} from {info.source!r} {problem}")
