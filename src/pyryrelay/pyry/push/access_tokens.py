"""Access tokens for the push service: fetched with a signed assertion, and kept until shortly before they expire.

One token is fetched at a time, and all wakes wait for it. After a failure, nothing is fetched for some time, which
doubles with each failure in a row. Times are seconds on a monotonic clock, except for the ``wall`` clock, which an
assertion needs. No error and no log line contains a token, an assertion or what a service answered.

Source: RFC 7523 section 2.1, with the grant type that Google documents for service accounts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from math import inf
from typing import Any, Final
from urllib.parse import urlencode

from twisted.internet.defer import CancelledError, Deferred, fail, inlineCallbacks, succeed

from pyryrelay.pyry.push.outcomes import AccessToken, Answer, read_token
from pyryrelay.pyry.push.requests import RequestError, Requests
from pyryrelay.pyry.push.signing import Signer

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EARLY_S: Final = 300.0
"""How long before its end a token is replaced; for short-lived ones, a quarter of their lifetime."""
MIN_AGE_S: Final = 60.0
"""A token that is refused sooner is not replaced: another one would be refused as well."""
FIRST_PAUSE_S, MAX_PAUSE_S = 5.0, 300.0


class TokenError(Exception):
    """There is no access token; `word` says why."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class AccessTokens:
    """The access tokens of one service account.

    ``failed`` is called with a word and with the seconds until the next attempt.
    """

    def __init__(
        self,
        signer: Signer,
        token_uri: str,
        requests: Requests,
        in_thread: Callable[[Callable[[], Any]], Deferred[Any]],
        now: Callable[[], float],
        wall: Callable[[], float],
        failed: Callable[[str, float], None],
    ) -> None:
        self._signer = signer
        self._token_uri = token_uri
        self._requests = requests
        self._in_thread = in_thread
        self._now = now
        self._wall = wall
        self._failed = failed
        self._text = ""
        self._fetched_at = self._use_until = -inf
        self._retry_at = -inf
        self._pause_s = FIRST_PAUSE_S
        self._error = ""
        self._waiting: list[Deferred[str]] = []
        self._fetching: Deferred[None] | None = None

    def get(self) -> Deferred[str]:
        """Return a token. Fails with `TokenError`."""
        now = self._now()
        if now < self._use_until:
            return succeed(self._text)
        if now < self._retry_at:
            return fail(TokenError(self._error))
        waiter: Deferred[str] = Deferred()
        self._waiting.append(waiter)
        if self._fetching is None:
            self._fetching = fetching = self._fetch()
            fetching.addBoth(self._fetched)
        return waiter

    def forget(self, text: str) -> bool:
        """Do not use a token any more, because it was refused. Returns whether `get` would return another one."""
        if text != self._text:
            return True
        if self._now() - self._fetched_at < MIN_AGE_S:
            return False
        self._use_until = -inf
        return True

    def stop(self) -> None:
        """Fetch nothing any more; those that wait fail."""
        self._retry_at, self._error, self._use_until = inf, "stopping", -inf
        if self._fetching is not None:
            self._fetching.cancel()

    def _fetched(self, _: Any) -> None:
        """Tell all that wait, some of whom may have been cancelled."""
        self._fetching = None
        waiting, self._waiting = self._waiting, []
        has_token = self._now() < self._use_until
        for waiter in waiting:
            if has_token:
                waiter.callback(self._text)
            else:
                waiter.errback(TokenError(self._error))

    @inlineCallbacks
    def _fetch(self) -> Generator[Deferred[Any], Any, None]:
        try:
            assertion = yield self._in_thread(lambda: self._signer.assertion(self._wall()))
            answer: Answer = yield self._requests.post(
                self._token_uri,
                {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
                urlencode({"grant_type": GRANT_TYPE, "assertion": assertion}).encode("ascii"),
            )
            found = read_token(answer)
        except RequestError as error:
            found = error.word
        except CancelledError:
            return
        except Exception:
            # An error of the signing library may describe the key.
            found = "failed"
        self._take(found)

    def _take(self, found: AccessToken | str) -> None:
        """Keep a token, or a failure."""
        now = self._now()
        if isinstance(found, AccessToken):
            self._text, self._fetched_at = found.text, now
            self._use_until = now + found.lifetime_s - min(EARLY_S, found.lifetime_s / 4)
            self._pause_s = FIRST_PAUSE_S
            return
        self._error, self._retry_at = found, now + self._pause_s
        self._failed(found, self._pause_s)
        self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)
