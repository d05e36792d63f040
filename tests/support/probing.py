"""A prober without connections: what the relay answers is what a test has set."""

from __future__ import annotations

import argparse
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pyryrelay.cli.probe.steps import State, Step, Steps
from pyryrelay.protocol_options import Probe, ProbeError


@dataclass
class FakePeer:
    """A connection whose messages are answered by a function: what it returns arrives here."""

    answer: Callable[[str], Sequence[str]] = lambda text: ()
    arrived: deque[str] = field(default_factory=deque)
    sent: list[str] = field(default_factory=list)
    end: ProbeError | None = None
    is_closed: bool = False

    def send(self, text: str) -> None:
        """Send, and have the answers arrive."""
        self.sent.append(text)
        self.arrived.extend(self.answer(text))

    def receive(self) -> str:
        """Return the next message; without one the connection ends, or nothing comes in time."""
        if not self.arrived:
            raise self.end or ProbeError("nothing came", "wait")
        return self.arrived.popleft()

    def receive_within(self, seconds: float) -> str | None:
        """Return the next message, or None at once."""
        return self.arrived.popleft() if self.arrived else None

    def ping(self) -> None:
        """Be answered, unless the connection has ended."""
        if self.end is not None:
            raise self.end

    def close(self) -> str:
        """Close in order."""
        self.is_closed = True
        return "1000"


@dataclass
class FakeProber:
    """Hands out the peers of a test, in order, and keeps the steps."""

    peers: list[FakePeer] = field(default_factory=list)
    url: str = "wss://relay.example"
    path: str = ""
    page: tuple[int, bytes] = (404, b"")
    connected: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    answers: Mapping[int, str] = field(default_factory=dict)
    steps: Steps = field(default_factory=lambda: Steps(lambda: 0.0, lambda step: None))

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Take a step."""
        with self.steps.step(name) as step:
            yield step

    def warn(self, name: str, detail: str, fix: str) -> None:
        """Keep a warning."""
        self.steps.warn(name, detail, fix)

    def connect(self, who: str, path: str, headers: Mapping[str, str], answers: Mapping[int, str]) -> FakePeer:
        """Return the next peer."""
        self.connected.append((who, path, dict(headers)))
        self.answers = answers
        return self.peers[len(self.connected) - 1]

    def get(self, name: str, path: str, headers: Mapping[str, str], describe: Callable[[int, bytes], str]) -> str:
        """Return what is said about the page of the test."""
        self.connected.append((name, path, dict(headers)))
        self.peers.insert(0, FakePeer())
        return describe(*self.page)

    @property
    def told(self) -> dict[str, str]:
        """What was told about each step, with the state of those that are not fine."""
        return {
            step.name: step.detail if step.state is State.OK else f"{step.state}: {step.detail}"
            for step in self.steps.taken
        }


def visit(probe: Probe, prober: FakeProber, *words: str) -> dict[str, str]:
    """Visit with these words of a command line, and return what was told about each step."""
    parser = argparse.ArgumentParser()
    probe.add_options(parser)
    with contextlib.suppress(ProbeError):
        probe.visit(prober, parser.parse_args(words))
    return prober.told
