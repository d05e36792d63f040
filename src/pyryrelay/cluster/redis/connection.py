"""One connection to a Redis server: commands out, answers in, strictly in order (RESP2).

What is written in one turn of the reactor leaves together. The oldest command that waits has a deadline; if its answer
does not come in time, the connection is aborted, because an answer that came later would be taken for that of the next
command. So it is if an answer is longer than any that the relay asks for.

A process that was kept busy, or got no processor, looks at its timers before it reads. So what has come meanwhile
is read before the server is blamed, unless it is `LATE_S` old by then. Times are seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import hiredis
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from pyryrelay.cluster.redis.interface import CALL_TIMEOUT_S, AnswerError, Argument, DownError
from pyryrelay.cluster.redis.tls_words import CLOSED_AT_ONCE, NO_TLS, words_of_tls

__all__ = ["MAX_ANSWER_BYTES", "MAX_WAITING", "Connection", "Surroundings"]

MAX_WAITING: Final = 20_000
"""Commands that may wait for their answers; what comes on top fails at once."""
LATE_S: Final = 2.0
"""How old an answer may be when it is read. Leases live longer than this by far."""
MAX_ANSWER_BYTES: Final = 64 * 1_048_576
"""How long an answer may be. Those who can write to the server could have it send anything."""

_MORE: Final = object()
"""In the place of an answer that has not arrived; False may be one."""


class Surroundings(Protocol):
    """What a connection needs of the process."""

    def now(self) -> float:
        """Return the monotonic clock."""

    def call_later(self, delay_s: float, call: Callable[[], object]) -> IDelayedCall:
        """Make a call later."""


class Connection(TwistedProtocol):
    """One connection. ``answered`` is told how long each answer took, ``lost`` why the connection ended, once.

    ``timeout_s`` is the deadline of each command. `tls_problem` says why a connection with TLS is not
    secured; it is "" for those that are, or need not be, and None for those that might lack TLS.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        answered: Callable[[float], object],
        lost: Callable[[str], object],
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        self.is_open = False
        self.tls_problem: str | None = None
        self._timeout_s = timeout_s
        self._unfinished_bytes = 0
        self._has_answered = False
        self._surroundings = surroundings
        self._answered = answered
        self._lost = lost
        self._reader = hiredis.Reader(protocolError=DownError, replyError=AnswerError, notEnoughData=_MORE)
        self._waiting: deque[tuple[float, Deferred[Any]]] = deque()
        self._timer: IDelayedCall | None = None
        self._is_late = self._has_received = False
        """Whether the oldest command has waited too long, and whether something came after that was seen."""
        self._reason = ""

    def connectionMade(self) -> None:
        """Begin. Answers are small, and must not wait for more."""
        self.is_open = True
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)

    @property
    def waiting(self) -> int:
        """The number of commands that wait for their answers."""
        return len(self._waiting)

    def send(self, words: tuple[Argument, ...]) -> Deferred[Any]:
        """Send one command; the Deferred fires with its answer."""
        if not self.is_open:
            return fail(DownError(self._reason or "the connection has ended"))
        if len(self._waiting) >= MAX_WAITING:
            return fail(DownError(f"{MAX_WAITING} commands wait already"))
        assert self.transport is not None
        self.transport.write(hiredis.pack_command(words))  # type: ignore[arg-type]  # any number of words
        answer: Deferred[Any] = Deferred()
        self._waiting.append((self._surroundings.now(), answer))
        if self._timer is None:
            self._timer = self._surroundings.call_later(self._timeout_s, self._look)
        return answer

    def _look(self) -> None:
        """Abort if the oldest command has waited too long and nothing comes any more; else look again."""
        self._timer = None
        if not self._waiting:
            return
        sent_at, now = self._waiting[0][0], self._surroundings.now()
        left_s = sent_at + self._timeout_s - now
        if left_s > 0:
            self._is_late = False
            self._timer = self._surroundings.call_later(left_s, self._look)
        elif (self._has_received or not self._is_late) and now < sent_at + max(self._timeout_s, LATE_S):
            self._is_late, self._has_received = True, False
            self._timer = self._surroundings.call_later(0, self._look)
        else:
            self.abort(self.tls_problem or f"no answer in {self._timeout_s:g} s")

    def dataReceived(self, data: bytes) -> None:
        """Give each answer to the command that has waited longest."""
        self._has_received = True
        try:
            self._reader.feed(data)
            self._unfinished_bytes += len(data)
            while self.is_open and (answer := self._next()) is not _MORE:
                self._unfinished_bytes = 0
                self._give(answer)
            if self._unfinished_bytes > MAX_ANSWER_BYTES:
                self.abort(f"an answer has more than {MAX_ANSWER_BYTES} bytes")
        except DownError as error:
            self.abort(f"it does not speak the protocol of Redis: {error}")

    def _next(self) -> Any:
        """Return the next answer, or `_MORE`. Raises `DownError` if it is none."""
        try:
            return self._reader.gets()
        except TypeError:
            # It makes dictionaries and sets of RESP3's, also of those whose keys cannot be any.
            raise DownError("an answer of RESP3, which was not asked for") from None

    def _give(self, answer: Any) -> None:
        if not self._waiting:
            self.abort("it answered what nobody asked")
            return
        self._has_answered = True
        sent_at, waiting = self._waiting.popleft()
        self._answered(self._surroundings.now() - sent_at)
        if isinstance(answer, AnswerError):
            waiting.errback(Failure(answer))
        else:
            waiting.callback(answer)

    def abort(self, reason: str) -> None:
        """End the connection now. All commands that wait fail."""
        if not self.is_open:
            return
        self._end(reason)
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]  # TCP, TLS and UNIX transports have it

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail the commands that wait."""
        self._end(self._reason_of_end(reason))

    def _reason_of_end(self, reason: Failure) -> str:
        if self.tls_problem and self.tls_problem != NO_TLS:
            return self.tls_problem
        if type(reason.value).__module__.startswith("OpenSSL."):
            return words_of_tls(_text_of(reason.value))
        if self.tls_problem:
            return self.tls_problem
        if self.tls_problem is None and not self._has_answered:
            return CLOSED_AT_ONCE
        return "it closed the connection"

    def _end(self, reason: str) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._reason = reason
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, deque()
        self._lost(reason)
        for _, answer in waiting:
            answer.errback(Failure(DownError(reason)))


def _text_of(error: BaseException | None) -> str:
    """Return what an error of pyOpenSSL says: a number and a text, or a list of what OpenSSL has queued up."""
    said = error.args[-1] if error is not None and error.args else ""
    return str(said[-1][-1]) if isinstance(said, list) and said else str(said or "")
