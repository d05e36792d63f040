"""Visits a relay step by step: the `pyryrelay.protocol_options.Prober` that scripts of protocols are given."""

from __future__ import annotations

import contextlib
import datetime
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Final

from pyryrelay import __version__
from pyryrelay.cli.probe import advice
from pyryrelay.cli.probe.peer import Peer, head_of, open_peer
from pyryrelay.cli.probe.sockets import (
    Address,
    Deadline,
    addresses_of,
    connect_any,
    secure,
)
from pyryrelay.cli.probe.steps import Step, Steps
from pyryrelay.cli.probe.target import Target
from pyryrelay.config.certificate_options import EXPIRES_SOON_DAYS
from pyryrelay.protocol_options import ProbeError

__all__ = ["MAX_PAGE_BYTES", "RelayProber"]

MAX_PAGE_BYTES: Final = 65_536
USER_AGENT: Final = f"pyryrelay-probe/{__version__}"


class RelayProber:
    """A `pyryrelay.protocol_options.Prober`. Close it in the end: it keeps the connections that it has opened."""

    def __init__(self, target: Target, steps: Steps, timeout_s: float, ca_file: str | None, *, verify: bool) -> None:
        self._target = target
        self._steps = steps
        self._timeout_s = timeout_s
        self._ca_file = ca_file
        self._verify = verify
        self._addresses: list[Address] = []
        self._peers: list[Peer] = []
        self._has_told_tls = False

    @property
    def url(self) -> str:
        """See `pyryrelay.protocol_options.Prober`."""
        return str(self._target)

    @property
    def path(self) -> str:
        """See `pyryrelay.protocol_options.Prober`."""
        return self._target.path

    def step(self, name: str) -> AbstractContextManager[Step]:
        """See `pyryrelay.protocol_options.Prober`."""
        return self._steps.step(name)

    def warn(self, name: str, detail: str, fix: str) -> None:
        """See `pyryrelay.protocol_options.Prober`."""
        self._steps.warn(name, detail, fix)

    def connect(self, who: str, path: str, headers: Mapping[str, str], answers: Mapping[int, str]) -> Peer:
        """See `pyryrelay.protocol_options.Prober`."""
        sock = self._open(f"{who}: ")
        with self.step(f"{who}: upgrade") as step, _closed_on_error(sock):
            url = self._target.url(path)
            peer = open_peer(sock, url, {"User-Agent": USER_AGENT, **headers}, answers, self._timeout_s)
            step.detail = f"101 at {path or '/'}"
        self._peers.append(peer)
        return peer

    def get(self, name: str, path: str, headers: Mapping[str, str], describe: Callable[[int, bytes], str]) -> str:
        """See `pyryrelay.protocol_options.Prober`."""
        sock = self._open("")
        with contextlib.closing(sock), self.step(name) as step:
            lines = [f"GET {path or '/'} HTTP/1.1", f"Host: {self._target.authority}", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in {"User-Agent": USER_AGENT, **headers}.items()]
            deadline = Deadline(self._timeout_s)
            with contextlib.suppress(OSError):
                deadline.apply(sock)
                sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            step.detail = describe(*_page(sock, deadline))
            return step.detail

    def close(self) -> None:
        """Close what is still open."""
        for peer in self._peers:
            peer.abort()

    def _open(self, before: str) -> socket.socket:
        """Return a connection, with TLS if the URL says so. The name is looked up once."""
        target = self._target
        if not self._addresses:
            with self.step("name") as step:
                self._addresses = addresses_of(target.host, target.port, self._timeout_s)
                step.detail = ", ".join(dict.fromkeys(str(address[4][0]) for address in self._addresses))
        failed: list[str] = []
        with self.step(f"{before}TCP") as step:
            sock, where = connect_any(self._addresses, Deadline(self._timeout_s), failed.append)
            step.detail = f"connected to {where}"
        for problem in failed:
            self.warn(f"{before}TCP", problem, "remove the address from DNS, or have the relay listen there too")
        # From now on only addresses that answer.
        self._addresses = self._addresses[len(failed) :]
        return self._secured(sock, before) if target.is_tls else sock

    def _secured(self, sock: socket.socket, before: str) -> socket.socket:
        now = datetime.datetime.now(datetime.UTC)
        with self.step(f"{before}TLS") as step:
            secured, state = secure(sock, self._target, self._ca_file, Deadline(self._timeout_s), verify=self._verify)
            step.detail = state.describe(now)
        if not self._has_told_tls:
            self._has_told_tls = True
            days = state.days_left(now)
            if days < EXPIRES_SOON_DAYS:
                self.warn("certificate", f"it ends in {days:.0f} days" if days >= 0 else "it has expired", "renew it")
            if not self._verify:
                self.warn("certificate", "it is not verified", "leave out --insecure")
        return secured


@contextlib.contextmanager
def _closed_on_error(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise


def _page(sock: socket.socket, deadline: Deadline) -> tuple[int, bytes]:
    """Return status and body of an answer, or 0 and why there is none."""
    try:
        head, _ = head_of(sock, deadline)
        return head.status, _body(sock, head.fields, head.rest, deadline)
    except ProbeError as error:
        return 0, error.problem.encode()


def _body(sock: socket.socket, fields: Mapping[str, str], rest: bytes, deadline: Deadline) -> bytes:
    """Return the beginning of a body: up to its length, `MAX_PAGE_BYTES`, or the end of the connection."""
    text = fields.get("content-length", "")
    length = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else MAX_PAGE_BYTES
    while len(rest) < min(length, MAX_PAGE_BYTES):
        try:
            deadline.apply(sock)
            data = sock.recv(MAX_PAGE_BYTES)
        except TimeoutError:
            raise advice.no_answer("the page", deadline.seconds) from None
        except OSError:
            data = b""
        if not data:
            break
        rest += data
    body = rest[: min(length, MAX_PAGE_BYTES)]
    return _dechunked(body) if fields.get("transfer-encoding", "").lower() == "chunked" else body


def _dechunked(data: bytes) -> bytes:
    """Return the content of chunks (RFC 9112 section 7.1), as far as they are there."""
    body = b""
    while b"\r\n" in data:
        line, _, data = data.partition(b"\r\n")
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            break
        if size <= 0:
            break
        body += data[:size]
        data = data[size + 2 :]
    return body
