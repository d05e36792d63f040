"""The certificates of ``--acme`` with several workers: the supervisor orders, all workers use and prove.

The authority asks any worker, so each of them answers every challenge. A worker that starts gets what the others have,
before it serves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from pyryrelay.acme.challenges import HttpChallenges
from pyryrelay.config.options.acme_options import ChallengeKind
from pyryrelay.workers.rpc import Rpc

if TYPE_CHECKING:
    from pyryrelay.listen.tls.certificates import CertificateStore

__all__ = ["CertificatesOfSupervisor", "CertificatesOfWorker"]

INSTALL: Final = "certificate"
CHALLENGE: Final = "challenge"


class Workers(Protocol):
    """What is used of a `pyryrelay.workers.supervisor.Supervisor`."""

    def tell(self, index: int, name: str, /, **body: object) -> None:
        """Send a message to one worker, if it is ready."""

    def tell_all(self, name: str, /, **body: object) -> None:
        """Send a message to all workers that are ready."""


class CertificatesOfSupervisor:
    """Passes on what an `AcmeKeeper` has; see `pyryrelay.acme.keeper.OtherProcesses`."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._certificates: dict[str, str] = {}
        self._challenges: dict[tuple[ChallengeKind, str], str] = {}

    def installed(self, name: str, pem: bytes) -> None:
        """Have all workers use this certificate."""
        self._certificates[name] = text = pem.decode("ascii")
        self._workers.tell_all(INSTALL, name=name, pem=text)

    def challenged(self, kind: ChallengeKind, key: str, text: str | None) -> None:
        """Have all workers answer a challenge, or no longer."""
        if text is None:
            self._challenges.pop((kind, key), None)
        else:
            self._challenges[kind, key] = text
        self._workers.tell_all(CHALLENGE, kind=kind, key=key, text=text)

    def tell(self, index: int) -> None:
        """Tell a worker that has started everything."""
        for name, pem in self._certificates.items():
            self._workers.tell(index, INSTALL, name=name, pem=pem)
        for (kind, key), text in self._challenges.items():
            self._workers.tell(index, CHALLENGE, kind=kind, key=key, text=text)


class CertificatesOfWorker:
    """Takes over what the supervisor passes on."""

    def __init__(self, rpc: Rpc, store: CertificateStore, http: HttpChallenges) -> None:
        self._store = store
        self._http = http
        rpc.on(INSTALL, self._install)
        rpc.on(CHALLENGE, self._challenge)

    def _install(self, body: Mapping[str, Any]) -> None:
        from pyryrelay.listen.tls.certificates import Certificate, CertificateError

        pem = body["pem"].encode("ascii")
        with contextlib.suppress(CertificateError):  # the supervisor has said so
            self._store.install(Certificate.from_pem(pem, pem, f"acme:{body['name']}"))

    def _challenge(self, body: Mapping[str, Any]) -> None:
        from pyryrelay.listen.tls.certificates import Certificate

        key, text = body["key"], body["text"]
        if body["kind"] != "http-01":
            pem = None if text is None else text.encode("ascii")
            self._store.challenge(key, None if pem is None else Certificate.from_pem(pem, pem, "challenge"))
        elif text is None:
            self._http.forget(key)
        else:
            self._http.answer(key, text)
