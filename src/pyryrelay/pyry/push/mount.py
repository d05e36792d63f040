"""Push wakes as the pyry protocol mounts them: what follows from the options, at the start and at every reload.

Every relay imports this module, and few send wakes: what only those need is imported by functions.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred

from pyryrelay.logger import UnfilteredLogger
from pyryrelay.protocol import Services
from pyryrelay.protocol_options import Check, Finding, Severity
from pyryrelay.pyry.push.credentials import CredentialsError, ServiceAccount
from pyryrelay.pyry.push.key_source import load_account
from pyryrelay.pyry.push.options import PushOptions

if TYPE_CHECKING:
    from pyryrelay.pyry.push.wakes import Target, WakeEvents, Wakes

_log = UnfilteredLogger(namespace="pyryrelay")

LIBRARIES: Final = ("treq", "jwt")
MAX_JITTER: Final = 1.25


LIBRARY: Final = Check("push-library", Severity.ERROR, "A library that push wakes need is not installed.")
CREDENTIALS: Final = Check(
    "push-credentials", Severity.ERROR, "The service-account key for push wakes is missing, open to others or unusable."
)
CHECKS: Final = (LIBRARY, CREDENTIALS)


def push_finding(options: PushOptions, base: Path) -> Finding | None:
    """Return what prevents push wakes with these options; None if nothing does."""
    if not options.push_credentials:
        return None
    if any(find_spec(name) is None for name in LIBRARIES):
        why = "it needs treq and PyJWT, which are not installed"
        return Finding(LIBRARY, "--push-credentials", why, "pip install 'pyryrelay[push]'")
    try:
        _usable(options, base)
    except CredentialsError as error:
        problem, _, fix = str(error).partition("; ")
        return Finding(CREDENTIALS, f"--push-credentials {options.push_credentials!r}", f"it {problem}", fix)
    return None


def _usable(options: PushOptions, base: Path) -> ServiceAccount:
    """Return the account, whose key can sign. Raises `CredentialsError`."""
    from pyryrelay.pyry.push.signing import Signer

    account = load_account(options.push_credentials, base)
    Signer(account)
    return account


class PushMount:
    """Sends wakes while the options say so: `wakes` is None while they do not.

    `in_force` has the account, the base URL, and whether binaries are told of dead tokens.
    """

    def __init__(self, services: Services, events: WakeEvents, wall: Callable[[], float] = time.time) -> None:
        self.wakes: Wakes | None = None
        self._services = services
        self._events = events
        self._wall = wall
        self.in_force: tuple[ServiceAccount, str, bool] | None = None
        self._sender: Wakes | None = None

    def configure(self, options: PushOptions) -> None:
        """Send wakes as these options say. Credentials that cannot be used are logged, and those before stay."""
        if not options.push_credentials:
            self._turn_off()
            return
        finding = push_finding(options, self._services.base)
        if finding is not None:
            _log.error("{warning}", warning=str(finding))
            return
        account = load_account(options.push_credentials, self._services.base)
        wanted = (account, options.push_url, options.push_feedback)
        if wanted == self.in_force:
            return
        self._turn_on(account, options)
        self.in_force = wanted

    def _turn_off(self) -> None:
        self.wakes = self.in_force = None

    def _turn_on(self, account: ServiceAccount, options: PushOptions) -> None:
        from pyryrelay.pyry.push.limits import WakeLimits
        from pyryrelay.pyry.push.wakes import Wakes

        services = self._services
        if self._sender is None:
            # One sender for the life of the relay, so that limits hold whatever is reloaded.
            self._sender = Wakes(self._events, WakeLimits(), services.now, services.call_later, _jitter)
        self._sender.target = self._target(account, options)
        self.wakes = self._sender
        _log.info("push wakes are sent to {endpoint}", endpoint=options.push_url)

    def _target(self, account: ServiceAccount, options: PushOptions) -> Target:
        from pyryrelay.pyry.push.access_tokens import AccessTokens
        from pyryrelay.pyry.push.requests import Requests
        from pyryrelay.pyry.push.signing import Signer
        from pyryrelay.pyry.push.wakes import Target

        services = self._services
        requests = Requests(services.agent(), services.call_later)
        tokens = AccessTokens(
            Signer(account), account.token_uri, requests, services.in_thread, services.now, self._wall, _fetch_failed
        )
        url = f"{options.push_url}/v1/projects/{account.project}/messages:send"
        return Target(url, tokens, requests, options.push_feedback)

    def stop(self) -> Deferred[None] | None:
        """Begin no more wakes; see `pyryrelay.pyry.push.wakes.Wakes.stop`."""
        return None if self._sender is None else self._sender.stop()


def _jitter() -> float:
    return random.uniform(1.0, MAX_JITTER)


def _fetch_failed(word: str, seconds: float) -> None:
    _log.error(
        "there is no access token for push wakes: {reason}; trying again after {seconds} s",
        reason=word,
        seconds=round(seconds),
    )
