"""The certificates of ``ssl:`` endpoints: whether clients accept them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pyryrelay.config.endpoints import Endpoint, tls_files
from pyryrelay.preflight.checks import CERTIFICATE
from pyryrelay.protocol_options import Finding

__all__ = ["EXPIRES_SOON", "certificate"]

EXPIRES_SOON: Final = datetime.timedelta(days=14)
_REFUSED: Final = "clients refuse to connect"


def certificate(option: str, text: str, base: Path, now: datetime.datetime) -> Iterator[Finding]:
    """Find that clients refuse the certificate of an ``ssl:`` endpoint, or soon will."""
    if Endpoint.parse(text).scheme != "ssl":
        return
    from cryptography.x509 import load_pem_x509_certificate

    files = tls_files(text)
    try:
        read = load_pem_x509_certificate((base / files.certificate).read_bytes())
    except (OSError, ValueError):
        return  # reported elsewhere: the endpoint cannot be used
    start, end = read.not_valid_before_utc, read.not_valid_after_utc
    what = f"--{option} {text!r}: the certificate in {files.certificate!r}"
    if now >= end:
        yield Finding(CERTIFICATE, f"{what} expired on {end:%Y-%m-%d}", _REFUSED, "renew it")
    elif now < start:
        state = f"is not valid before {start:%Y-%m-%d %H:%M} UTC"
        yield Finding(CERTIFICATE, f"{what} {state}", _REFUSED, "check the clock of the machine")
    elif end - now < EXPIRES_SOON:
        yield Finding(CERTIFICATE, f"{what} expires on {end:%Y-%m-%d}", "clients will refuse to connect", "renew it")
