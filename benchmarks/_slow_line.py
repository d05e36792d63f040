"""A slow link between the two machines of `_network`, with a delay, a rate and a queue in each direction.

Not every kernel has `tc netem`, but nearly all have TUN devices. There is one at each end, and a thread that delays
each packet as the link would. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import os
import select
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from _network import inside

NEAR, FAR = "203.0.113.1", "203.0.113.2"
QUEUE_BYTES = 128 * 1024
_TUN = Path("/dev/net/tun")
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def possible() -> bool:
    """Return whether `slow_line` works here, if `_network` does."""
    return _TUN.exists()


class _Direction:
    """Packets in flight in one direction."""

    def __init__(self, source: int, target: int) -> None:
        self._source, self._target = source, target
        self._sent_at_s = 0.0
        self._numbers = itertools.count()
        self.packets: list[tuple[float, int, bytes]] = []

    def take(self, now: float, delay_s: float, bytes_per_s: float) -> None:
        """Read a packet; drop it if the queue is full."""
        packet = os.read(self._source, 2048)
        begins_s = max(now, self._sent_at_s)
        if (begins_s - now) * bytes_per_s <= QUEUE_BYTES:
            self._sent_at_s = begins_s + len(packet) / bytes_per_s
            heapq.heappush(self.packets, (self._sent_at_s + delay_s, next(self._numbers), packet))

    def deliver(self, now: float) -> None:
        """Write the packets that have arrived."""
        while self.packets and self.packets[0][0] <= now:
            os.write(self._target, heapq.heappop(self.packets)[2])


def _carry(near: int, far: int, delay_s: float, bytes_per_s: float, stopping: threading.Event) -> None:
    directions = {near: _Direction(near, far), far: _Direction(far, near)}
    while not stopping.is_set():
        due_s = min((way.packets[0][0] for way in directions.values() if way.packets), default=time.monotonic() + 0.05)
        readable, _, _ = select.select(list(directions), [], [], max(0.0, min(0.05, due_s - time.monotonic())))
        now = time.monotonic()
        for end in readable:
            directions[end].take(now, delay_s, bytes_per_s)
        for way in directions.values():
            way.deliver(now)


def _tun(own: str, other: str) -> int:
    device = os.open(_TUN, os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", b"slow", _IFF_TUN | _IFF_NO_PI))
    for command in (("addr", "add", own, "peer", other, "dev", "slow"), ("link", "set", "slow", "up")):
        subprocess.run(["ip", *command], check=True, capture_output=True)
    return device


@contextlib.contextmanager
def slow_line(client: str, delay_s: float, bits_per_s: float) -> Iterator[None]:
    """Set up such a link from here, which is `NEAR`, to the namespace ``client``."""
    with contextlib.ExitStack() as stack:
        near = _tun(NEAR, FAR)
        stack.callback(os.close, near)
        with inside(client):
            far = _tun(FAR, NEAR)
        stack.callback(os.close, far)
        stopping = threading.Event()
        thread = threading.Thread(target=_carry, args=(near, far, delay_s, bits_per_s / 8, stopping), daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(stopping.set)
        yield
