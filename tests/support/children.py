"""Child processes for tests: some that the test plays, and real ones without a reactor."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from twisted.internet.task import Clock

from pyryrelay.nostr.workers.wire import FrameBuffer, encode, frame
from pyryrelay.nostr.workers.worker_process import ChildServices


class FakeChild:
    """A child that a test plays."""

    pid: int | None = None

    def __init__(
        self, arguments: Sequence[str], received: Callable[[bytes], None], ended: Callable[[str], None]
    ) -> None:
        self.arguments = list(arguments)
        self.answer_body = received
        self.end = ended
        self.bodies: list[bytes] = []
        self.is_closed = False
        self.is_killed = False

    def send(self, body: bytes, /) -> None:
        """Keep a frame."""
        self.bodies.append(body)

    def close(self) -> None:
        """Note that the child shall end."""
        self.is_closed = True

    def kill(self) -> None:
        """Note that the child was killed."""
        self.is_killed = True

    def answer(self, message: object) -> None:
        """Send a message to the reactor's side."""
        self.answer_body(encode(message))

    def take(self, messages: Any) -> list[Any]:
        """Return the messages that were sent since the last call, of a union of types."""
        bodies, self.bodies = self.bodies, []
        return [msgspec.msgpack.decode(body, type=messages) for body in bodies]


class FakeChildren:
    """All children of a test, in the order of their start; and the restarts that were reported."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.started: list[FakeChild] = []
        self.restarts: list[tuple[str, str, float]] = []
        self.services = ChildServices(
            start_child=self._start,
            call_later=self.clock.callLater,
            now=self.clock.seconds,
            restarting=lambda role, reason, delay_s: self.restarts.append((role, reason, delay_s)),
        )

    @property
    def last(self) -> FakeChild:
        """The child that was started last."""
        return self.started[-1]

    def _start(
        self, arguments: Sequence[str], received: Callable[[bytes], None], ended: Callable[[str], None]
    ) -> FakeChild:
        self.started.append(FakeChild(arguments, received, ended))
        return self.started[-1]


class RealChild:
    """A child process of a test without a reactor: `RealChildren.pump` reads what it sends."""

    def __init__(
        self, arguments: Sequence[str], received: Callable[[bytes], None], ended: Callable[[str], None]
    ) -> None:
        self.end, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen([sys.executable, "-P", *arguments], stdin=theirs.fileno())
        self._received = received
        self._ended = ended
        self._frames = FrameBuffer()
        self._outbox = bytearray()
        self.end.setblocking(False)

    def send(self, body: bytes, /) -> None:
        """Send a frame, now or when there is room."""
        self._outbox += frame(body)
        self.flush()

    def flush(self) -> None:
        """Send what fits."""
        with contextlib.suppress(OSError):
            while self._outbox:
                del self._outbox[: self.end.send(self._outbox)]

    def close(self) -> None:
        """Let the child end."""
        with contextlib.suppress(OSError):
            self.end.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """End the child at once."""
        self.process.kill()

    def read(self) -> bool:
        """Hand over the frames that wait, and return whether the child goes on."""
        try:
            data = self.end.recv(1 << 20)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        for body in self._frames.feed(data):
            self._received(body)
        if data:
            return True
        self.end.close()
        self._ended(f"exit code {self.process.wait(60)}")
        return False


class RealChildren:
    """Real child processes, on a clock that `pump` moves with the real one."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.running: dict[str, list[RealChild]] = {"writer": [], "reader": [], "verifier": []}
        self.services = ChildServices(start_child=self._start, call_later=self.clock.callLater, now=self.clock.seconds)

    def pump(self, condition: Callable[[], object], what: str, deadline_s: float = 60.0) -> None:
        """Do what a reactor would do until a condition holds."""
        began = last = time.monotonic()
        while not condition():
            now = time.monotonic()
            assert now - began < deadline_s, f"not within {deadline_s:g} s: {what}"
            self.clock.advance(now - last)
            last = now
            children = [child for group in self.running.values() for child in group]
            select.select([child.end for child in children], [], [], 0.02)
            for role, group in self.running.items():
                for child in group:
                    child.flush()
                self.running[role] = [child for child in group if child.read()] + self.running[role][len(group) :]

    def kill(self, role: str) -> None:
        """Kill a child of a role at once."""
        self.running[role][0].process.kill()

    def _start(
        self, arguments: Sequence[str], received: Callable[[bytes], None], ended: Callable[[str], None]
    ) -> RealChild:
        child = RealChild(arguments, received, ended)
        self.running[arguments[-1]].append(child)
        return child
