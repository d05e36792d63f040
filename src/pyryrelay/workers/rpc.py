"""Questions and messages between a supervisor and one of its workers. Both ends use the same class.

A message is a JSON object with a ``type``: ``tell`` has a name and a body; ``ask`` has a number, too, which the
``answer`` or ``failed`` repeats. What is said before `Rpc.connect` waits. Unknown names of ``tell`` are ignored, so
that both ends need not know the same ones.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.python.failure import Failure

from pyryrelay.handover.link import Link
from pyryrelay.logger import ErrbackLogger
from pyryrelay.text import printable

__all__ = ["Handler", "Rpc", "RpcError"]

_log = ErrbackLogger(namespace="pyryrelay")
_log_failure: Final = _log.errback("A message of another process could not be handled")

Handler: TypeAlias = Callable[[Mapping[str, Any]], Any]
"""Takes the body of a message. What it returns, a JSON value or a Deferred of one, is the answer."""

MAX_PROBLEM: Final = 500
"""Characters of an error that are sent."""


class RpcError(Exception):
    """The other end is gone, does not know the name, or its handler failed. `str` of it is one line."""


class Rpc:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[str, Deferred[Any]]] = {}
        self._waiting: list[tuple[str, dict[str, object]]] = []
        self._link: Link | None = None
        self.is_lost = False
        self.on_lost: list[Callable[[], None]] = []
        """Called once when the other end is gone, behind the failures of what it was asked."""

    def connect(self, reactor: Any, end: socket.socket) -> None:
        """Talk over this end of a pair of stream sockets, which is closed: the reactor has a copy."""
        self.attach(Link.over(reactor, end, self.received, self.lost))

    def attach(self, link: Link) -> None:
        """Talk over a link, which calls `received` and `lost`."""
        self._link = link
        waiting, self._waiting = self._waiting, []
        for kind, fields in waiting:
            link.send(kind, **fields)

    def on(self, name: str, handler: Handler) -> None:
        """Have questions and messages of that name handled; a later handler of a name replaces an earlier one."""
        self._handlers[name] = handler

    def ask(self, name: str, /, **body: object) -> Deferred[Any]:
        """Ask the other end, and return its answer. Fails with `RpcError`. Cancelling forgets the question."""
        if self.is_lost:
            return fail(RpcError(f"{name}: the other process has ended"))
        number = next(self._numbers)

        def forget(_: Deferred[Any]) -> None:
            self._asked.pop(number, None)

        answer = Deferred[Any](forget)
        self._asked[number] = name, answer
        self._send("ask", number=number, name=name, body=body)
        return answer

    def tell(self, name: str, /, **body: object) -> None:
        """Send a message that has no answer. Does nothing if the other end is gone."""
        if not self.is_lost:
            self._send("tell", name=name, body=body)

    def close(self) -> None:
        """End the connection when everything is sent."""
        if self._link is None:
            self.lost()
        else:
            self._link.close()

    def _send(self, kind: str, **fields: object) -> None:
        if self._link is None:
            self._waiting.append((kind, fields))
        else:
            self._link.send(kind, **fields)

    # Called by the link

    def received(self, message: Mapping[str, Any]) -> None:
        """Handle one message; one that is not understood is ignored."""
        match message:
            case {"type": "ask", "number": int(number), "name": str(name), "body": dict(body)}:
                self._answer(number, name, body)
            case {"type": "tell", "name": str(name), "body": dict(body)}:
                if name in self._handlers:
                    maybeDeferred(self._handlers[name], body).addErrback(_log_failure)
            case {"type": "answer", "number": int(number), "value": value} if number in self._asked:
                self._asked.pop(number)[1].callback(value)
            case {"type": "failed", "number": int(number), "problem": str(problem)} if number in self._asked:
                name, answer = self._asked.pop(number)
                answer.errback(RpcError(f"{name}: {problem}"))

    def _answer(self, number: int, name: str, body: Mapping[str, Any]) -> None:
        handler = self._handlers.get(name)
        if handler is None:
            self._send("failed", number=number, problem="the other process does not know this")
            return

        def answered(value: Any) -> None:
            # A value that is no JSON raises here, and the question fails.
            self._send("answer", number=number, value=value)

        def failed(failure: Failure) -> None:
            if not failure.check(RpcError):
                _log_failure(failure)
            problem = failure.getErrorMessage() or type(failure.value).__name__
            self._send("failed", number=number, problem=printable(problem[:MAX_PROBLEM]))

        maybeDeferred(handler, body).addCallback(answered).addErrback(failed)

    def lost(self) -> None:
        """Fail all questions: the other end is gone."""
        if self.is_lost:
            return
        self.is_lost = True
        self._waiting.clear()
        asked, self._asked = self._asked, {}
        for name, answer in asked.values():
            answer.errback(RpcError(f"{name}: the other process has ended"))
        for call in self.on_lost:
            call()
