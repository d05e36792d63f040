"""An honest pair in a process of its own, whose round trips tell how long the relay makes others wait.

Each client waits like any other: one message goes to and fro, and the next one a millisecond later. Times are seconds.
"""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from _attempts import binary_head, opened, phone_head
from _rig import Server, cores, die_with_parent, place

PAUSE_S = 0.001
HONEST_PRIORITY = 20
MASK = bytes(4)
"""A mask that changes nothing is a mask like any other."""
PONG = b"\x8a\x00"
MESSAGE = b'{"n":1}'


def masked(payload: bytes) -> bytes:
    """A text frame (RFC 6455 section 5.2) of less than 64 KiB."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x81" + length + MASK + payload


def _payload(sock: socket.socket) -> bytes:
    """Of the next message: a frame that is smaller than what is read at once, perhaps behind pongs."""
    while not (frame := sock.recv(4096).removeprefix(PONG)):
        pass
    return frame[4:] if frame[1] == 126 else frame[2:]


def sample(server: Server, told: Connection, tls: bool = False) -> None:
    """Be an honest pair: give its round trips, in milliseconds, whenever told to; end when that is over."""
    die_with_parent()
    place(cores()[1], HONEST_PRIORITY)
    binary, phone = (opened(server, [head("honest")], tls=tls)[0] for head in (binary_head, phone_head))
    times_ms: list[float] = []
    while True:
        if told.poll():
            if not told.recv():
                return
            told.send(times_ms)
            times_ms = []
        began_s = time.perf_counter()
        phone.sendall(masked(MESSAGE))
        binary.sendall(masked(_payload(binary)))
        _payload(phone)
        times_ms.append((time.perf_counter() - began_s) * 1000)
        time.sleep(PAUSE_S)


@contextmanager
def child(run: Callable[..., None], *args: object) -> Iterator[tuple[Connection, int]]:
    """A process that runs that with the end of a pipe; the other end, and its pid."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=run, args=(*args, theirs), daemon=True)
    process.start()
    try:
        yield ours, process.pid or 0
    finally:
        process.kill()
        process.join()
