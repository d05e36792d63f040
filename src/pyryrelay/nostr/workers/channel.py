"""A child's end of the stream to the reactor's process, and the loop in which it works.

The socket is blocking: a child has nothing else to do while it cannot send.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import traceback
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import Final, Protocol, TypeAlias, TypeVar

from pyryrelay.nostr.storage.interface import OlderStoreError, StoreError
from pyryrelay.nostr.workers.wire import FrameBuffer, encode, frame

__all__ = [
    "Channel",
    "GivingWay",
    "GoneError",
    "Poll",
    "Send",
    "SendTogether",
    "Worker",
    "nothing",
    "patiently",
    "problem",
    "serve",
]

READ_BYTES: Final = 256 * 1024
PATIENCE_S: Final = 1.0
"""How long a child tries to open a store."""
UPGRADE_PATIENCE_S: Final = 30.0
"""How long it does if the writer has to upgrade the store first. Then the child is started again, and goes on."""
RETRY_S: Final = 0.02

GIVE_WAY_S: Final = 0.0003
"""How often a child lets others run."""
MOST_TAKEN: Final = 3
"""How many times as much time others get as the child at most, though they would compute for longer."""

T = TypeVar("T")

Send: TypeAlias = Callable[[object], None]
"""Send a message to the reactor's process. Raises `GoneError`."""


class SendTogether(Protocol):
    """Send messages to the reactor's process at once, so that it wakes up once for all of them. Raises `GoneError`."""

    def __call__(self, *messages: object) -> None:
        """Send them in this order."""


Poll: TypeAlias = Callable[[], Sequence[bytes]]
"""Return the frames that have arrived meanwhile. Raises `GoneError`."""


class GoneError(Exception):
    """There is nobody at the other end any more."""


class Channel:
    """Frames from and messages to the reactor's process."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._socket.setblocking(True)
        self._frames = FrameBuffer()

    def receive(self, wait_s: float | None) -> list[bytes]:
        """Return the frames that have arrived, perhaps none; if none wait, wait up to ``wait_s``, for ever if None.

        Raises:
            GoneError: the other end was closed, and all that it had sent before was returned.
            FrameError: the stream is out of step.
        """
        if wait_s is not None and not select.select([self._socket], [], [], wait_s)[0]:
            return []
        try:
            data = self._socket.recv(READ_BYTES)
        except OSError:
            data = b""
        if not data:
            raise GoneError
        return self._frames.feed(data)

    def send(self, *messages: object) -> None:
        """Send messages together, and wait until the other end has room for them. Raises `GoneError`."""
        try:
            self._socket.sendall(b"".join(frame(encode(message)) for message in messages))
        except OSError:
            raise GoneError from None


class Worker(Protocol):
    """What a child does."""

    def receive(self, body: bytes) -> None:
        """Take note of a frame."""

    def work(self, poll: Poll, /) -> None:
        """Do a piece of the work that there is. A long one may take frames meanwhile, for which it asks ``poll``."""

    def wait_s(self) -> float | None:
        """Return after how long there is work again without another frame; 0 for now, None for never."""

    def close(self) -> None:
        """Close the store."""


def serve(channel: Channel, open_worker: Callable[[bytes, SendTogether], Worker]) -> None:
    """Open a worker with the first frame, and let it work until the other end is closed."""
    frames: list[bytes] = []
    try:
        while not frames:
            frames = channel.receive(None)
        config, *frames = frames
        worker = open_worker(config, channel.send)
    except GoneError:
        return

    def poll() -> Sequence[bytes]:
        return channel.receive(0.0)

    with contextlib.closing(worker), contextlib.suppress(GoneError):
        while True:
            for body in frames:
                worker.receive(body)
            worker.work(poll)
            frames = channel.receive(worker.wait_s())


class GivingWay:
    """Lets other processes run that wait for the child's processor, every `GIVE_WAY_S` at most.

    A lower priority does not do that alone. A process that has had its share waits until the system's clock ticks, up
    to 4 ms, while one of lower priority computes and another processor may be idle.

    Args:
        now: the monotonic clock, in seconds.
        give_way: lets other processes run, and returns when it is this one's turn again.
    """

    def __init__(self, now: Callable[[], float], give_way: Callable[[], None] = os.sched_yield) -> None:
        self._now = now
        self._give_way = give_way
        self._next_s = now()

    def __call__(self) -> float:
        """Let others run, unless they did lately, and return the time."""
        began_s = self._now()
        if began_s < self._next_s:
            return began_s
        self._give_way()
        now = self._now()
        self._next_s = now + max(GIVE_WAY_S, (now - began_s) / MOST_TAKEN)
        return now


def nothing() -> Sequence[bytes]:
    """Return no frames: a `Poll` for work that nothing interrupts."""
    return ()


def patiently(open_store: Callable[[], T]) -> T:
    """Open a store, which another child may be about to create or to upgrade. Raises `StoreError` if it does not."""
    began_s = monotonic()
    while True:
        try:
            return open_store()
        except StoreError as error:
            patience_s = UPGRADE_PATIENCE_S if isinstance(error, OlderStoreError) else PATIENCE_S
            if monotonic() - began_s >= patience_s:
                raise
        sleep(RETRY_S)


def problem(error: Exception) -> str:
    """Return one line about an error: the text of a `StoreError`, else its type and the place in the code."""
    if isinstance(error, StoreError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in line {place.lineno} of {place.filename}"
