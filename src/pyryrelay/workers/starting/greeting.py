"""The first message of a supervisor to a worker: which one of how many it is, and its sockets.

It is JSON with descriptors, and both sides handle it without a reactor. A worker finds the connection by an environment
variable that names a descriptor and the process that passed it. A process that has the variable by accident has no such
descriptor, and ignores it. A process may be started in advance: then it waits for the message.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from pyryrelay.handover.descriptors import (
    DescriptorError,
    close_all,
    receive_with_descriptors,
    send_with_descriptors,
)
from pyryrelay.listen.inherited import Inherited
from pyryrelay.observe.log_observer import LogForm
from pyryrelay.workers.place import MeshEnds, WorkerPlace
from pyryrelay.workers.rpc import Rpc

__all__ = ["VARIABLE", "Greeted", "WorkerGreeting", "find_supervisor", "send_greeting"]

VARIABLE: Final = "_PYRYRELAY_WORKER"
"""``PID:DESCRIPTOR``. It does not begin like the variables of options."""
MAX_BYTES: Final = 16 * 1024 * 1024
SEND_TIMEOUT_S: Final = 10.0


@dataclass(slots=True)
class WorkerGreeting:
    """What a worker is told first; see `WorkerPlace`.

    ``configuration`` is the text of the configuration file at the start of the relay, and ``reloaded`` the one of the
    last reload, if there was one; None means that there is no file. ``succeeds`` tells whether there is an earlier
    process, whose protocols can be asked. ``log_form`` is what the log consists of: the worker renders its lines of it.
    """

    index: int
    count: int
    boot: int
    sockets: Inherited
    mesh: MeshEnds | None = None
    seed: int = 0
    children: Mapping[str, str] = field(default_factory=dict)
    succeeds: bool = False
    configuration: bytes | None = None
    reloaded: bytes | None = None
    log_form: LogForm = "events"


@dataclass(slots=True)
class Greeted:
    """What a worker has found: the connection to its supervisor, and the first message."""

    end: socket.socket
    pid: int
    """The number of the supervisor's process."""
    greeting: WorkerGreeting

    def place(self) -> WorkerPlace:
        """Return the place of this worker, with a connection that is not connected yet."""
        found = self.greeting
        return WorkerPlace(
            found.index, found.count, found.boot, Rpc(), found.sockets, found.mesh, found.seed, found.children
        )


def send_greeting(end: socket.socket, greeting: WorkerGreeting) -> None:
    """Send the message. Raises `OSError`, also if the other end does not read."""
    common = greeting.sockets.common
    named = [
        ("common" if text in common else "listening", text, sock) for text, sock in greeting.sockets.listening.items()
    ]
    if greeting.mesh is not None:
        named.append(("receiving", "", greeting.mesh.receiving))
        named += [("sending", "", sock) for sock in greeting.mesh.sending]
    body = {
        "index": greeting.index,
        "count": greeting.count,
        "boot": greeting.boot,
        "seed": greeting.seed,
        "children": dict(greeting.children),
        "succeeds": greeting.succeeds,
        "configuration": _text(greeting.configuration),
        "reloaded": _text(greeting.reloaded),
        "log_form": greeting.log_form,
        "sockets": [(kind, text) for kind, text, _ in named],
    }
    end.settimeout(SEND_TIMEOUT_S)
    send_with_descriptors(end, json.dumps(body).encode(), [sock.fileno() for _, _, sock in named])


def find_supervisor(environ: MutableMapping[str, str], parent: Callable[[], int]) -> Greeted | None:
    """Return what the parent of this process has told it as its worker; None if it is no worker. Waits for the message.

    ``parent`` returns the number of the parent, which may be that of the supervisor only when it has sent the message.
    Removes the variable. Raises `SystemExit` if the supervisor has ended, or ends before.
    """
    pid, _, descriptor = environ.pop(VARIABLE, "").partition(":")
    end = _connection(int(descriptor)) if pid.isdigit() and descriptor.isdigit() else None
    if end is None:
        return None
    end.settimeout(None)
    try:
        body, descriptors = receive_with_descriptors(end, MAX_BYTES, _count)
    except DescriptorError:
        # It was started in advance, and not needed, or the supervisor was killed.
        end.close()
        raise SystemExit(0) from None
    if int(pid) != parent():
        # The supervisor was killed before this process came so far. It must not become a relay of its own.
        close_all([end.detach(), *descriptors])
        raise SystemExit(0)
    found = json.loads(body)
    names = [(str(kind), str(text)) for kind, text in found["sockets"]]
    if len(names) != len(descriptors):
        close_all(descriptors)
        raise SystemExit(f"pyryrelay: the supervisor passed {len(descriptors)} of {len(names)} sockets")
    sockets = [(kind, text, socket.socket(fileno=one)) for (kind, text), one in zip(names, descriptors, strict=True)]
    return Greeted(end, int(pid), _understood(found, sockets))


def _connection(descriptor: int) -> socket.socket | None:
    """Return the socket of a descriptor, if it is one end of a pair of UNIX sockets."""
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        return None
    if found.family == socket.AF_UNIX and found.type == socket.SOCK_STREAM and _is_connected(found):
        found.set_inheritable(False)
        return found
    found.detach()
    return None


def _is_connected(sock: socket.socket) -> bool:
    try:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0 and sock.getpeername() is not None
    except OSError:
        return True  # the other end has gone


def _count(body: bytes) -> int:
    return len(json.loads(body)["sockets"])


def _understood(found: Mapping[str, Any], sockets: list[tuple[str, str, socket.socket]]) -> WorkerGreeting:
    def named(wanted: str) -> dict[str, socket.socket]:
        return {text: sock for kind, text, sock in sockets if kind == wanted}

    receiving = [sock for kind, _, sock in sockets if kind == "receiving"]
    sending = [sock for kind, _, sock in sockets if kind == "sending"]
    return WorkerGreeting(
        index=found["index"],
        count=found["count"],
        boot=found["boot"],
        sockets=Inherited(named("listening") | named("common"), are_lent=True, common=frozenset(named("common"))),
        mesh=MeshEnds(receiving[0], sending) if receiving else None,
        seed=found["seed"],
        children=found["children"],
        succeeds=found["succeeds"],
        configuration=_bytes(found["configuration"]),
        reloaded=_bytes(found["reloaded"]),
        # A supervisor of an earlier release does not say it, and understands events.
        log_form=found.get("log_form", "events"),
    )


def _text(content: bytes | None) -> str | None:
    """Return a content that has been read as UTF-8 before."""
    return None if content is None else content.decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
