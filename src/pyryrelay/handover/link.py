"""The connection between a process and its successor: a pair of UNIX sockets that nobody else can reach.

The first message has the listening sockets and is sent before the successor runs, so both sides handle it without a
reactor: JSON after its length, with the descriptors as SCM_RIGHTS. All later messages are JSON objects with a ``type``,
each after its length. Unknown types and keys are ignored, so that versions may differ.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

from pyryrelay.handover.descriptors import (
    DescriptorError,
    close_all,
    receive_with_descriptors,
    send_with_descriptors,
)
from pyryrelay.listen.inherited import Inherited

__all__ = ["FORMAT", "Greeting", "GreetingError", "Link", "receive_greeting", "send_greeting"]

FORMAT: Final = 1
"""Of the first message. A successor that does not know it ends, and the predecessor goes on."""

MAX_BYTES: Final = 256 * 1024 * 1024
MAX_GREETING_BYTES: Final = 1024 * 1024
MAX_SOCKETS: Final = 4000
GREETING_TIMEOUT_S: Final = 10.0
_LISTENING, _DROP = "listening", "drop"


class GreetingError(Exception):
    """The first message cannot be sent or understood; `str` of it is one line."""


class Greeting:
    """What a process tells its successor first: its version, its sockets, and what it holds that only one can hold."""

    def __init__(
        self,
        version: str,
        pid: int,
        conflicts: tuple[str, ...],
        sockets: Inherited,
        workers: int = 1,
        seed: int = 0,
    ) -> None:
        """``conflicts`` are the lines that the successor's own check must report because this process runs.

        ``workers`` is how many processes serve connections, and ``seed`` the secret that divides these among them.
        """
        self.version = version
        self.pid = pid
        self.conflicts = conflicts
        self.sockets = sockets
        self.workers = workers
        self.seed = seed


def send_greeting(end: socket.socket, greeting: Greeting) -> None:
    """Send the first message. Raises `GreetingError` if there are too many sockets, or the other end does not read."""
    named = [
        (kind, text, sock)
        for kind, sockets in ((_LISTENING, greeting.sockets.listening), (_DROP, greeting.sockets.dropping))
        for text, sock in sockets.items()
    ]
    if len(named) > MAX_SOCKETS:
        raise GreetingError(f"{len(named)} sockets are more than a process can hand over")
    body = json.dumps(
        {
            "format": FORMAT,
            "version": greeting.version,
            "pid": greeting.pid,
            "workers": greeting.workers,
            "seed": greeting.seed,
            "conflicts": greeting.conflicts,
            "sockets": [(kind, text) for kind, text, _ in named],
        }
    ).encode()
    end.settimeout(GREETING_TIMEOUT_S)
    try:
        send_with_descriptors(end, body, [sock.fileno() for _, _, sock in named])
    except OSError as error:
        raise GreetingError(f"the sockets cannot be handed over: {error.strerror or error}") from None


def receive_greeting(end: socket.socket) -> Greeting:
    """Wait for the first message. Raises `GreetingError`, and closes what was received with it then."""
    end.settimeout(GREETING_TIMEOUT_S)
    try:
        body, descriptors = receive_with_descriptors(end, MAX_GREETING_BYTES, _count)
    except DescriptorError as error:
        raise GreetingError(f"the process before has not handed its sockets over: {error}") from None
    try:
        return _understood(body, descriptors)
    except GreetingError:
        close_all(descriptors)
        raise


def _count(body: bytes) -> int:
    """Return how many sockets a message announces; those that are not understood are reported later."""
    try:
        return len(json.loads(body)["sockets"])
    except (ValueError, KeyError, TypeError):
        return 0


def _understood(body: bytes, descriptors: list[int]) -> Greeting:
    try:
        found = json.loads(body)
        if found["format"] != FORMAT:
            raise GreetingError(f"the process before, of version {found['version']}, hands over in another format")
        names = [(str(kind), str(text)) for kind, text in found["sockets"]]
        version, pid, conflicts = str(found["version"]), int(found["pid"]), tuple(map(str, found["conflicts"]))
        workers, seed = int(found.get("workers", 1)), int(found.get("seed", 0))
    except (ValueError, KeyError, TypeError):
        raise GreetingError("the process before sent a message that is not understood") from None
    if len(names) != len(descriptors):
        raise GreetingError(f"the process before handed over {len(descriptors)} of {len(names)} sockets")
    sockets: dict[str, dict[str, socket.socket]] = {_LISTENING: {}, _DROP: {}}
    for (kind, text), descriptor in zip(names, descriptors, strict=True):
        sockets.setdefault(kind, {})[text] = socket.socket(fileno=descriptor)
    return Greeting(version, pid, conflicts, Inherited(sockets[_LISTENING], sockets[_DROP]), workers, seed)


class Link(Int32StringReceiver):
    """Messages, once a reactor runs. ``received`` is called with each, and ``lost`` once at the end."""

    MAX_LENGTH = MAX_BYTES

    def __init__(self, received: Callable[[Mapping[str, Any]], None], lost: Callable[[], None]) -> None:
        self._received = received
        self._lost = lost

    @classmethod
    def over(
        cls,
        reactor: Any,
        end: socket.socket,
        received: Callable[[Mapping[str, Any]], None],
        lost: Callable[[], None],
    ) -> Link:
        """Return a link over this end of the pair, which is closed: the reactor has a copy."""
        link = cls(received, lost)
        with end:
            end.setblocking(False)
            reactor.adoptStreamConnection(end.fileno(), end.family, _LinkFactory(link))
        return link

    def send(self, kind: str, **fields: object) -> None:
        """Send a message. Does nothing once the link is lost."""
        if self.connected:
            message = json.dumps({"type": kind, **fields}, separators=(",", ":")).encode()
            self.sendString(message)  # type: ignore[no-untyped-call]

    def stringReceived(self, string: bytes) -> None:  # noqa: N802
        """Pass a message on; one that is no object is ignored."""
        message = json.loads(string)
        if isinstance(message, dict):
            self._received(message)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Report the end, however it came."""
        self._lost()

    def close(self) -> None:
        """End the link when everything is sent."""
        if self.connected and self.transport is not None:
            self.transport.loseConnection()


class _LinkFactory(Factory):
    noisy = False

    def __init__(self, link: Link) -> None:
        self._link = link

    def buildProtocol(self, addr: IAddress | None) -> Link:
        return self._link
