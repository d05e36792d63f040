"""The workers that are connected to a shared child, and the loop in which it works.

Unlike a child of one process, a shared one never waits for a worker that does not read: what it is sent waits here, and
a worker for which `MAX_OUTBOX_BYTES` wait is disconnected. It connects again when it reads again. From each worker that
has sent something, the loop takes `READ_BYTES` at a time, so none of them keeps the others waiting.

The child ends when the link to the supervisor ends, whoever is still connected. Times are in seconds.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
from collections.abc import Callable
from typing import Final, Protocol

from pyryrelay.nostr.workers.wire import FrameBuffer, FrameError, frame

__all__ = ["Clients", "Connected", "SharedWorker", "serve_shared"]

READ_BYTES: Final = 256 * 1024
MAX_OUTBOX_BYTES: Final = 64 * 1024 * 1024
BUFFER_BYTES: Final = 1024 * 1024
"""What the kernel is asked to buffer for each worker."""

_CREDENTIALS: Final = struct.Struct("3i")


class Connected(Protocol):
    """The workers that are connected, as what works for them sees them."""

    def send(self, number: int, body: bytes) -> None:
        """Send a frame to a worker; does nothing if it has gone."""

    def close(self, number: int) -> None:
        """Disconnect a worker when it has got everything that was sent to it."""


class SharedWorker(Protocol):
    """What a shared child does. Workers are known by numbers, which are never used twice."""

    def joined(self, number: int) -> None:
        """A worker has connected."""

    def receive(self, number: int, body: bytes) -> None:
        """Take note of a frame."""

    def left(self, number: int) -> None:
        """A worker sends nothing more. It reads on until it is disconnected, unless it has died."""

    def work(self) -> None:
        """Do a piece of the work that there is."""

    def wait_s(self) -> float | None:
        """Return after how long there is work again without another frame; 0 for now, None for never."""

    def close(self) -> None:
        """Close everything."""


class _Client:
    """One connection."""

    def __init__(self, number: int, end: socket.socket) -> None:
        self.number = number
        self.end = end
        self.frames = FrameBuffer()
        self.outbox = bytearray()
        self.is_reading = True
        self.is_closing = False


class Clients:
    """The workers that are connected; see `Connected`."""

    def __init__(self, link: socket.socket, listening: socket.socket) -> None:
        self._selector = selectors.DefaultSelector()
        self._link = link
        self._listening = listening
        for end in (link, listening):
            end.setblocking(False)
            self._selector.register(end, selectors.EVENT_READ)
        self._clients: dict[int, _Client] = {}
        self._left: list[int] = []
        self._number = 0
        self.has_ended = False
        """Whether the supervisor has ended the link."""

    def send(self, number: int, body: bytes) -> None:
        """Send a frame, now or when there is room."""
        client = self._clients.get(number)
        if client is not None and not client.is_closing:
            was_empty = not client.outbox
            client.outbox += frame(body)
            if was_empty:
                self._flush(client)
            if len(client.outbox) > MAX_OUTBOX_BYTES:
                self._drop(client)

    def close(self, number: int) -> None:
        """Disconnect a worker when it has got everything."""
        client = self._clients.get(number)
        if client is not None:
            client.is_closing = True
            self._flush(client)

    def step(self, worker: SharedWorker, wait_s: float | None) -> None:
        """Wait for something, and tell the worker about it."""
        for key, events in self._selector.select(0 if self._left else wait_s):
            if key.fileobj is self._link:
                self._look_at_link()
            elif key.fileobj is self._listening:
                self._accept(worker)
            else:
                client: _Client = key.data
                if events & selectors.EVENT_WRITE:
                    self._flush(client)
                if events & selectors.EVENT_READ and client.is_reading:
                    self._read(client, worker)
        while self._left:
            worker.left(self._left.pop())

    def end(self) -> None:
        """Disconnect everybody at once."""
        for client in list(self._clients.values()):
            self._drop(client)
        self._selector.close()

    def _look_at_link(self) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                self.has_ended = not self._link.recv(READ_BYTES)
            except ConnectionError:
                self.has_ended = True

    def _accept(self, worker: SharedWorker) -> None:
        try:
            end, _ = self._listening.accept()
        except OSError:
            return
        if not _is_of_this_user(end):
            end.close()
            return
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self._number += 1
        client = self._clients[self._number] = _Client(self._number, end)
        self._selector.register(end, selectors.EVENT_READ, client)
        worker.joined(self._number)

    def _read(self, client: _Client, worker: SharedWorker) -> None:
        try:
            data = client.end.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            bodies = client.frames.feed(data)
        except FrameError:
            self._drop(client)
            return
        for body in bodies:
            worker.receive(client.number, body)
        if not data and client.is_reading:
            client.is_reading = False
            self._left.append(client.number)
            self._watch(client)

    def _flush(self, client: _Client) -> None:
        """Send what fits, and the rest when there is room."""
        try:
            while client.outbox:
                del client.outbox[: client.end.send(client.outbox)]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        if client.is_closing and not client.outbox:
            self._drop(client)
        else:
            self._watch(client)

    def _watch(self, client: _Client) -> None:
        if client.number not in self._clients:
            return
        wanted = (selectors.EVENT_READ if client.is_reading else 0) | (selectors.EVENT_WRITE if client.outbox else 0)
        watched = self._selector.get_map().get(client.end)
        if watched is not None and not wanted:
            self._selector.unregister(client.end)
        elif watched is None and wanted:
            self._selector.register(client.end, wanted, client)
        elif watched is not None and watched.events != wanted:
            self._selector.modify(client.end, wanted, client)

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.number, None) is None:
            return
        if client.end in self._selector.get_map():
            self._selector.unregister(client.end)
        client.end.close()
        if client.is_reading:
            client.is_reading = False
            self._left.append(client.number)


def serve_shared(link: socket.socket, listening: socket.socket, make: Callable[[Connected], SharedWorker]) -> None:
    """Work for all workers that connect, until the supervisor ends the link."""
    clients = Clients(link, listening)
    worker = make(clients)
    with contextlib.closing(worker):
        while not clients.has_ended:
            clients.step(worker, worker.wait_s())
            worker.work()
    clients.end()


def _is_of_this_user(end: socket.socket) -> bool:
    """Tell whether the process at the other end has the user of this one, or cannot be asked about it."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    try:
        _, user, _ = _CREDENTIALS.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    except OSError:
        return False
    return bool(user == os.geteuid())
