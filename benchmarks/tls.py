"""TLS endpoints under attack: round trips of an honest pair, and the costs of refusals and handshakes.

The attackers of the first rows send empty envelopes with each byte in its own TLS record, as fast as the relay reads
them, and no quota stops them. Those of the next rows start handshakes without end: from one address, which soon spends
its quota, and from fifty with the quotas off, so that only the fair queue protects others. The attackers run in
processes of their own, and so does the honest pair. The cost of handshakes is that of a client that requests a page.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import ssl
import sys
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection

from _attempts import CONCURRENCY, attempts, binary_head, connect, head, phone_head, reset
from _honest import masked
from _rig import OURS, Row, Server, alternate, arguments, die_with_parent, publish, relay
from fairness import ATTACK_S, QUICK_S, round_trips

CROWDS = {"16 binaries of 1 address": (16, 1), "100 binaries of 7 addresses": (100, 7)}
TARGETS = {16: "at most 10 x quiet", 100: "at most 35"}
QUIET, TCP, RSA, RESUMED = "quiet", "plain TCP", "RSA 2048", "resumed"
ENVELOPES, NO_QUOTA = ("--dropped-envelope-quota", "off"), ("--tls-quota", "off", "--tls-prefix-quota", "off")
ENVELOPES_AT_ONCE = 88
"""In records of one byte each, they fill a read of 16 KiB."""
SETTLE_S = 0.05


def client_context() -> ssl.SSLContext:
    """Return the context of a client that accepts any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Client:
    """TLS in memory beside a socket, so that many records can be written at once."""

    def __init__(self, server: Server, context: ssl.SSLContext, source: str | None, request: bytes) -> None:
        """Connect, do the handshake, and read the response to an upgrade request."""
        self.sock = connect(server, source)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._until(self._tls.do_handshake)
        self._tls.write(request)
        if not self._until(lambda: self._tls.read(4096)).startswith(b"HTTP/1.1 101"):
            raise RuntimeError("no upgrade")

    def _until(self, call: Callable[[], bytes | None]) -> bytes:
        while True:
            try:
                found = call()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._outgoing.read())
            else:
                self.sock.sendall(self._outgoing.read())
                return found or b""
            self._incoming.write(self.sock.recv(65536))

    def records(self, data: bytes) -> bytes:
        """Return a TLS record for each byte."""
        write = self._tls.write
        for at in range(len(data)):
            write(data[at : at + 1])
        return self._outgoing.read()


def flood_records(server: Server, count: int, addresses: int, pipe: Connection) -> None:
    """Open ``count`` connections, report that, wait for the start, and send as much as possible until killed."""
    die_with_parent()
    context = client_context()
    clients = [
        Client(server, context, f"127.77.{number % addresses}.1", binary_head(f"flood-{number}"))
        for number in range(count)
    ]
    pipe.send(len(clients))
    pipe.recv()
    envelopes = masked(b"{}") * ENVELOPES_AT_ONCE
    rest = {client.sock.fileno(): (client, b"") for client in clients}
    poll = select.epoll()
    for client in clients:
        client.sock.setblocking(False)
        poll.register(client.sock, select.EPOLLOUT)
    while rest:
        for fd, _ in poll.poll():
            client, left = rest[fd]
            data = left or client.records(envelopes)
            try:
                rest[fd] = client, data[client.sock.send(data) :]
            except OSError:
                poll.unregister(fd)
                del rest[fd]


def hello() -> bytes:
    """Return the first bytes of a handshake."""
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        client_context().wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


def flood_handshakes(server: Server, addresses: int, pipe: Connection) -> None:
    """Start handshakes and reset the connections once they are answered, many at a time, until killed."""
    die_with_parent()
    first = hello()
    pipe.send(addresses)
    pipe.recv()
    window: list[socket.socket] = []
    for number in itertools.count():
        try:
            sock = connect(server, f"127.66.7.{number % addresses + 1}")
            sock.send(first)
        except OSError:
            continue
        window.append(sock)
        if len(window) == CONCURRENCY:
            oldest = window.pop(0)
            with contextlib.suppress(OSError):
                oldest.recv(4096)
            reset([oldest])


def attacked(
    name: str,
    target: str,
    rounds: int,
    for_s: float,
    flood: Callable[..., None],
    *counts: int,
    options: tuple[str, ...],
) -> list[Row]:
    """Return the rows of round trips during a flood, and of how long the relay is busy after the flood was killed."""
    found = []
    for _ in range(rounds):
        with relay(*options, tls=True, generous=False) as server:
            found.append(list(round_trips(server, partial(flood, server, *counts), for_s, tls=True)))
    quiet, attacked_ms, busy = (list(column) for column in zip(*found, strict=True))
    return [
        Row(f"round trip of others, {name}", "ms, p50", {OURS: attacked_ms, QUIET: quiet}, target, baseline=QUIET),
        Row(f"busy after they left, {name}", "s", {OURS: busy}, "at most 2"),
    ]


def cost_us(server: Server, count: int, act: Callable[[Server, int], None]) -> float:
    """Return the microseconds of the server's CPU time per call."""
    began_s = server.cpu_s(SETTLE_S)
    act(server, count)
    return (server.cpu_s(SETTLE_S) - began_s) / count * 1e6


def refused(rounds: int, count: int) -> Row:
    """Measure a connection without a token, over TLS and over TCP."""
    first = hello()

    def attempt(data: bytes, server: Server, count: int) -> None:
        attempts(server, data, count)

    with (
        relay("--tls-quota", "1/hour", "--jail-after", "off", tls=True, generous=False) as tls,
        relay("--upgrade-quota", "1/hour", "--jail-after", "off", generous=False) as tcp,
    ):
        contestants = {OURS: (tls, first), TCP: (tcp, phone_head("unknown"))}
        for server, data in contestants.values():
            with connect(server) as only:
                only.sendall(data)
                only.recv(4096)
            attempts(server, data, 200)
        measured = {
            name: partial(cost_us, one, count, partial(attempt, data)) for name, (one, data) in contestants.items()
        }
        results = alternate(rounds, measured)
    return Row("refused TLS connection", "µs", results, f"at most 1.1 x {TCP}", baseline=TCP)


def pages(server: Server, count: int, *, resume: bool) -> None:
    """Request a page ``count`` times, each time with a handshake."""
    context = client_context()
    session: ssl.SSLSession | None = None
    request = head("/nowhere", "unknown")
    for _ in range(count):
        with context.wrap_socket(connect(server), session=session) as sock:
            sock.sendall(request)
            while sock.recv(4096):
                pass
            if resume and session is None:
                session = sock.session


def handshakes(rounds: int, count: int) -> Row:
    """Measure a client that requests a page, with each kind of key and with a session ticket."""
    with relay(tls=True) as ecdsa, relay(tls=True, rsa=True) as rsa:
        results = alternate(
            rounds,
            {
                OURS: lambda: cost_us(ecdsa, count, partial(pages, resume=False)),
                RSA: lambda: cost_us(rsa, count, partial(pages, resume=False)),
                RESUMED: lambda: cost_us(ecdsa, count, partial(pages, resume=True)),
            },
        )
    note = "ECDSA with P-256; the other one with a key of RSA; and with a ticket of an earlier session"
    return Row("handshake, request and answer", "µs", results, baseline=RSA, note=note)


def main() -> int:
    """Measure, and print the results."""
    options = arguments(__doc__ or "")
    rounds, for_s, count = (1, QUICK_S, 300) if options.quick else (2, ATTACK_S, 2000)
    rounds = options.rounds or rounds
    rows = []
    for who, crowd in CROWDS.items():
        name, target = f"{who} send one-byte records", TARGETS[crowd[0]]
        rows += attacked(name, target, rounds, for_s, flood_records, *crowd, options=ENVELOPES)
    target = TARGETS[16]
    rows += attacked("handshake flood of 1 address", target, rounds, for_s, flood_handshakes, 1, options=())
    rows += attacked("the same of 50, no quota", target, rounds, for_s, flood_handshakes, 50, options=NO_QUOTA)
    rows += [refused(rounds + 1, count), handshakes(rounds + 1, count // 4)]
    publish(rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
