"""CPU time of the server per accepted upgrade until the peer may send, in microseconds.

A thousand connections are opened, 32 at a time. Each sends its request head at once and waits for 101; the server's CPU
time is divided by their number. Then all are reset at once, and the second row has the whole cost, including
disconnects. Ours: phones that join one binary, and binaries that claim a server-id each. It is compared with plain
Autobahn that accepts every client and does nothing else, and a relay given by `--peer`.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Final

from _attempts import addresses, binary_head, open_upgraded, phone_head, reset
from _rig import AUTOBAHN, OURS, Row, Server, alternate, arguments, peer, publish, relay, rival

SETTLE_S: Final = 0.1
BINARIES, PHONES = "pyryrelay, binaries", "pyryrelay, phones"


class Contestant:
    """A server that upgrades connections. `measure` adds the cost including disconnects to ``whole_us``."""

    def __init__(self, server: Server, heads: Callable[[], Iterator[bytes]], count: int) -> None:
        self._server = server
        self._heads = heads
        self._count = count
        self._addresses = addresses()
        self._open(count // 4)
        self.whole_us: list[float] = []

    def _open(self, count: int) -> tuple[float, float]:
        """Return the CPU time of ``count`` upgrades, and the CPU time including their disconnects."""
        before_s = self._server.cpu_s(SETTLE_S)
        socks = open_upgraded(self._server, itertools.islice(self._heads(), count), self._addresses)
        open_s = self._server.cpu_s(SETTLE_S) - before_s
        reset(socks)
        return open_s, self._server.cpu_s(2 * SETTLE_S) - before_s

    def measure(self) -> float:
        """Return the microseconds per upgrade."""
        open_s, whole_s = self._open(self._count)
        self.whole_us.append(whole_s / self._count * 1e6)
        return open_s / self._count * 1e6


def binary_heads() -> Iterator[bytes]:
    """Return an endless iterator of heads of different binaries."""
    return (binary_head(f"binary-{next(_numbers)}") for _ in itertools.count())


def phone_heads(binaries: list[socket.socket]) -> Iterator[bytes]:
    """Return the heads of phones of one binary, after reading what it was sent: it must not be a slow reader."""
    for binary in binaries:
        with contextlib.suppress(BlockingIOError):
            while binary.recv(65536, socket.MSG_DONTWAIT):
                pass
    return itertools.repeat(phone_head("theirs"))


_numbers = itertools.count()


def main() -> int:
    """Measure, and print the results."""
    options = arguments(__doc__ or "")
    count, rounds = (300, 3) if options.quick else (1000, 7)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(relay())
        plain = stack.enter_context(rival("autobahn_deny", "--accept"))
        binaries = open_upgraded(ours, [binary_head("theirs")])
        stack.callback(reset, binaries)
        found = {
            PHONES: Contestant(ours, lambda: phone_heads(binaries), count),
            BINARIES: Contestant(ours, binary_heads, count),
            AUTOBAHN: Contestant(plain, binary_heads, count),
        }
        if options.peer:
            found["peer"] = Contestant(stack.enter_context(peer(options.peer)), binary_heads, count)
        results = alternate(options.rounds or rounds, {name: one.measure for name, one in found.items()})
    whole = {name: one.whole_us for name, one in found.items()}
    rows = []
    for name, figures, target in (("until it may send", results, "at most 150"), ("with its end", whole, "")):
        others = {other: figures[other] for other in (AUTOBAHN, "peer") if other in figures}
        for kind, contestant in (("phone", PHONES), ("binary", BINARIES)):
            measured = {OURS: figures[contestant], **others}
            rows.append(Row(f"upgrade of a {kind}, {name}", "µs", measured, target, baseline=AUTOBAHN))
    publish(rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
