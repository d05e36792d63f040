"""An honest pair in a process of its own, whose round trips show how long the relay delays other peers.

The pair exchanges one message, and the next one a millisecond later. Times are seconds.
"""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from _attempts import binary_head, open_upgraded, phone_head
from _rig import Server, cores, die_with_parent, pin

PAUSE_S = 0.001
HONEST_PRIORITY = 20
MASK = bytes(4)
"""A mask of zeros is valid and leaves the payload unchanged."""
PONG = b"\x8a\x00"
MESSAGE = b'{"n":1}'


def masked(payload: bytes) -> bytes:
    """Return a text frame (RFC 6455 section 5.2) of less than 64 KiB."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x81" + length + MASK + payload


def _payload(sock: socket.socket) -> bytes:
    """Return the payload of the next message, which must fit in one read; skip pongs."""
    while not (frame := sock.recv(4096).removeprefix(PONG)):
        pass
    return frame[4:] if frame[1] == 126 else frame[2:]


def run_honest_pair(server: Server, pipe: Connection, tls: bool = False) -> None:
    """Run an honest pair: send the round trips so far (ms) when True is received, and return when False is."""
    die_with_parent()
    pin(cores()[1], HONEST_PRIORITY)
    binary, phone = (open_upgraded(server, [head("honest")], tls=tls)[0] for head in (binary_head, phone_head))
    times_ms: list[float] = []
    while True:
        if pipe.poll():
            if not pipe.recv():
                return
            pipe.send(times_ms)
            times_ms = []
        began_s = time.perf_counter()
        phone.sendall(masked(MESSAGE))
        binary.sendall(masked(_payload(binary)))
        _payload(phone)
        times_ms.append((time.perf_counter() - began_s) * 1000)
        time.sleep(PAUSE_S)


@contextmanager
def child_process(run: Callable[..., None], *args: object) -> Iterator[tuple[Connection, int]]:
    """Run a function in a process with one end of a pipe; yield the other end and the process number."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=run, args=(*args, theirs), daemon=True)
    process.start()
    try:
        yield ours, process.pid or 0
    finally:
        process.kill()
        process.join()
