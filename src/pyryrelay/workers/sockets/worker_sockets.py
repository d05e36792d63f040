"""The listening sockets of all workers, which their supervisor opens and keeps open.

There are three kinds:

* A ``tcp:`` or ``ssl:`` endpoint has a socket for each worker, among which the kernel chooses by the prefix of the
  source (`pyryrelay.listen.kernel.group`).
* An endpoint with ``{worker}`` in its path or port is another one for each worker. A proxy in front chooses.
* All other sockets, and those of systems that cannot steer, are common to all workers. The worker that accepts a
  connection passes it to the one that `pyryrelay.workers.steering` names.

The sockets have names, by which a supervisor that takes over finds them: the text of the endpoint, with the index of
the worker behind `GROUP_MARK` for a socket of a group.

Nothing is accepted here but what waits at drop sockets.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from pyryrelay.config.endpoints import Endpoint, has_worker, of_worker, of_workers, without_tls
from pyryrelay.config.settings import SharedSettings
from pyryrelay.guard.address.keys import IPV6_PREFIX_BITS
from pyryrelay.listen.inherited import Inherited
from pyryrelay.listen.kernel.bpf import filter_program
from pyryrelay.listen.kernel.drop import is_tcp
from pyryrelay.listen.kernel.group import SocketGroup
from pyryrelay.listen.kernel.reuseport import DropSocket
from pyryrelay.listen.kernel.steering import Steering
from pyryrelay.listen.listeners import BACKLOG, ListenError, Listeners
from pyryrelay.listen.probe import advice
from pyryrelay.listen.sockets import Address, Listening, Socket, listening_socket

__all__ = ["GROUP_MARK", "Queued", "WorkerSockets", "steering_of"]

_log = Logger(namespace="pyryrelay")

GROUP_MARK: Final = "#"
_TCP: Final = ("tcp", "tcp6", "ssl")


def steering_of(settings: SharedSettings, seed: int) -> Steering:
    """Return how the connections of a relay are steered: as its guard counts clients, and by its secret seed."""
    return Steering(settings.worker_count, min(IPV6_PREFIX_BITS, settings.ipv6_prefix), settings.nat64_prefix, seed)


class Queued(NamedTuple):
    """A connection to a drop socket. ``owner`` is the worker of that endpoint; None where addresses are steered."""

    endpoint: str
    owner: int | None
    sock: Socket
    peer: Address


@dataclass(frozen=True, slots=True)
class _Own:
    """The socket of one worker's own endpoint."""

    worker: int
    listening: Listening
    drop_socket: DropSocket | None


@dataclass(slots=True)
class _Sockets:
    """Those of one endpoint of the settings, by the kind that it has."""

    group: SocketGroup | None = None
    own: dict[str, _Own] = field(default_factory=dict)
    """By the text of the worker's endpoint."""
    is_public: bool = True


class WorkerSockets:
    """See the module's docstring.

    ``drops`` is whether the kernel may drop jailed sources. Silent TCP connections are left to the kernel for
    ``silence_s`` seconds. Sockets of an ``inherited`` supervisor are taken over by their names.
    """

    def __init__(
        self,
        reactor: Any,
        steering: Steering,
        silence_s: float,
        *,
        drops: bool = True,
        inherited: Inherited | None = None,
    ) -> None:
        """Open nothing yet."""
        self.steering = steering
        self._silence_s = silence_s
        self._drops = drops
        self._inherited = Inherited() if inherited is None else inherited
        self._sockets: dict[str, _Sockets] = {}
        self._files = Listeners(reactor, None, self._inherited)
        self._files.pause()
        self._in_files: dict[str, list[str]] = {}
        """The texts of sockets that a port of Twisted's has, by the endpoint of the settings."""
        self.without_drop_socket: dict[socket.socket, str] = {}
        """The TCP sockets that can have no drop socket, and why."""

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self._sockets)

    @property
    def count(self) -> int:
        """How many workers there are."""
        return self.steering.count

    # Opening

    def open(self, option: str, text: str, *, is_public: bool = True) -> None:
        """Listen on the endpoint ``text``, which ``option`` named; it needs privileges as a port of Twisted's does.

        One that is not public is for other relays: it has no drop sockets, and `renew` opens it again. Raises
        `ListenError`.
        """
        self._sockets[text] = _Sockets(is_public=is_public)
        self._in_files[text] = []
        if Endpoint.parse(text).scheme not in _TCP:
            for one in of_workers([text], self.count):
                self._open_file(option, text, one)
            return
        one = text
        try:
            if has_worker(text):
                for index in range(self.count):
                    one = of_worker(text, index)
                    self._open_own(text, index)
            else:
                self._open_steered(option, text)
        except OSError as error:
            problem = advice(one, error)
            raise ListenError(f"{option} {one!r}: cannot listen: {problem.cause}; {problem.fix}") from None

    def _open_file(self, option: str, text: str, one: str) -> None:
        self._files.open(option, one, Factory(), unix_mode=None if self._sockets[text].is_public else 0o600)
        self._in_files[text].append(one)
        for sock in self._files.sockets:
            if is_tcp(sock):
                self.without_drop_socket.setdefault(sock, "the socket was handed down")

    def _open_steered(self, option: str, text: str) -> None:
        group = self._inherited_group(text)
        if group is None:
            port, interface, backlog = _asked_for(text)
            try:
                group = SocketGroup.open(port, interface, backlog, self._silence_s, self.steering, drops=self._drops)
            except OSError as error:
                if not _cannot_steer(error):
                    raise
                self._open_common(option, text, error)
                return
        self._sockets[text].group = group

    def _open_common(self, option: str, text: str, error: OSError) -> None:
        """Share one socket, on a system that cannot direct connections to several."""
        _log.warn(
            "all workers accept from one socket on {endpoint}: {reason}",
            endpoint=text,
            reason=error.strerror,
        )
        self._open_file(option, text, without_tls(text) if Endpoint.parse(text).scheme == "ssl" else text)

    def _inherited_group(self, text: str) -> SocketGroup | None:
        names = [f"{text}{GROUP_MARK}{index}" for index in range(self.count)]
        taken = [self._inherited.take(name) for name in names]
        sockets = [Listening.adopt(sock) for sock in taken if sock is not None]
        drop_socket = self._inherited.take_drop_socket(text)
        if not sockets:
            return None
        adopted = None if drop_socket is None else Listening.adopt(drop_socket)
        if len(sockets) < self.count:
            for sock in (*sockets, *(() if adopted is None else (adopted,))):
                sock.close()
            raise ListenError(f"--listen {text!r}: the process before has no {self.count} sockets; restart the relay")
        return SocketGroup(sockets, adopted, self.steering)

    def _open_own(self, text: str, index: int) -> None:
        """Open the socket of one worker, and the drop socket beside it."""
        one = of_worker(text, index)
        inherited = self._inherited.take(one)
        if inherited is None:
            port, interface, backlog = _asked_for(one)
            listening = listening_socket(port, interface, backlog, self._silence_s)
        else:
            listening = Listening.adopt(inherited)
        drop_socket = None
        self._sockets[text].own[one] = _Own(index, listening, None)
        if self._drops and self._sockets[text].is_public:
            try:
                drop_socket = DropSocket(listening, self._inherited.take_drop_socket(one))
            except OSError as error:
                self.without_drop_socket[listening] = error.strerror or str(error)
        self._sockets[text].own[one] = _Own(index, listening, drop_socket)

    def renew(self, index: int) -> None:
        """Open the TCP sockets of one worker again that are not public. Its process has ended.

        By such a socket other relays tell this process from the next one, which has nothing of what it had.
        """
        for text, each in self._sockets.items():
            one = of_worker(text, index)
            if each.is_public or one not in each.own:
                continue
            _close(each.own.pop(one), leave_to_other=False)
            # If it fails, the worker tries the same, and says what is wrong.
            with contextlib.suppress(OSError):
                self._open_own(text, index)

    def configure(self, steering: Steering) -> None:
        """Group addresses in this way from now on. Groups with a drop socket do so from the next program on."""
        self.steering = steering
        for each in self._sockets.values():
            if each.group is not None and each.group.steering != steering:
                each.group.steering = steering
                if not each.group.drops:
                    each.group.attach(filter_program((), steering=steering))

    # What others need

    @property
    def handed_down(self) -> list[socket.socket]:
        """The TCP sockets that another program has opened, or that cannot be steered."""
        return [sock for sock in self._files.sockets if is_tcp(sock)]

    @property
    def drop_sockets(self) -> list[DropSocket | SocketGroup]:
        """What a `KernelDrop` keeps up to date. Groups without a drop socket need no update."""
        groups = [each.group for each in self._sockets.values() if each.group is not None and each.group.drops]
        return [*groups, *(own.drop_socket for own in self._own() if own.drop_socket is not None)]

    def _own(self) -> Iterator[_Own]:
        for each in self._sockets.values():
            yield from each.own.values()

    def for_worker(self, index: int) -> Inherited:
        """Return the sockets of one worker, by the texts of its endpoints. They stay those of this object."""
        found: dict[str, socket.socket] = {}
        common = set()
        shared = self._files.shared().listening
        for text, each in self._sockets.items():
            one = of_worker(text, index)
            if each.group is not None:
                found[one] = each.group.sockets[index]
            elif one in each.own:
                found[one] = each.own[one].listening
            elif self._in_files[text]:
                names = self._in_files[text]
                found[one] = shared[names[index if has_worker(text) else 0]]
                if not has_worker(text):
                    common.add(one)
        return Inherited(found, are_lent=True, common=frozenset(common))

    def shared(self) -> Inherited:
        """Return all sockets by their names, for a supervisor that takes over. They stay those of this object."""
        listening: dict[str, socket.socket] = dict(self._files.shared().listening)
        dropping: dict[str, socket.socket] = {}
        for text, each in self._sockets.items():
            if each.group is not None:
                listening |= _names_of_group(text, each.group)
                if each.group.drop_socket is not None:
                    dropping[text] = each.group.drop_socket
            for one, own in each.own.items():
                listening[one] = own.listening
                if own.drop_socket is not None:
                    dropping[one] = own.drop_socket.share()
        return Inherited(listening, dropping)

    def queued(self) -> Iterator[Queued]:
        """Accept the connections to drop sockets, as `DropSocket.queued` does. The caller closes the sockets."""
        for text, each in self._sockets.items():
            if each.group is not None:
                for sock, peer in each.group.queued():
                    yield Queued(text, None, sock, peer)
            for one, own in each.own.items():
                for sock, peer in () if own.drop_socket is None else own.drop_socket.queued():
                    yield Queued(one, own.worker, sock, peer)

    # Ending

    def close_others(self, kept: Container[str]) -> Deferred[None]:
        """Stop listening on the sockets whose names a supervisor that has taken over has not kept."""
        for text, each in list(self._sockets.items()):
            if each.group is not None and f"{text}{GROUP_MARK}0" not in kept:
                each.group.close()
                del self._sockets[text]
            for one in [one for one in each.own if one not in kept]:
                _close(each.own.pop(one), leave_to_other=False)
        return self._files.close_others(kept)

    def close(self, *, leave_to_other: bool = False) -> Deferred[None]:
        """Stop listening. With ``leave_to_other``, the sockets and their files are those of another supervisor now."""
        for each in self._sockets.values():
            if each.group is not None:
                each.group.close()
            for own in each.own.values():
                _close(own, leave_to_other=leave_to_other)
        self._sockets.clear()
        return self._files.close(leave_to_other=leave_to_other)


def _close(own: _Own, *, leave_to_other: bool) -> None:
    if own.drop_socket is not None:
        own.drop_socket.abandon() if leave_to_other else own.drop_socket.close()
    own.listening.close()


def _names_of_group(text: str, group: SocketGroup) -> Mapping[str, socket.socket]:
    return {f"{text}{GROUP_MARK}{index}": sock for index, sock in enumerate(group.sockets)}


class _Parsed:
    """Takes the place of a reactor, and notes what an endpoint asks it for."""

    def __init__(self) -> None:
        self.asked: tuple[int, str, int] | None = None

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> object:  # noqa: N802
        """Note port, interface and backlog."""
        self.asked = port, interface, backlog
        return object()


def _asked_for(text: str) -> tuple[int, str, int]:
    """Return port, interface and backlog of a TCP endpoint, as Twisted reads it."""
    completed = text if "backlog=" in text else f"{text}:backlog={BACKLOG}"
    if Endpoint.parse(text).scheme == "ssl":
        completed = without_tls(completed)
    parsed = _Parsed()
    serverFromString(parsed, completed).listen(Factory())
    assert parsed.asked is not None
    return parsed.asked


def _cannot_steer(error: OSError) -> bool:
    return error.errno in (errno.ENOSYS, errno.ENOPROTOOPT, errno.EOPNOTSUPP)
