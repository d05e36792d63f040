"""The certificates of ``ssl:`` endpoints: whether clients accept them, and who can use their keys.

Files that cannot be used are not found here: they prevent the start before anything is inspected.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyryrelay.config.certificate_options import EXPIRES_SOON_DAYS
from pyryrelay.config.settings import SharedSettings
from pyryrelay.preflight.checks import CERTIFICATE, CERTIFICATE_EXPIRES, READABLE_SECRET, UNUSED_CERTIFICATE
from pyryrelay.protocol_options import Finding

if TYPE_CHECKING:
    from pyryrelay.listen.tls.certificate_files import CertificateFile

__all__ = ["certificates"]

_REFUSED: Final = "clients refuse to connect"


def certificates(settings: SharedSettings, base: Path, now: datetime.datetime) -> Iterator[Finding]:
    """Find what is wrong with certificates that can be used."""
    if not settings.tls_endpoints:
        if settings.certificate:
            what = f"--certificate {settings.certificate[0].text!r}"
            yield Finding(UNUSED_CERTIFICATE, what, "no endpoint speaks TLS", "add --listen ssl:443, or remove it")
        return
    # Most relays leave TLS to a proxy, and need not have OpenSSL.
    from pyryrelay.listen.tls.file_watch import CertificateFiles

    files = CertificateFiles(settings.certificate, settings.tls_endpoints, base, has_others=bool(settings.acme))
    for text, file in files.files():
        if text is None:
            what = f"--certificate {file.source!r}:"
        else:
            option = "listen" if text in settings.listen else "admin-listen"
            what = f"--{option} {text!r}: the certificate in {file.source!r}"
        yield from _validity(what, file, now)
        warning = file.group_problem()
        if warning is not None:
            yield Finding(READABLE_SECRET, what.partition(": ")[0].rstrip(":"), warning.problem, warning.fix)


def _validity(what: str, file: CertificateFile, now: datetime.datetime) -> Iterator[Finding]:
    """Find that clients refuse a certificate, or soon will."""
    from pyryrelay.listen.tls.certificates import CertificateError

    try:
        leaf = file.read().chain[0]
    except CertificateError:
        return
    start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if now >= end:
        yield Finding(CERTIFICATE, f"{what} expired on {end:%Y-%m-%d}", _REFUSED, "renew it")
    elif now < start:
        state = f"is not valid before {start:%Y-%m-%d %H:%M} UTC"
        yield Finding(CERTIFICATE, f"{what} {state}", _REFUSED, "check the clock of the machine")
    elif end - now < datetime.timedelta(days=EXPIRES_SOON_DAYS):
        # A note: even with --production a relay must be able to restart meanwhile. The running one warns every day.
        text = f"{what} expires on {end:%Y-%m-%d}"
        yield Finding(CERTIFICATE_EXPIRES, text, "clients will refuse to connect", "renew it")
