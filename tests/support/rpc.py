"""Two ends of `Rpc` in memory, and workers that are no processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

from pyryrelay.handover.link import Link
from pyryrelay.workers.rpc import Rpc


class MemoryLink:
    """Carries messages to the other end at once, as JSON."""

    def __init__(self, other: Rpc) -> None:
        self.other = other
        self.is_open = True
        self.peer: MemoryLink | None = None
        self.mine: Rpc | None = None

    def send(self, kind: str, **fields: object) -> None:
        """See `Link.send`."""
        message = json.dumps({"type": kind, **fields})
        if self.is_open:
            self.other.received(json.loads(message))

    def close(self) -> None:
        """End both directions."""
        for link in (self, self.peer):
            if link is not None and link.is_open:
                link.is_open = False
                link.other.lost()


def connect(one: Rpc, other: Rpc) -> None:
    """Connect two ends in memory."""
    forth, back = MemoryLink(other), MemoryLink(one)
    forth.peer, back.peer = back, forth
    one.attach(cast(Link, forth))
    other.attach(cast(Link, back))


def rpc_pair() -> tuple[Rpc, Rpc]:
    """Return two connected ends."""
    one, other = Rpc(), Rpc()
    connect(one, other)
    return one, other


class FakeProcess:
    """The process of a worker that `FakeStarter` has started; ``worker`` is the worker's end."""

    def __init__(self, pid: int, index: int, boot: int, ended: Callable[[str], None]) -> None:
        self.pid = pid
        self.index, self.boot = index, boot
        self.rpc, self.worker = rpc_pair()
        self._ended = ended
        self.is_over = False

    def end(self, outcome: str = "exit code 0") -> None:
        """Have the process end."""
        if not self.is_over:
            self.is_over = True
            self.rpc.close()
            self._ended(outcome)

    def kill(self) -> None:
        """See `pyryrelay.workers.supervisor.Process`."""
        self.end("signal 9")


class FakeStarter:
    """Starts workers for a `Supervisor`, and keeps them in order."""

    def __init__(self) -> None:
        self.started: list[FakeProcess] = []

    def __call__(self, index: int, boot: int, ended: Callable[[str], None]) -> FakeProcess:
        """See `pyryrelay.workers.supervisor.Starter`."""
        process = FakeProcess(1000 + len(self.started), index, boot, ended)
        self.started.append(process)
        return process

    def get_ready(self, *processes: FakeProcess) -> None:
        """Have processes say that they are ready; by default all that run."""
        for process in processes or [process for process in self.started if not process.is_over]:
            process.worker.tell("ready")

    def running(self, index: int) -> Any:
        """Return the process that has an index now."""
        return next(process for process in reversed(self.started) if process.index == index)
