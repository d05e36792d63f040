"""A switch between network namespaces that loses and delays frames as it is told.

    python -m tests.chaos.network.switch SEED INTERFACE=NUMBER...

It takes the place of a bridge and of `tc netem`, which not every kernel has. Frames come and go through packet sockets,
one for each machine, which is found by its hardware address; see `rules`. Each line of the standard input is a JSON
array, source, destination, loss and delay in seconds, and is answered by a line as soon as it holds. An empty array is
answered by a JSON array: number of a machine, or 0 for all, since, until, for each time in which the switch was late so
far; see `Lateness`. The switch ends with its standard input, so it never outlives the process that made it.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import selectors
import socket
import struct
import sys
import time
from itertools import count

from tests.chaos.network.lateness import TICK_S, Lateness
from tests.chaos.network.rules import Path, Paths, State, mac_of

_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 6, 15, 23
"""From linux/if_packet.h; the socket module does not have them."""
_SO_TIMESTAMPNS = 35
"""From asm-generic/socket.h."""
_VNET_BYTES = 10
"""The header that says what the sender left to the hardware: checksums, and how to cut large segments."""
_MOST_BYTES = 1 << 17


class Switch:
    """See the module's docstring. ``ports`` are the interfaces, by the numbers of their machines."""

    def __init__(self, ports: dict[str, int], paths: Paths) -> None:
        self.paths = paths
        self.sockets = {number: _packet_socket(name) for name, number in ports.items()}
        self._numbers = {mac_of(number): number for number in self.sockets}
        self._late: list[tuple[float, int, int, bytes]] = []
        self._counter = count()
        self._untimed: set[int] = set()
        self.lateness = Lateness(time.time(), self.sockets)

    def tick(self) -> None:
        """Find out from time to time whether this is late: how old frames are by now, and whether some are lost."""
        now = time.time()
        if not self.lateness.is_due(now):
            return
        self.lateness.ticked(now)
        self._untimed = set(self.sockets)
        for number, sock in self.sockets.items():
            # Reading the sums sets them to 0.
            lost = struct.unpack("=II", sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
            if lost:
                self.lateness.lost(number, now)

    def _receive(self, source: int) -> bytes:
        if source not in self._untimed:
            return self.sockets[source].recv(_MOST_BYTES)
        frame, told, _, _ = self.sockets[source].recvmsg(_MOST_BYTES, 64)
        self._untimed.discard(source)
        for _, kind, data in told:
            if kind == _SO_TIMESTAMPNS:
                seconds, nanos = struct.unpack("@ll", data)
                self.lateness.taken(source, seconds + nanos / 1e9, time.time())
        return frame

    def take(self, source: int) -> None:
        """Pass on the frames that have come from a machine."""
        for _ in range(64):
            try:
                frame = self._receive(source)
            except BlockingIOError:
                return
            destination = self._numbers.get(frame[_VNET_BYTES : _VNET_BYTES + 6])
            if destination is None:
                continue  # machines know each other's addresses, so nothing of use is sent to all
            delay_s = self.paths.delay(Path(source, destination))
            if delay_s:
                heapq.heappush(self._late, (time.monotonic() + delay_s, next(self._counter), destination, frame))
            elif delay_s is not None:
                self._give(destination, frame)

    def _give(self, destination: int, frame: bytes) -> None:
        with contextlib.suppress(OSError):  # a full queue: one more frame is lost
            self.sockets[destination].send(frame)

    def give_late(self) -> float:
        """Pass on what has waited long enough; return how long until the next, or the next tick."""
        while self._late:
            left_s = self._late[0][0] - time.monotonic()
            if left_s > 0:
                return min(left_s, TICK_S)
            _, _, destination, frame = heapq.heappop(self._late)
            self._give(destination, frame)
        return TICK_S

    def told(self, words: list[float]) -> bytes:
        """Do what a line asks for, and return its answer."""
        if not words:
            return json.dumps(self.lateness.times()).encode() + b"\n"
        source, destination, loss, delay_s = words
        self.paths.set(Path(int(source), int(destination)), State(loss, delay_s))
        return b"done\n"


def _packet_socket(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setblocking(False)
    sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    sock.bind((interface, _ETH_P_ALL))
    return sock


def main() -> None:
    """Serve until the standard input ends."""
    seed, *ports = sys.argv[1:]
    named = (word.partition("=") for word in ports)
    switch = Switch({name: int(number) for name, _, number in named}, Paths(int(seed)))
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    for number, sock in switch.sockets.items():
        selector.register(sock, selectors.EVENT_READ, number)
    os.write(1, b"ready\n")
    rest = b""
    while True:
        ready = selector.select(switch.give_late())
        switch.tick()
        for key, _ in ready:
            if key.fd:
                switch.take(key.data)
                continue
            data = os.read(0, 1 << 16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                os.write(1, switch.told(json.loads(line)))


if __name__ == "__main__":
    main()
