"""The process that this one succeeds: its sockets, its answers, and when it is done.

It is found by an environment variable that names a descriptor and the process that passed it, so that a child that
inherits the variable by accident ignores it.

Order: `find` while options are read, `connect` and `ready` when everything has started but accepts nothing. Then the
predecessor stops accepting, and ``taken`` is called once; it is also called if the predecessor is killed in that time,
because then nobody else has the sockets. If it was told to end instead, ``cancelled`` is called.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import struct
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, succeed

from pyryrelay import __version__
from pyryrelay.handover.link import Greeting, GreetingError, Link, receive_greeting
from pyryrelay.listen.inherited import Inherited
from pyryrelay.protocol import Predecessor as ProtocolPredecessor

__all__ = ["VARIABLE", "Predecessor", "Succeeded"]

VARIABLE: Final = "_PYRYRELAY_PREDECESSOR"
"""``PID:DESCRIPTOR``. It does not begin like the variables of options."""
_CREDENTIALS: Final = struct.Struct("3i")


class Succeeded(Protocol):
    """A process before this one, as the service knows it."""

    @property
    def sockets(self) -> Inherited:
        """The listening sockets that it has passed."""

    def of(self, protocol: str) -> ProtocolPredecessor:
        """Return the protocol of that name in it."""


class Predecessor:
    """See the module's docstring."""

    def __init__(self, end: socket.socket, greeting: Greeting) -> None:
        self._end: socket.socket | None = end
        self.version, self.pid = greeting.version, greeting.pid
        self.conflicts = greeting.conflicts
        self.workers, self.seed = greeting.workers, greeting.seed
        self.sockets: Inherited = greeting.sockets
        self.is_gone = False
        self.is_taken = False
        """Whether this process has taken over."""
        self._link: Link | None = None
        self._offered = greeting.sockets.endpoints
        self._numbers = itertools.count(1)
        self._asked: dict[int, Deferred[bytes | None]] = {}
        self._released: dict[str, list[Deferred[None]]] = {}
        self._is_released: set[str] = set()
        self._taken: Callable[[Mapping[str, Any]], None] = lambda message: None
        self._cancelled: Callable[[], None] = lambda: None

    @classmethod
    def find(cls, environ: MutableMapping[str, str], parent: int) -> Predecessor | None:
        """Return the process that passed its sockets to this one; None if none did.

        It is the parent, unless it has ended meanwhile. Then this process does what it would do later: it must not
        become a relay of its own, as the one before it may have been told to end.

        Removes the variable. Raises `GreetingError` if that process cannot be understood.
        """
        pid, _, descriptor = environ.pop(VARIABLE, "").partition(":")
        if not (pid.isdigit() and descriptor.isdigit()):
            return None
        try:
            end = socket.socket(fileno=int(descriptor))
        except OSError:
            return None
        if int(pid) != parent and _maker(end) != int(pid):
            end.detach()
            return None
        end.set_inheritable(False)
        try:
            return cls(end, receive_greeting(end))
        except GreetingError as error:
            _tell(end, str(error))
            end.close()
            raise

    def failed(self, line: str) -> None:
        """Tell the predecessor why this process cannot start; it will end now."""
        if self._end is not None:
            _tell(self._end, line)
        self._send("failed", line=line)

    def connect(self, reactor: Any, taken: Callable[[Mapping[str, Any]], None], cancelled: Callable[[], None]) -> None:
        """Talk to the predecessor from now on; the reactor runs."""
        self._taken, self._cancelled = taken, cancelled
        end, self._end = self._end, None
        if end is not None:
            self._link = Link.over(reactor, end, self._received, self._lost)

    def ready(self) -> None:
        """Tell that this process could accept connections, and which of the sockets it keeps; close the others."""
        kept = self._offered - self.sockets.endpoints
        self.sockets.close()
        self._send("ready", pid=os.getpid(), version=__version__, kept=sorted(kept))

    def serving(self) -> None:
        """Tell that this process accepts connections."""
        self._send("serving")

    def ending(self) -> None:
        """Tell that this process ends because it was told to, so that the predecessor ends, too."""
        self._send("ending")

    def of(self, protocol: str) -> PredecessorOf:
        """Return the protocol of that name in the predecessor."""
        return PredecessorOf(self, protocol)

    def ask(self, protocol: str, question: bytes) -> Deferred[bytes | None]:
        """See `pyryrelay.protocol.Predecessor`."""
        if self.is_gone or self._link is None:
            return succeed(None)
        number = next(self._numbers)
        answer = self._asked[number] = Deferred[bytes | None]()
        self._send("ask", number=number, protocol=protocol, question=question.decode())
        return answer

    def when_released(self, protocol: str) -> Deferred[None]:
        """See `pyryrelay.protocol.Predecessor`."""
        if self.is_gone or protocol in self._is_released:
            return succeed(None)
        waiting = Deferred[None]()
        self._released.setdefault(protocol, []).append(waiting)
        return waiting

    def _send(self, kind: str, **fields: object) -> None:
        if self._link is not None:
            self._link.send(kind, **fields)

    def _received(self, message: Mapping[str, Any]) -> None:
        match message:
            case {"type": "take"} if not self.is_taken:
                self.is_taken = True
                self._taken(message)
            case {"type": "answer", "number": int(number), "answer": answer}:
                asked = self._asked.pop(number, None)
                if asked is not None:
                    asked.callback(answer.encode() if isinstance(answer, str) else None)
            case {"type": "released", "protocol": str(protocol)}:
                self._release(protocol)
            case {"type": "cancel"} if not self.is_taken:
                self.is_gone = True
                self._cancelled()

    def _release(self, protocol: str) -> None:
        self._is_released.add(protocol)
        for waiting in self._released.pop(protocol, []):
            waiting.callback(None)

    def _lost(self) -> None:
        was_cancelled, self.is_gone, self._link = self.is_gone, True, None
        if not (self.is_taken or was_cancelled):
            self.is_taken = True
            self._taken({})
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            answer.callback(None)
        for protocol in list(self._released):
            self._release(protocol)


class PredecessorOf:
    """One protocol in the predecessor; see `pyryrelay.protocol.Predecessor`."""

    def __init__(self, predecessor: Predecessor, protocol: str) -> None:
        self._predecessor = predecessor
        self._protocol = protocol

    def ask(self, question: bytes) -> Deferred[bytes | None]:
        """See `pyryrelay.protocol.Predecessor`."""
        return self._predecessor.ask(self._protocol, question)

    def when_released(self) -> Deferred[None]:
        """See `pyryrelay.protocol.Predecessor`."""
        return self._predecessor.when_released(self._protocol)


def _maker(end: socket.socket) -> int:
    """Return the number of the process that has made a pair of UNIX sockets; 0 if that is not known."""
    if end.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return 0
    try:
        pid, _, _ = _CREDENTIALS.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    except OSError:
        return 0
    return int(pid)


def _tell(end: socket.socket, line: str) -> None:
    """Send the one message that needs no reactor."""
    body = json.dumps({"type": "failed", "line": line}).encode()
    with contextlib.suppress(OSError):
        end.sendall(struct.pack("!I", len(body)) + body)
