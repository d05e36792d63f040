"""Send the wakes that binaries ask for.

A wake is sent at most twice: a second time with a new access token if the first one was refused, or some time after an
error of the service, or at once if the connection was lost. What fails then is given up; the binary asks again when it
has more for the phone. A wake, with its token, is kept only as long as it takes. Times are seconds.

FCM asks for a minute of silence after 429, or for what Retry-After says: then wakes are dropped for so long. It asks
for 10 s before a wake is repeated after a 5xx.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks

from pyryrelay.protocol import Cancellable
from pyryrelay.pyry.envelope import PushWake
from pyryrelay.pyry.push.access_tokens import AccessTokens, TokenError
from pyryrelay.pyry.push.limits import Drop, WakeLimits
from pyryrelay.pyry.push.outcomes import Next, Outcome, Verdict, judge
from pyryrelay.pyry.push.requests import LOST, RequestError, Requests

STOP_S: Final = 3.0
"""How long wakes that are being sent may take when the relay stops."""


class WakeEvents(Protocol):
    """What happens to wakes, for log and metrics. No argument contains a token."""

    def wake_ended(self, server_id: str, outcome: Outcome, reason: str, connection: int) -> None:
        """Report what became of a wake that ``connection`` asked for."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where wakes go: the URL of the project, and the access tokens for it."""

    url: str
    tokens: AccessTokens
    requests: Requests
    is_reported: bool
    """Whether binaries are told of dead tokens."""


@dataclass(slots=True, eq=False)
class _Wake:
    """A wake that is being sent."""

    server_id: str
    connection: int
    body: bytes = field(repr=False)
    report_dead: Callable[[], None] = field(repr=False)
    running: Deferred[Any] | None = None


class Wakes:
    """The wakes of one relay. ``jitter`` returns a random factor for pauses, from 1 on."""

    def __init__(
        self,
        events: WakeEvents,
        limits: WakeLimits,
        now: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Cancellable],
        jitter: Callable[[], float],
    ) -> None:
        self.target: Target | None = None
        self._events = events
        self._limits = limits
        self._now = now
        self._call_later = call_later
        self._jitter = jitter
        self._sending: set[_Wake] = set()
        self._is_stopping = False
        self._idle: Deferred[None] | None = None
        self._stop_timer: Cancellable | None = None

    def wake(self, server_id: str, wake: PushWake, connection: int, report_dead: Callable[[], None]) -> None:
        """Send a wake, or drop it. ``report_dead`` is called if its token turns out to be dead."""
        drop: Drop | None = Drop.STOPPING
        if not self._is_stopping and self.target is not None:
            drop = self._limits.begin(server_id, wake.platform, wake.token, self._now())
        if drop is not None or self.target is None:
            self._events.wake_ended(server_id, Outcome.DROPPED, str(drop), connection)
            return
        sending = _Wake(server_id, connection, _body(wake.token), report_dead)
        self._sending.add(sending)
        sending.running = running = self._send(sending, self.target)
        running.addBoth(self._ended, sending)

    def stop(self) -> Deferred[None] | None:
        """Begin no more wakes. The Deferred fires when those that are being sent have ended, or after `STOP_S`."""
        self._is_stopping = True
        if not self._sending:
            return None
        self._idle = Deferred()
        self._stop_timer = self._call_later(STOP_S, self._cancel_all)
        return self._idle

    def _cancel_all(self) -> None:
        self._stop_timer = None
        for wake in list(self._sending):
            if wake.running is not None:
                wake.running.cancel()
        if self.target is not None:
            self.target.tokens.stop()

    def _ended(self, result: Verdict | Any, wake: _Wake) -> None:
        """Count and log a wake. Nothing of an unexpected failure is logged, because it may quote the request."""
        self._limits.end()
        self._sending.discard(wake)
        verdict = result if isinstance(result, Verdict) else Verdict(Outcome.SEND_FAILED, "failed")
        self._events.wake_ended(wake.server_id, verdict.outcome, verdict.reason, wake.connection)
        if self._idle is not None and not self._sending:
            idle, self._idle = self._idle, None
            if self._stop_timer is not None:
                self._stop_timer.cancel()
            idle.callback(None)

    @inlineCallbacks
    def _send(self, wake: _Wake, target: Target) -> Generator[Deferred[Any], Any, Verdict]:
        try:
            verdict: Verdict
            verdict, token = yield self._attempt(wake, target)
            if verdict.then is Next.REPEAT:
                yield self._sleep(verdict.after_s * self._jitter())
                verdict, _ = yield self._attempt(wake, target)
            elif verdict.then is Next.NEW_TOKEN and target.tokens.forget(token):
                verdict, _ = yield self._attempt(wake, target)
        except TokenError as error:
            return Verdict(Outcome.TOKEN_FETCH_FAILED, error.word)
        except CancelledError:
            return Verdict(Outcome.DROPPED, Drop.STOPPING)
        if verdict.then is Next.PAUSE:
            self._limits.pause(verdict.after_s, self._now())
        if verdict.outcome is Outcome.UNREGISTERED and target.is_reported:
            wake.report_dead()
        return verdict

    @inlineCallbacks
    def _attempt(self, wake: _Wake, target: Target) -> Generator[Deferred[Any], Any, tuple[Verdict, str]]:
        token = yield target.tokens.get()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": "application/json"}
        try:
            answer = yield target.requests.post(target.url, headers, wake.body)
        except RequestError as error:
            then = Next.REPEAT if error.word == LOST else Next.NOTHING
            return Verdict(Outcome.SEND_FAILED, error.word, then), token
        return judge(answer), token

    def _sleep(self, seconds: float) -> Deferred[None]:
        """Wait; the Deferred can be cancelled."""
        slept: Deferred[None] = Deferred(lambda _: timer.cancel())
        timer = self._call_later(seconds, lambda: slept.callback(None))
        return slept


def _body(token: str) -> bytes:
    """Return the request that wakes a phone: no data and no notification (specification, "Push wakes")."""
    return msgspec.json.encode({"message": {"token": token, "android": {"priority": "HIGH"}}})
