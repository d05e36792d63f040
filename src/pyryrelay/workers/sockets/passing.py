"""Connections that one process accepts and another one serves, because of the address that they come from.

The kernel steers the connections of most sockets. Where it does not, as at a socket that was handed down, each worker
accepts from the same socket, and passes what `pyryrelay.workers.steering` gives to another one. The supervisor passes
on what it accepts from drop sockets. A connection is passed before anything of it was read, and never twice.

A worker that has no room for more messages, or has ended, loses the connection, which is reset: another worker must not
serve it, or a flood from one address would be counted by all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, Protocol

from pyryrelay.guard.address.lists import IPAddress
from pyryrelay.listen.kernel.steering import Steering
from pyryrelay.listen.sockets import Address, Socket
from pyryrelay.workers.sockets.worker_sockets import Queued
from pyryrelay.workers.steering import steer

__all__ = ["ACCEPTED", "Passing", "Send", "handler_of", "passed", "peer_address"]

ACCEPTED: Final = "accepted"
"""The kind of the message that has a connection: its endpoint, and the address of its peer."""


class Send(Protocol):
    """Sends a message with a descriptor to a worker."""

    def __call__(self, index: int, message: Mapping[str, object], sock: Socket) -> bool:
        """Return whether there was room for it. The caller closes the socket in any case."""


class Receive(Protocol):
    """Treats a connection as if it had been accepted at the socket of an endpoint here."""

    def __call__(self, text: str, sock: Socket, address: Address) -> None:
        """Take over the socket."""


class Passing:
    """Passes connections on to the workers that they belong to. ``index`` is that of this process, None for none.

    ``lost`` counts the connections for which there was no room.
    """

    def __init__(self, index: int | None, steering: Callable[[], Steering], send: Send) -> None:
        self._index = index
        self._steering = steering
        self._send = send
        self.lost = 0

    def is_passed(self, endpoint: str, sock: Socket, peer: Address) -> bool:
        """Pass a connection on if it belongs to another process; return whether it does. The caller closes it then."""
        address = peer_address(peer)
        if address is None or (owner := steer(address, self._steering())) == self._index:
            return False
        self._pass(owner, endpoint, sock, peer)
        return True

    def pass_queued(self, queued: Queued) -> None:
        """Pass on what waited at a drop socket, and close it here."""
        owner, address = queued.owner, peer_address(queued.peer)
        if owner is None:
            owner = 0 if address is None else steer(address, self._steering())
        self._pass(owner, queued.endpoint, queued.sock, queued.peer)
        queued.sock.close()

    def _pass(self, owner: int, endpoint: str, sock: Socket, peer: Address) -> None:
        message = {"type": ACCEPTED, "endpoint": endpoint, "peer": list(peer)}
        if not self._send(owner, message, sock):
            self.lost += 1


def passed(message: Mapping[str, Any]) -> tuple[str, Address] | None:
    """Return endpoint and peer of a message that another process has sent; None if it is not understood."""
    match message:
        case {"type": "accepted", "endpoint": str(endpoint), "peer": [str(host), int(port), *rest]}:
            return endpoint, (host, port, *rest)
    return None


def handler_of(receive: Receive) -> Callable[[Mapping[str, Any], Socket], None]:
    """Return what handles messages of the kind `ACCEPTED` from other processes."""

    def received(message: Mapping[str, Any], sock: Socket) -> None:
        found = passed(message)
        if found is None:
            sock.close()
        else:
            receive(found[0], sock, found[1])

    return received


def peer_address(peer: Address) -> IPAddress | None:
    """Return the address of a TCP peer, without its zone; None for one that has none."""
    if not peer or not isinstance(peer[0], str):
        return None
    try:
        address = ip_address(peer[0].partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped
