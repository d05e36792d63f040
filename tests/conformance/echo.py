"""An echo server for conformance suites, made of the relay's own connections and frame reader.

    python tests/conformance/echo.py --listen tcp:9001:interface=127.0.0.1 --max-message-bytes 16777216

Every path is upgraded, and every message is sent back as it was: text as text, binary as binary. Quotas, caps for
single clients, its own pings and the time limit for a message are off, because suites exceed all of them on purpose.
Memory is bounded nevertheless: a message has a limit of size and of frames, and while a peer does not read what it is
sent, it is not read from. What waits for one peer is at most the echo of its largest message and of one read from its
socket.

Refusals are written to standard error. Sizes are bytes, times seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import inf
from operator import itemgetter
from typing import Any

from twisted.internet import reactor as default_reactor

from pyryrelay.config.endpoints import Endpoint
from pyryrelay.guard import ClientAddress, Gate, GateConfig, LeaseLimits, TrustPolicy
from pyryrelay.guard.address.clientip import Via
from pyryrelay.http.connection import HttpFactory
from pyryrelay.http.listener_context import ListenerContext, LivePolicy
from pyryrelay.listen.listeners import ListenError, Listeners
from pyryrelay.protocol import HttpRefusal, HttpRequest, Message, Peer, PeerPolicy, Request
from pyryrelay.protocol_options import RoutePolicy
from pyryrelay.runtime.process import handle_signals
from pyryrelay.runtime.timer_wheel import TimerWheel
from pyryrelay.websocket.context import WebSocketLimits
from pyryrelay.websocket.factory import RelayFactory, own_queue

LISTEN = "tcp:9001:interface=127.0.0.1"
MESSAGE_BYTES = 16 * 1024 * 1024
FRAGMENTS = 1 << 20
"""Suites cut their largest messages into small frames: 4 MiB in frames of 64 bytes are 65,536 of them.

16 MiB in frames of 16 bytes are as many as this limit, and cost the reader about 80 MiB of memory until the message is
complete.
"""
CONNECTIONS = 10_000

EPILOG = """
Point a suite's client at the address that is printed, on any path. For the Autobahn testsuite that is a
fuzzingclient whose specification has "servers": [{"url": "ws://127.0.0.1:9001"}]; its cases about
compression (12.* and 13.*) do not apply, because the relay offers none. SIGTERM or Ctrl-C ends it with exit code 0.
Every client that can connect can send anything: listen beyond the loopback interface only on purpose.
"""


class Echo:
    """The application, and the session of one peer."""

    name = "echo"
    policy = PeerPolicy()
    """No limits: `EchoSession` pauses its peer instead."""

    def gate_headers(self, request: Request) -> HttpRefusal | None:
        """Accept every request."""
        return None

    def place_key(self, request: Request) -> str | None:
        """Serve every connection here."""
        return None

    def http(self, request: HttpRequest) -> HttpRefusal:
        """Refuse a request that asks for no upgrade."""
        return HttpRefusal(426, "no_upgrade")

    def opened(self, peer: Peer, request: Request) -> EchoSession:
        """Return a new session for each connection."""
        return EchoSession(peer)


class EchoSession:
    """Send a peer what it sent."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        peer.on_drain = peer.resume

    def messages(self, batch: Sequence[Message]) -> None:
        """Echo in order. If the transport cannot take all of it, pause reading until `Peer.on_drain`."""
        for binary, group in groupby(batch, key=itemgetter(1)):
            self._peer.send([payload for payload, _ in group], binary=binary)
        if self._peer.buffered_bytes:
            self._peer.pause()

    def closed(self, code: int, reason: str) -> None:
        """Do nothing: there is nothing to clean up."""


class EveryPath(Mapping[str, RelayFactory]):
    """Routes that lead to one factory, whatever the path."""

    def __init__(self, factory: RelayFactory) -> None:
        self._factory = factory

    def __getitem__(self, path: str) -> RelayFactory:
        return self._factory

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class Refusals:
    """The observer of the listener."""

    def refused(self, route: str | None, status: int, reason: str, client: ClientAddress | None) -> None:
        """Print the refusal: a suite whose handshake is refused tests nothing."""
        sys.stderr.write(f"refused a request: {status} {reason}\n")

    def attempted(self, client: ClientAddress, via: Via) -> None:
        """Do not count."""

    def decided(self, seconds: float) -> None:
        """Do not measure."""


def echo_server(reactor: Any, message_bytes: int = MESSAGE_BYTES) -> tuple[HttpFactory, RelayFactory]:
    """Return what to listen with, and the factory of upgraded connections; ``reactor`` also times deadlines."""
    now = getattr(reactor, "seconds", time.monotonic)
    limits = LeaseLimits(
        max_connections=CONNECTIONS,
        max_connections_per_address=CONNECTIONS,
        max_handshakes=CONNECTIONS,
        max_handshakes_per_address=CONNECTIONS,
    )
    gate = Gate(GateConfig(upgrade_quota=None, http_quota=None, limits=limits))
    wheel = TimerWheel(reactor, now)
    limited = WebSocketLimits(FRAGMENTS, message_timeout_s=inf, ping_interval_s=inf)
    policy = RoutePolicy(max_message_bytes=message_bytes)
    factory = RelayFactory(Echo(), policy, limited, gate, wheel, now, own_queue(reactor))
    context = ListenerContext(
        gate=gate,
        routes=EveryPath(factory),
        pages={},
        observer=Refusals(),
        wheel=wheel,
        now=now,
        live=LivePolicy(TrustPolicy()),
    )
    return HttpFactory(context), factory


def _size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write a whole number of bytes from 1 on")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Serve an echo of every WebSocket message, on the relay's own connections, for conformance suites.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--listen", metavar="ENDPOINT", default=LISTEN, help="a Twisted endpoint with a port (default: %(default)s)"
    )
    parser.add_argument(
        "--max-message-bytes",
        metavar="BYTES",
        type=_size,
        default=MESSAGE_BYTES,
        help="longer messages close their sender with 1009 (default: %(default)s, which is 16 MiB); "
        f"so do more than {FRAGMENTS:,} frames of one message, with 1008",
    )
    return parser


def main(arguments: Sequence[str] | None = None, reactor: Any = default_reactor) -> None:
    """Serve until a signal comes. Exit with code 2 where an argument is wrong or the endpoint cannot be used."""
    parser = _parser()
    options = parser.parse_args(arguments)
    entrances, factory = echo_server(reactor, options.max_message_bytes)
    listeners = Listeners(reactor)
    if Endpoint.parse(options.listen).port is None:
        # The gate admits only clients that have an address.
        parser.error(f"--listen {options.listen!r}: write tcp:PORT:interface=ADDRESS, such as {LISTEN}")
    try:
        listeners.open("--listen", options.listen, entrances)
    except ListenError as error:
        parser.error(str(error))
    reactor.addSystemEventTrigger("before", "shutdown", factory.shut_down)
    ports = [sock.getsockname()[1] for sock in listeners.sockets]
    line = f"echo listens on {options.listen}, port {ports[0]}, for messages up to {options.max_message_bytes} bytes"
    # Not before the reactor runs: from then on a signal ends it in order, even if the shell ignores that signal.
    reactor.callWhenRunning(_ready, reactor, line)
    reactor.run()


def _ready(reactor: Any, line: str) -> None:
    handle_signals(reactor, reactor.stop, lambda: None)
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
