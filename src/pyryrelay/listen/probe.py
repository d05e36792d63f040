"""Whether an endpoint can be listened on, without listening, and what to do if it cannot.

The start and ``--check`` describe failures in the same words: `advice`. `probe` binds a socket and closes it. Clients
do not notice, because a socket that is only bound accepts nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import ssl
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Final

from twisted.internet.abstract import isIPv6Address

from pyryrelay.config.endpoints import Endpoint

__all__ = ["Holder", "Problem", "advice", "probe"]

_LISTEN: Final = "0A"
"""The state of a listening socket in /proc/net/tcp (``include/net/tcp_states.h``)."""
_MAX_UNIX_PATH_BYTES: Final = 107
_ASK_TIMEOUT_S: Final = 2.0
_LOOKS: Final = 3
_UNPRIVILEGED: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that listens on an address; ``pid`` is None if the system does not tell."""

    pid: int | None
    name: str
    is_relay: bool

    def __str__(self) -> str:
        what = "a running pyryrelay" if self.is_relay else repr(self.name) if self.name else "another program"
        return what if self.pid is None else f"{what}, process {self.pid},"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an endpoint cannot be listened on, and the fix. ``holder`` is the process that listens there already."""

    cause: str
    fix: str
    holder: Holder | None = None


def probe(text: str, base: Path) -> Problem | None:
    """Return the problem that listening on the endpoint ``text`` would have; None if there is none.

    Relative paths count from ``base``. Sockets that systemd hands down are not tried.
    """
    endpoint = Endpoint.parse(text)
    try:
        if endpoint.scheme == "unix":
            return _probe_path(base / endpoint.argument)
        if endpoint.port is not None:
            _try_to_bind(endpoint)
    except OSError as error:
        return advice(text, error)
    return None


def _try_to_bind(endpoint: Endpoint) -> None:
    """Bind as the start would. Raises `OSError`."""
    interface = endpoint.interface or ("::" if endpoint.scheme == "tcp6" else "")
    is_v6 = isIPv6Address(interface)
    with socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = int(endpoint.port or 0)
        place = socket.getaddrinfo(interface, port, flags=socket.AI_NUMERICHOST)[0][4] if is_v6 else (interface, port)
        sock.bind(place)


def _probe_path(path: Path) -> Problem | None:
    if len(os.fsencode(path)) > _MAX_UNIX_PATH_BYTES:
        return Problem(f"its path is longer than {_MAX_UNIX_PATH_BYTES} bytes", "choose a shorter one")
    if not path.parent.is_dir():
        return _missing(path.parent)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return _may_not_write(path.parent)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return _no_socket(path)
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
            sock.settimeout(_ASK_TIMEOUT_S)
            sock.connect(str(path))
            return _taken(_holder_of_path(path) or Holder(None, "", False))
    return None


def advice(text: str, error: object) -> Problem:
    """Explain why listening on the endpoint ``text`` failed, with an `OSError` or another error of Twisted's."""
    endpoint = Endpoint.parse(text)
    code = error.errno if isinstance(error, OSError) else None
    path = None if endpoint.scheme != "unix" else Path(endpoint.argument)
    if code == errno.EADDRINUSE:
        if path is not None and not path.is_socket():
            return _no_socket(path)
        return _taken(_holder(endpoint))
    if code == errno.EADDRNOTAVAIL:
        fix = "`ip address` shows the addresses that there are, and interface=0.0.0.0 stands for all of them"
        cause = f"Cannot assign requested address: no interface of this machine has {endpoint.interface!r}"
        return Problem(cause, fix)
    if code in (errno.EACCES, errno.EPERM):
        return _may_not_write(path.parent) if path is not None else _no_permission(endpoint)
    if code == errno.ENOENT and path is not None:
        return _missing(path.parent)
    cause = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if path is not None and "lock" in cause:
        return Problem(f"{cause}: {str(path) + '.lock'!r}", "stop the process that has it, or choose another path")
    return Problem(cause, "choose another endpoint")


def _taken(holder: Holder) -> Problem:
    fix = "stop it, or choose another endpoint"
    if holder.pid is None:
        fix = f"`ss -lntxp` shows which, as root; {fix}"
    return Problem(f"Address already in use: {holder} listens there", fix, holder)


def _missing(folder: Path) -> Problem:
    return Problem(f"there is no folder {str(folder)!r}", f"create it: mkdir -p {folder}")


def _may_not_write(folder: Path) -> Problem:
    cause = f"Permission denied: this user may not create files in {str(folder)!r}"
    return Problem(cause, "choose a folder of this user, or change its owner")


def _no_socket(path: Path) -> Problem:
    return Problem(f"{str(path)!r} is a file and no socket", "remove it, or choose another path")


def _no_permission(endpoint: Endpoint) -> Problem:
    try:
        first = int(_UNPRIVILEGED.read_text(encoding="ascii"))
    except (OSError, ValueError):
        first = 1024
    return Problem(
        f"Permission denied: this user may not listen on port {endpoint.port}",
        f"choose a port from {first} on, start twistd as root with --uid, or have systemd pass the socket",
    )


# The process that listens


def _holder(endpoint: Endpoint) -> Holder:
    """Return the process that listens on a TCP port, as far as it can be found."""
    port = int(endpoint.port or 0)
    found = _found(lambda: _process_of(_tcp_inodes(port))) if port else None
    if found is None and port:
        found = Holder(None, "", _is_relay_at(endpoint.interface, port, is_tls=endpoint.scheme == "ssl"))
    return found or Holder(None, "", False)


def _found(look: Callable[[], Holder | None]) -> Holder | None:
    """Search a few times: the tables of /proc may leave out entries while others change."""
    return next((holder for _ in range(_LOOKS) if (holder := look()) is not None), None)


def _holder_of_path(path: Path) -> Holder | None:
    return _found(lambda: _process_of(_unix_inodes(path)))


def _unix_inodes(path: Path) -> set[str]:
    inodes = set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace").splitlines()[1:]:
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and fields[7] == str(path):
                inodes.add(fields[6])
    return inodes


def _tcp_inodes(port: int) -> set[str]:
    """Return the inodes of the sockets that listen on a port of any address."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    return inodes


def _process_of(inodes: set[str]) -> Holder | None:
    """Return a process that has one of the sockets open; None if this user may not see it."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for folder in Path("/proc").glob("[0-9]*") if wanted else ():
        if any(target in wanted for target in _open_files(folder)):
            words = _command(folder)
            name = Path(words[0]).name if words else ""
            return Holder(int(folder.name), name, any(Path(word).name == "pyryrelay" for word in words))
    return None


def _open_files(process: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield str(descriptor.readlink())


def _command(process: Path) -> list[str]:
    try:
        line = (process / "cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in line.split(b"\0") if word]


def _is_relay_at(interface: str, port: int, *, is_tls: bool) -> bool:
    """Tell whether a relay answers there. If it runs as another user, there is no other way to know."""
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(interface, interface)
    connection = HTTPConnection(host, port, timeout=_ASK_TIMEOUT_S)
    if is_tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = HTTPSConnection(host, port, timeout=_ASK_TIMEOUT_S, context=context)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/healthz")
            body = json.loads(connection.getresponse().read(4096))
        except (OSError, HTTPException, ValueError):
            return False
    return isinstance(body, dict) and {"status", "version", "uptime_seconds"} <= body.keys()
