"""Automatic certificates: what keeps the relay from getting, keeping or using them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from pyryrelay.acme.cache import problem_of
from pyryrelay.config.endpoints import Endpoint
from pyryrelay.config.settings import SharedSettings
from pyryrelay.preflight.account import Account
from pyryrelay.preflight.checks import ACME_CACHE, ACME_LIBRARY, ACME_UNUSED
from pyryrelay.protocol_options import Finding

__all__ = ["automatic_certificates"]

_LIBRARY: Final = "acme"


def automatic_certificates(settings: SharedSettings, base: Path, account: Account) -> Iterator[Finding]:
    """Find that a certificate would be of no use, or that it cannot be had. Relative paths start at ``base``."""
    if not settings.acme:
        return
    what = f"--acme {' '.join(settings.acme)!r}"
    if not any(Endpoint.parse(text).scheme == "ssl" for text in settings.listen):
        yield Finding(ACME_UNUSED, what, "no ssl: endpoint would use the certificate", "add --listen ssl:443")
    if find_spec(_LIBRARY) is None:
        why = f"it needs the package {_LIBRARY}, which is not installed"
        yield Finding(ACME_LIBRARY, what, why, "pip install 'pyryrelay[acme]'")
    what, folder = f"--acme-cache {settings.acme_cache!r}", base / settings.acme_cache
    existing = next((each for each in (folder, *folder.parents) if each.exists()), base)
    if (problem := problem_of(folder)) is not None:
        yield Finding(ACME_CACHE, what, *problem)
    elif not account.may_write(existing):
        why = f"user {account.name} may not write to {str(existing)!r}"
        yield Finding(ACME_CACHE, what, why, f"create it for that user: install -d -m 700 -o {account.name} {folder}")
