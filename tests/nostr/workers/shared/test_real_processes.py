"""The shared children as real processes: they serve several workers, and end with their supervisor alone."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.nostr_relay import event, json_of

from pyryrelay.nostr.workers.wire import (
    Arrived,
    FrameBuffer,
    FromWriter,
    Join,
    Ready,
    Write,
    WriterConfig,
    Written,
    encode,
    frame,
)

PATIENCE_S = 60.0


class Process:
    """A shared child, and this end of its link."""

    def __init__(self, role: str, folder: Path) -> None:
        self.address = str(folder / "s")
        self._workers: list[Worker] = []
        self.link, theirs = socket.socketpair()
        with theirs, socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self.address)
            listening.listen()
            # The descriptor 3 may be in use here, so the child gets it by a shell's redirection.
            command = f'exec "$0" -P -m pyryrelay.nostr.workers.child {role} shared 3<&{listening.fileno()}'
            self.process = subprocess.Popen(
                ["/bin/bash", "-c", command, sys.executable], stdin=theirs.fileno(), pass_fds=[listening.fileno()]
            )

    def connect(self) -> Worker:
        """Connect a worker."""
        self._workers.append(Worker(self.address))
        return self._workers[-1]

    def close(self) -> None:
        """End the child at once."""
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self.link.close()
        for worker in self._workers:
            worker.end.close()


class Worker:
    """A connection."""

    def __init__(self, address: str) -> None:
        self.end = socket.socket(socket.AF_UNIX)
        self.end.settimeout(PATIENCE_S)
        self.end.connect(address)
        self._frames = FrameBuffer()
        self._waiting: list[bytes] = []

    def send(self, *messages: object) -> None:
        """Send messages, or bytes as they are."""
        for message in messages:
            self.end.sendall(frame(message if isinstance(message, bytes) else encode(message)))

    def body(self) -> bytes:
        """Return the next frame, b"" at the end."""
        while not self._waiting:
            data = self.end.recv(1 << 16)
            if not data:
                return b""
            self._waiting = self._frames.feed(data)
        return self._waiting.pop(0)

    def next(self) -> Any:
        """Return the next message of a writer."""
        return msgspec.msgpack.decode(self.body(), type=FromWriter)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Process]:
    """A writer's process."""
    made = Process("writer", tmp_path)
    yield made
    made.close()


def test_one_process_writes_for_several_workers(writer: Process, tmp_path: Path) -> None:
    """What one has stored is told to the other; one that was away gets what it has missed; the link ends it."""
    config = WriterConfig(database=f"sqlite:{tmp_path}/events.sqlite")
    one, other = writer.connect(), writer.connect()
    for worker in (one, other):
        worker.send(config, Join())
        assert worker.next() == Ready(0, 0, config.database)
    events = [json_of(event(str(number))) for number in range(3)]
    one.send(Write(7, events[:2]))
    written = one.next()
    assert isinstance(written, Written)
    assert (written.number, written.outcomes, written.seqs) == (7, [0, 0], [1, 2])
    assert other.next() == Arrived(events[:2], [1, 2])
    other.end.close()
    one.send(Write(8, events[2:]))
    one.next()
    again = writer.connect()
    again.send(config, Join(2))
    assert [again.next(), again.next()] == [Arrived(events[2:], [3]), Ready(3, 3, config.database)]
    writer.link.close()
    assert one.body() == b""
    assert writer.process.wait(PATIENCE_S) == 0


def test_the_exchange_passes_on(tmp_path: Path) -> None:
    """Frames of one worker reach the others."""
    exchange = Process("exchange", tmp_path)
    try:
        one, other = exchange.connect(), exchange.connect()
        while one.body() != b"\0\0\0\0\0\0\0\1":
            pass
        one.send(b"\0\0\0\0hello")
        while (body := other.body())[4:] != b"hello":
            assert body[:4] == b"\0\0\0\0"
        exchange.link.close()
        assert exchange.process.wait(PATIENCE_S) == 0
    finally:
        exchange.close()
