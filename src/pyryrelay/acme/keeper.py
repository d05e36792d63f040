"""Keeps the certificates of ``--acme`` valid: those of the folder at the start, new ones long before they expire.

One child process works at a time, for one name. A certificate that cannot be renewed stays in use, and the renewal is
tried again. Nothing here ends the relay. Points in time are seconds since 1970, looked at once in `LOOK_S`, so that a
machine that slept, or whose clock was set, does what is due.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay.acme.cache import CacheError, CertificateCache
from pyryrelay.acme.challenges import HttpChallenges
from pyryrelay.acme.metrics import NO_ORDERS
from pyryrelay.acme.schedule import ASK_AGAIN_S, asked_renewal_at, renewal_at, retry_after_s
from pyryrelay.acme.wire import (
    Answered,
    AskWindow,
    Challenge,
    Failed,
    Issued,
    Order,
    Reply,
    Request,
    Window,
    encode,
    read_reply,
)
from pyryrelay.config.options.acme_options import ChallengeKind, challenge_kinds, directory_url
from pyryrelay.config.settings import SharedSettings
from pyryrelay.listen.tls.certificates import Certificate, CertificateError, CertificateStore
from pyryrelay.protocol import Cancellable, Child, ChildStarter, Page
from pyryrelay.runtime.periodic import Periodic

__all__ = ["CHILD", "LOOK_S", "AcmeConfig", "AcmeKeeper", "Environment", "OtherProcesses"]

_log = Logger(namespace="pyryrelay")

CHILD: Final = ("-m", "pyryrelay.acme.child")
LOOK_S: Final = 10.0
"""How often to look what is due."""
CHILD_S: Final = 300.0
"""How long a child may work on one request; it is killed then."""


@dataclass(frozen=True, slots=True)
class AcmeConfig:
    """What to keep: the names, the URL of the authority's directory, an address or "", and how names are proven."""

    names: tuple[str, ...]
    directory: str
    email: str
    kinds: tuple[ChallengeKind, ...]


@dataclass(frozen=True, slots=True)
class Environment:
    """What the keeper needs of the relay: clocks, chance, children, and a thread for files.

    While ``accepts`` returns False, another process has the listeners, and answers the challenges of its own orders.
    """

    wall_now: Callable[[], float]
    call_later: Callable[[float, Callable[[], None]], Cancellable]
    chance: Callable[[], float]
    start_child: ChildStarter
    in_thread: Callable[[Callable[[], Any]], Deferred[Any]]
    accepts: Callable[[], bool] = lambda: True


class OtherProcesses(Protocol):
    """Processes that use the certificates, and answer the authority, too."""

    def installed(self, name: str, pem: bytes) -> None:
        """Use this certificate, with its key."""

    def challenged(self, kind: ChallengeKind, key: str, text: str | None) -> None:
        """Answer a challenge with a text, or no longer. The key is a token, or the name for ``tls-alpn-01``."""


class Alone:
    """There are no other processes."""

    def installed(self, name: str, pem: bytes) -> None:
        """Do nothing."""

    def challenged(self, kind: ChallengeKind, key: str, text: str | None) -> None:
        """Do nothing."""


class Cache(Protocol):
    """The part of `CertificateCache` that is needed here."""

    def prepare(self) -> None: ...

    def account(self) -> str: ...

    def save_account(self, account: str) -> None: ...

    def certificate(self, name: str) -> bytes | None: ...

    def save_certificate(self, name: str, pem: bytes) -> None: ...


@dataclass(slots=True)
class _Name:
    """What is known about one name."""

    name: str
    certificate: Certificate | None = None
    renew_at: float = 0.0
    """When to order: 0 for a name without a certificate."""
    ask_at: float = 0.0
    """When to ask the authority about `renew_at`."""
    failures: int = 0
    """Orders that failed in a row."""

    @property
    def source(self) -> str:
        return f"acme:{self.name}"


@dataclass(slots=True)
class _Job:
    """What the child works on."""

    name: _Name
    is_order: bool
    child: Child
    deadline: Cancellable
    challenges: list[Challenge]
    reply: Reply | None = None


class AcmeKeeper:
    """See the module's docstring. `orders` counts orders by outcome, ``issued`` and ``failed``."""

    def __init__(
        self,
        config: AcmeConfig,
        store: CertificateStore,
        http: HttpChallenges,
        cache: Cache,
        environment: Environment,
    ) -> None:
        self._config = config
        self._store = store
        self._http = http
        self._cache = cache
        self._environment = environment
        self._names: list[_Name] = []
        self._job: _Job | None = None
        self._is_stopped = False
        self.orders = dict(NO_ORDERS)
        self.others: OtherProcesses = Alone()

    @classmethod
    def of(
        cls,
        settings: SharedSettings,
        store: CertificateStore,
        pages: MutableMapping[str, Callable[[], Page]],
        base: Path,
        environment: Environment,
    ) -> AcmeKeeper:
        """Return the keeper that settings ask for.

        ``store`` is that of the ``ssl:`` endpoints, and ``pages`` are those of the plain ones. Relative names start at
        ``base``.
        """
        directory = directory_url(settings.acme_directory)
        config = AcmeConfig(settings.acme, directory, settings.acme_email, challenge_kinds(settings.listen))
        cache = CertificateCache(base / settings.acme_cache, directory)
        return cls(config, store, HttpChallenges(pages), cache, environment)

    # What there is

    def load(self) -> None:
        """Use the certificates of the folder. Call this when the process has its user. Blocks."""
        try:
            self._cache.prepare()
        except CacheError as error:
            _log.error("{warning}", warning=f"--acme-cache: {error}. Certificates are lost at the next restart")
        self._names = [self._loaded(name) for name in self._config.names]

    def start(self, periodic: Periodic) -> None:
        """Load, and begin to look what is due."""
        self.load()
        self._environment.call_later(0, self.look)
        periodic.every(LOOK_S, self.look)

    def _loaded(self, name: str) -> _Name:
        found = _Name(name)
        pem = self._cache.certificate(name)
        if pem is not None:
            try:
                self._use(found, pem)
            except CertificateError as error:
                _log.warn("{warning}", warning=f"the certificate of {name} in --acme-cache {error}; ordering another")
        return found

    def _use(self, name: _Name, pem: bytes) -> None:
        """Install a certificate, and plan its renewal. Raises `CertificateError`."""
        certificate = Certificate.from_pem(pem, pem, name.source)
        if name.name not in certificate.names:
            raise CertificateError("is of other names", "name another authority with --acme-directory")
        current, now = name.certificate, self._environment.wall_now()
        if certificate.expires_at <= now and current is not None and current.expires_at > now:
            raise CertificateError("has expired, and the old one has not", "set the clock of this machine")
        self._store.install(certificate)
        self.others.installed(name.name, pem)
        name.certificate = certificate
        chance = self._environment.chance()
        name.renew_at = renewal_at(certificate.begins_at, certificate.expires_at, chance)
        name.ask_at = 0.0

    # What is due

    def look(self) -> None:
        """Begin what is due, if no child works. Call this every `LOOK_S`."""
        if self._job is not None or self._is_stopped or not self._environment.accepts():
            return
        now = self._environment.wall_now()
        due = [name for name in self._names if name.renew_at <= now]
        if due:
            name = min(due, key=lambda each: (each.certificate is not None, each.renew_at))
            self._begin(name, self._order(name))
            return
        for name in self._names:
            if name.ask_at <= now and name.certificate is not None and name.failures == 0:
                name.ask_at = now + ASK_AGAIN_S
                pem = name.certificate.chain[0].public_bytes(Encoding.PEM).decode("ascii")
                self._begin(name, AskWindow(self._config.directory, pem))
                return

    def _order(self, name: _Name) -> Order:
        config = self._config
        # What failed may be the way in which the name is proven: take another one each time.
        turn = name.failures % len(config.kinds)
        kinds = (*config.kinds[turn:], *config.kinds[:turn])
        return Order(config.directory, name.name, config.email, kinds, self._cache.account())

    def _begin(self, name: _Name, request: Request) -> None:
        environment = self._environment
        child = environment.start_child(CHILD, self._received, self._ended)
        self._job = _Job(name, isinstance(request, Order), child, environment.call_later(CHILD_S, child.kill), [])
        child.send(encode(request))

    # What the child says

    def _received(self, body: bytes) -> None:
        job = self._job
        if job is None or self._is_stopped:
            return
        try:
            reply = read_reply(body)
            if isinstance(reply, Challenge):
                self._answer(job, reply)
                job.child.send(encode(Answered()))
            else:
                job.reply = reply
        except (msgspec.MsgspecError, CertificateError):
            job.child.kill()

    def _answer(self, job: _Job, challenge: Challenge) -> None:
        job.challenges.append(challenge)
        self.others.challenged(challenge.kind, key_of(challenge), challenge.text)
        if challenge.kind == "http-01":
            self._http.answer(challenge.token, challenge.text)
        else:
            pem = challenge.text.encode("ascii")
            self._store.challenge(challenge.name, Certificate.from_pem(pem, pem, "challenge"))

    def _ended(self, outcome: str) -> None:
        job, self._job = self._job, None
        if job is None:
            return
        job.deadline.cancel()
        for challenge in job.challenges:
            self.others.challenged(challenge.kind, key_of(challenge), None)
            if challenge.kind == "http-01":
                self._http.forget(challenge.token)
            else:
                self._store.challenge(challenge.name, None)
        if not self._is_stopped:
            self._settle(job, job.reply or Failed(f"the child process ended with {outcome}"))

    def _settle(self, job: _Job, reply: Reply) -> None:
        name = job.name
        match reply:
            case Issued():
                self._issued(name, reply)
            case Window():
                self._asked(name, reply)
            case Failed():
                self._save_account(reply.account)
                if job.is_order:  # otherwise the question is asked again later
                    self._failed(name, reply.problem)

    def _issued(self, name: _Name, reply: Issued) -> None:
        pem = reply.pem.encode("ascii")
        try:
            self._use(name, pem)
        except CertificateError as error:
            self._failed(name, f"the certificate that was issued {error}")
            return
        self._save_account(reply.account)
        self._save(lambda: self._cache.save_certificate(name.name, pem))
        if name.renew_at <= self._environment.wall_now():
            # It is used all the same: if the clock is wrong, clients know better.
            self._failed(name, "the certificate that was issued is old already; check the clock of this machine")
            return
        self.orders["issued"] += 1
        name.failures = 0
        _log.info("certificate of {kind} issued by ACME", kind=name.name)
        self._environment.call_later(0, self.look)  # others need not wait

    def _failed(self, name: _Name, problem: str) -> None:
        self.orders["failed"] += 1
        name.failures += 1
        wait_s = retry_after_s(name.failures, self._environment.chance())
        name.renew_at = self._environment.wall_now() + wait_s
        _log.warn(
            "no certificate of {kind} from ACME: {warning}; trying again in {seconds} s",
            kind=name.name,
            warning=problem,
            seconds=round(wait_s),
        )

    def _asked(self, name: _Name, reply: Window) -> None:
        name.ask_at = max(reply.ask_again_at, self._environment.wall_now() + LOOK_S)
        if reply.renew_at is not None and name.certificate is not None:
            begins_at, expires_at = name.certificate.begins_at, name.certificate.expires_at
            name.renew_at = asked_renewal_at(reply.renew_at, begins_at, expires_at)

    def _save_account(self, account: str) -> None:
        if account:
            self._save(lambda: self._cache.save_account(account) if self._cache.account() != account else None)

    def _save(self, write: Callable[[], None]) -> None:
        self._environment.in_thread(write).addErrback(_not_saved)

    def stop(self) -> None:
        """End the child, and begin nothing more."""
        self._is_stopped = True
        if self._job is not None:
            self._job.child.kill()


def key_of(challenge: Challenge) -> str:
    """Return what the authority asks for: a token, or a name."""
    return challenge.token if challenge.kind == "http-01" else challenge.name


def _not_saved(failure: Failure) -> None:
    reason = getattr(failure.value, "strerror", None) or type(failure.value).__name__
    _log.error("{warning}", warning=f"--acme-cache cannot be written ({reason}); the relay goes on without it")
