"""The certificates of ``ssl:`` endpoints, for relays that have some. Most leave TLS to a proxy, and need no OpenSSL."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, MutableMapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from pyryrelay.config.settings import SharedSettings
from pyryrelay.protocol import Page
from pyryrelay.runtime.child_process import start_child
from pyryrelay.workers.rpc import Rpc

if TYPE_CHECKING:
    from pyryrelay.acme.keeper import AcmeKeeper, OtherProcesses
    from pyryrelay.listen.tls.keeper import CertificateKeeper

__all__ = ["acme_keeper", "acme_of_worker", "certificate_keeper", "prepare_certificates"]

InThread = Callable[[Callable[[], Any]], Deferred[Any]]


def certificate_keeper(
    settings: SharedSettings, base: Path, in_thread: InThread, *, speaks: bool = True
) -> CertificateKeeper | None:
    """Read the certificates of the ``ssl:`` endpoints; None if there are none. Raises `CertificateError`.

    Unless the keeper ``speaks``, another process logs what happens to them.
    """
    endpoints = settings.tls_endpoints
    if not endpoints:
        return None
    from pyryrelay.listen.tls.file_watch import CertificateFiles
    from pyryrelay.listen.tls.keeper import CertificateKeeper

    files = CertificateFiles(settings.certificate, endpoints, base, has_others=bool(settings.acme))
    files.load()
    return CertificateKeeper(files, time.time, in_thread, speaks=speaks)


def prepare_certificates(keeper: CertificateKeeper | None, settings: SharedSettings) -> Callable[[], None]:
    """Read the certificates that a reload adds; see `pyryrelay.reload.Reloader`."""
    if keeper is None:
        return lambda: None
    from pyryrelay.listen.tls.certificates import CertificateError

    try:
        return keeper.prepare(settings.certificate)
    except CertificateError as error:
        raise settings.error("certificate", error.problem, error.fix) from None


def acme_keeper(
    settings: SharedSettings,
    keeper: CertificateKeeper | None,
    pages: MutableMapping[str, Callable[[], Page]],
    base: Path,
    reactor: Any,
    in_thread: InThread,
    may_order: Callable[[], bool],
    others: OtherProcesses | None = None,
) -> AcmeKeeper | None:
    """Return what keeps the certificates of ``--acme``; None if there are none. It orders while ``may_order``.

    ``others`` are processes that use its certificates, and answer the authority, too.
    """
    if keeper is None or not settings.acme:
        return None
    from pyryrelay.acme.keeper import AcmeKeeper, Environment

    start = partial(start_child, reactor)
    environment = Environment(time.time, reactor.callLater, random.random, start, in_thread, may_order)
    found = AcmeKeeper.of(settings, keeper.store, pages, base, environment)
    if others is not None:
        found.others = others
    return found


def acme_of_worker(
    rpc: Rpc, keeper: CertificateKeeper | None, pages: MutableMapping[str, Callable[[], Page]], *, is_used: bool
) -> None:
    """Use the certificates that the supervisor orders, if there are ``--acme`` names."""
    if keeper is None or not is_used:
        return
    from pyryrelay.acme.challenges import HttpChallenges
    from pyryrelay.workers.certificates import CertificatesOfWorker

    CertificatesOfWorker(rpc, keeper.store, HttpChallenges(pages))
