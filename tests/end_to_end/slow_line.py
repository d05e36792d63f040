"""A slow line between the two machines of `network`: a delay, a rate and a queue, each way.

This is what `tc netem` does where the kernel has it. Here a TUN device at each end, which nearly every kernel has, and
a thread delay each packet as such a line would. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.end_to_end.harness import DEADLINE_S
from tests.end_to_end.network import Network, ip, within

NEAR, FAR = "203.0.113.1", "203.0.113.2"
"""The addresses of server and client on this line."""
QUEUE_BYTES = 128 * 1024
"""What the line's first router keeps of a burst; more is lost, as on a real line."""

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
"""From linux/if_tun.h."""
_NAME = "slow"
_PACKET_BYTES = 2048


class _Direction:
    """The packets on their way from one end to the other."""

    def __init__(self, source: int, target: int) -> None:
        self.source = source
        self._target = target
        self._sent_at_s = 0.0
        self._packets: list[tuple[float, int, bytes]] = []
        self._numbers = itertools.count()

    def take(self, now: float, delay_s: float, bytes_per_s: float) -> None:
        """Read the packets that are there, and note when they arrive."""
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = os.read(self.source, _PACKET_BYTES)
                begins_s = max(now, self._sent_at_s)
                if (begins_s - now) * bytes_per_s <= QUEUE_BYTES:
                    self._sent_at_s = begins_s + len(packet) / bytes_per_s
                    heapq.heappush(self._packets, (self._sent_at_s + delay_s, next(self._numbers), packet))

    def deliver(self, now: float) -> None:
        """Write the packets that have arrived."""
        while self._packets and self._packets[0][0] <= now:
            os.write(self._target, heapq.heappop(self._packets)[2])

    def due_s(self) -> float | None:
        """Return when the next packet arrives."""
        return self._packets[0][0] if self._packets else None


class SlowLine:
    """The line that the module's docstring describes, with connections from its far end."""

    def __init__(self, network: Network, delay_s: float, bits_per_s: float) -> None:
        self._network = network
        self._delay_s = delay_s
        self._bytes_per_s = bits_per_s / 8
        self._stopping = threading.Event()

    def run(self, near: int, far: int) -> None:
        """Carry packets between two TUN devices until it is stopped."""
        directions = {near: _Direction(near, far), far: _Direction(far, near)}
        while not self._stopping.is_set():
            due = [at for direction in directions.values() if (at := direction.due_s()) is not None]
            wait_s = min(0.05, max(0.0, min(due) - time.monotonic())) if due else 0.05
            readable, _, _ = select.select(list(directions), [], [], wait_s)
            now = time.monotonic()
            for fd in readable:
                directions[fd].take(now, self._delay_s, self._bytes_per_s)
            for direction in directions.values():
                direction.deliver(now)

    def stop(self) -> None:
        """Make `run` end soon."""
        self._stopping.set()

    def connection(self, port: int, timeout_s: float = DEADLINE_S) -> socket.socket:
        """Return a TCP connection to a port of the server, over this line."""
        with within(self._network.client):
            sock = socket.socket()
        try:
            sock.settimeout(timeout_s)
            sock.connect((NEAR, port))
        except BaseException:
            sock.close()
            raise
        return sock


def _tun(namespace: str, own: str, other: str) -> int:
    """Return the descriptor of a TUN device in a namespace, up and with its address. Closing it removes the device."""
    with within(namespace):
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH", _NAME.encode(), _IFF_TUN | _IFF_NO_PI))
            ip("addr", "add", own, "peer", other, "dev", _NAME)
            ip("link", "set", _NAME, "up")
        except BaseException:
            os.close(fd)
            raise
        return fd


@contextlib.contextmanager
def slow_line(network: Network, delay_s: float, bits_per_s: float) -> Iterator[SlowLine]:
    """Make a slow line for the block, with this delay and rate each way."""
    if not Path("/dev/net/tun").exists():
        pytest.skip("no slow line here: there is no /dev/net/tun")
    line = SlowLine(network, delay_s, bits_per_s)
    with contextlib.ExitStack() as stack:
        ends = []
        for namespace, own, other in ((network.server, NEAR, FAR), (network.client, FAR, NEAR)):
            ends.append(_tun(namespace, own, other))
            stack.callback(os.close, ends[-1])
        thread = threading.Thread(target=line.run, args=ends)
        thread.start()
        stack.callback(thread.join)
        stack.callback(line.stop)
        yield line
