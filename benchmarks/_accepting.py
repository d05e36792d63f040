"""The CPU time of accepted upgrades: the load of `upgrades`, `hand_over`, `workers` and `cluster`."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Callable, Iterator
from typing import Final

from _attempts import CONCURRENCY, addresses, binary_head, open_upgraded, phone_head, reset
from _rig import Server

SETTLE_S: Final = 0.1


class Accepting:
    """A server that upgrades connections. `measure` adds the cost including disconnects to ``whole_us``.

    ``heads`` returns an endless iterator of request heads. ``at_once`` connections wait for their answers at any time.
    """

    def __init__(
        self, server: Server, heads: Callable[[], Iterator[bytes]], count: int, at_once: int = CONCURRENCY
    ) -> None:
        self._server = server
        self._heads = heads
        self._count = count
        self._at_once = at_once
        self._addresses = itertools.cycle(addresses())
        self._open(count // 4)
        self.whole_us: list[float] = []

    def _open(self, count: int) -> tuple[float, float]:
        """Return the CPU time of ``count`` upgrades, and the CPU time including their disconnects."""
        before_s = self._server.cpu_s(SETTLE_S)
        heads = itertools.islice(self._heads(), count)
        socks = open_upgraded(self._server, heads, self._addresses, at_once=self._at_once)
        open_s = self._server.cpu_s(SETTLE_S) - before_s
        reset(socks)
        return open_s, self._server.cpu_s(2 * SETTLE_S) - before_s

    def measure(self) -> float:
        """Return the microseconds per upgrade."""
        open_s, whole_s = self._open(self._count)
        self.whole_us.append(whole_s / self._count * 1e6)
        return open_s / self._count * 1e6


def binary_heads(is_wanted: Callable[[str], bool] = lambda server_id: True) -> Iterator[bytes]:
    """Return an endless iterator of heads of different binaries, whose server-ids are wanted."""
    server_ids = (f"binary-{next(_numbers)}" for _ in itertools.count())
    return (binary_head(server_id) for server_id in server_ids if is_wanted(server_id))


def phone_heads(binaries: list[socket.socket]) -> Iterator[bytes]:
    """Return the heads of phones of one binary, after reading what it was sent: it must not be a slow reader."""
    for binary in binaries:
        with contextlib.suppress(BlockingIOError):
            while binary.recv(65536, socket.MSG_DONTWAIT):
                pass
    return itertools.repeat(phone_head("theirs"))


_numbers = itertools.count()
