"""Phones that share a binary on a slow link, and a challenge of a binary on a very slow link.

The link is between network namespaces: 20 ms and 1 Mbit/s, or 64 kbit/s, in each direction. A greedy phone sends long
frames to the binary as fast as the relay reads them. A sibling sends a short frame from time to time, and the first
figure is how long that takes to the binary. A message that has begun cannot be interrupted. So behind frames of 200
kB, each of which takes 1.8 s on that link, the median cannot be less than 0.9 s for any relay. The second figure is
how long it takes until a challenger is told that the binary is alive, with 10 s for its pong. A binary that loses its
server-id counts as 60 s. This needs root and TUN devices.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO

import _frames
import _network
import _slow_line
from _attempts import binary_head, open_upgraded, phone_head, reset
from _honest import masked
from _rig import OURS, Row, Server, arguments, publish, relay

MEGABIT, MODEM = 1_000_000.0, 64_000.0
DELAY_S, SETTLE_S = 0.02, 3.0
SIZES = {"200 kB": 200_000, "20 kB": 20_000}
SAMPLES, QUICK_SAMPLES = 20, 4
LOST_S = 60.0
CLOSE, CONFLICT = 0x8, 4409
_numbers = itertools.count()


def messages(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield opcode and payload of each message from a server, reassembled from fragments, until the connection ends."""
    parts, opcode = [], 0
    with contextlib.suppress(OSError, ValueError):
        while len(start := stream.read(2) or b"") == 2:
            size = start[1]
            if size >= 126:
                size = int.from_bytes(stream.read(2 if size == 126 else 8), "big")
            payload = stream.read(size)
            if start[0] & 0xF >= CLOSE:
                yield start[0] & 0xF, payload
                continue
            opcode = start[0] & 0xF or opcode
            parts.append(payload)
            if start[0] & 0x80:
                yield opcode, b"".join(parts)
                parts = []


def pong(sock: socket.socket, payload: bytes) -> None:
    """Answer a ping."""
    sock.sendall(bytes((0x8A, 0x80 | len(payload))) + bytes(4) + payload)


class SlowBinary:
    """A binary at the far end of the link, a greedy phone and its sibling."""

    def __init__(self, server: Server, client: str, size: int) -> None:
        self.server_id = f"slow-{next(_numbers)}"
        far = Server(0, server.port, server.directory, _slow_line.NEAR)
        with _network.inside(client):
            self.binary = open_upgraded(far, [binary_head(self.server_id)])[0]
        self.binary.settimeout(None)
        self.greedy, self.sibling = (open_upgraded(server, [phone_head(self.server_id)])[0] for _ in range(2))
        self.times_s: list[float] = []
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._read, lambda: self._flood(size))]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        for opcode, payload in messages(self.binary.makefile("rb")):
            if opcode == 0x9:
                with contextlib.suppress(OSError):
                    pong(self.binary, payload)
            elif isinstance(sent_s := json.loads(payload).get("frame") if opcode == 0x1 else None, float):
                self.times_s.append(time.monotonic() - sent_s)

    def _flood(self, size: int) -> None:
        frame = _frames.masked(b'"' + b"x" * (size - 2) + b'"')
        with contextlib.suppress(OSError):
            while True:
                self.greedy.sendall(frame)

    def close(self) -> None:
        """Close all connections."""
        for sock in (self.greedy, self.sibling, self.binary):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        reset((self.greedy, self.sibling, self.binary))


def siblings(server: Server, client: str, size: int, samples: int) -> list[float]:
    """Return how long each of the sibling's frames took, in seconds; `LOST_S` for a frame that did not arrive."""
    with _slow_line.slow_line(client, DELAY_S, MEGABIT), contextlib.closing(SlowBinary(server, client, size)) as slow:
        time.sleep(SETTLE_S)
        for _ in range(samples):
            slow.sibling.sendall(masked(json.dumps(time.monotonic()).encode()))
            time.sleep(random.uniform(0.5, 1.5))
        end_s = time.monotonic() + LOST_S
        while len(slow.times_s) < samples and time.monotonic() < end_s:
            time.sleep(0.1)
        return slow.times_s + [LOST_S] * (samples - len(slow.times_s))


def challenge(server: Server, client: str) -> float:
    """Return how long a challenger waits for the answer, in seconds."""
    size = SIZES["200 kB"]
    with _slow_line.slow_line(client, DELAY_S, MODEM), contextlib.closing(SlowBinary(server, client, size)) as slow:
        time.sleep(SETTLE_S)
        began_s = time.monotonic()
        (challenger,) = open_upgraded(server, [binary_head(slow.server_id)])
        challenger.settimeout(12)
        answer = next(messages(challenger.makefile("rb")), (0, b""))
        took_s = time.monotonic() - began_s
        reset([challenger])
        return took_s if answer[0] == CLOSE and int.from_bytes(answer[1][:2], "big") == CONFLICT else LOST_S


def measure(rounds: int, samples: int) -> list[Row]:
    """Return all rows."""
    rows = []
    with _network.two_machines() as client, relay("--frame-quota", "off", host="0.0.0.0") as server:
        for name, size in SIZES.items():
            times_s = siblings(server, client, size, samples)
            what = f"sibling's frame at a 1 Mbit/s binary, behind frames of {name}"
            rows.append(Row(what, "s", {OURS: times_s}, "at most 1"))
            print(f"{name}: median {statistics.median(times_s):.2f} s", file=sys.stderr)
        answers_s = [challenge(server, client) for _ in range(rounds)]
        rows.append(Row("challenger told that a 64 kbit/s binary is alive", "s", {OURS: answers_s}, "at most 10"))
    return rows


def main() -> int:
    """Measure, and print the results."""
    options = arguments(__doc__ or "")
    if not (_network.possible() and _slow_line.possible()):
        publish([Row("sibling's frame at a 1 Mbit/s binary", "s", {OURS: []}, note="needs root and TUN")], options)
        return 0
    quick = options.quick
    publish(measure(options.rounds or (1 if quick else 3), QUICK_SAMPLES if quick else SAMPLES), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
