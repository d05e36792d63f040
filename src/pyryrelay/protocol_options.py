"""The part of a protocol that is needed before anything runs: its options and what follows from them. PURE.

Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from pyryrelay.guard import ThrottlePolicy

Deflate: TypeAlias = Literal["no-context", "context"]
"""How messages may be compressed (permessage-deflate, RFC 7692): each by itself, or with what was sent before."""


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """What is enforced on the connections of one application. None means unlimited.

    ``max_connections`` is the cap on all of them, ``max_per_address`` on those of one client address. ``throttle`` has
    the quotas of each connection. ``max_message_bytes`` is the largest message, and ``deflate`` how messages are
    compressed if the client asks for it (None: not at all). With "context", each connection takes about 50 KiB more.
    ``answer_fields`` are header fields of the relay's own refusals on its paths, such as those of CORS; the application
    adds them to its answers itself. These three are read at the start only. ``claims_key``: its peers hold the key that
    they name (see `pyryrelay.protocol.Application.place_key`), and those of other applications look for its holder.
    """

    max_connections: int | None = None
    max_per_address: int | None = None
    throttle: ThrottlePolicy = field(default_factory=ThrottlePolicy)
    max_message_bytes: int = 262_144
    deflate: Deflate | None = None
    answer_fields: tuple[tuple[str, str], ...] = ()
    claims_key: bool = False


class Severity(StrEnum):
    """What a finding means for the start.

    An error prevents it. So does a conflict, which is something that another process has, perhaps the relay that is to
    be reloaded: ``--check`` only notes it. A warning prevents the start with ``--production`` alone.
    """

    ERROR = "error"
    CONFLICT = "conflict"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Check:
    """A kind of finding: its name, for ``--accept-finding``, and a sentence for docs/reference/preflight.md."""

    name: str
    severity: Severity
    about: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found before the start: an option or another thing, its consequence, and the fix.

    The text is one line for the operator, without secrets.
    """

    check: Check
    what: str
    why: str
    fix: str

    def __str__(self) -> str:
        """Return the line."""
        return f"{self.what}: {self.why}; {self.fix}"


class ProbeError(Exception):
    """A step of a probe that failed: the problem, and the fix, both in words for the operator."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem}; {fix}")
        self.problem = problem
        self.fix = fix


class ProbeStep(Protocol):
    """A step that is being taken; what came of it can be told in ``detail``."""

    detail: str


class ProbePeer(Protocol):
    """An open WebSocket connection of a `Prober`. All methods raise `ProbeError` if it ends or takes too long."""

    def send(self, text: str) -> None:
        """Send a text message."""

    def receive(self) -> str:
        """Wait for a message, and return its text."""

    def receive_within(self, seconds: float) -> str | None:
        """Return the next message, or None if none arrives within so many seconds."""

    def ping(self) -> None:
        """Send a ping, and wait until it is answered. Messages that arrive meanwhile are received later."""

    def close(self) -> str:
        """Close the connection in order, and return the code and the reason of the relay, in words."""


class Prober(Protocol):
    """Visits a relay like its clients, and tells the operator about each step."""

    @property
    def url(self) -> str:
        """The URL that the operator gave: ``ws:`` or ``wss:``."""

    @property
    def path(self) -> str:
        """The path in it; "" if it has none."""

    def step(self, name: str) -> AbstractContextManager[ProbeStep]:
        """Take a step in a ``with`` statement."""

    def warn(self, name: str, detail: str, fix: str) -> None:
        """Tell about something that is not as it should be."""

    def connect(self, who: str, path: str, headers: Mapping[str, str], answers: Mapping[int, str]) -> ProbePeer:
        """Open a connection at a path, step by step. Raises `ProbeError`.

        ``who`` stands before the names of its steps. ``answers`` explains close codes, and HTTP statuses that the
        transport cannot explain.
        """

    def get(self, name: str, path: str, headers: Mapping[str, str], describe: Callable[[int, bytes], str]) -> str:
        """Ask for a page in a step of that name, and return what is described. Raises `ProbeError`.

        ``describe`` is told the status and the beginning of the body, and returns the detail of the step. Without an
        answer in HTTP the status is 0, and the body says why.
        """


class Probe(Protocol):
    """What ``pyryrelay probe`` does to a relay that should speak the protocol."""

    @property
    def visitor(self) -> str:
        """As whom it visits the relay, in words: ``a client``."""

    def add_options(self, parser: Any) -> None:
        """Add options of its own to an `argparse.ArgumentParser`."""

    def visit(self, prober: Prober, arguments: Any) -> None:
        """Visit a relay, with the parsed arguments. Raises `ProbeError` for the first step that fails."""


class ProtocolOptions(Protocol):
    """A protocol as the settings see it. ``options`` are always the settings of the relay, which include its own."""

    @property
    def name(self) -> str:
        """The name of the protocol, a fixed word."""

    @property
    def refusal_words(self) -> tuple[str, ...]:
        """The reasons of its refusals (`pyryrelay.protocol.HttpRefusal`), for ``--refusal``, logs and metrics."""

    @property
    def log_fields(self) -> frozenset[str]:
        """The fields of its log lines, in addition to those that every room may use."""

    def is_on(self, options: Any) -> bool:
        """Return whether the relay speaks the protocol; otherwise nothing of it is built or shown.

        A protocol that can be turned off has a switch with the name of the protocol. It is read at the start only.
        """

    def routes(self, options: Any) -> Mapping[str, RoutePolicy]:
        """Return the policy of each of its applications, by name."""

    @property
    def checks(self) -> tuple[Check, ...]:
        """The kinds of its findings, for documentation."""

    def probe(self) -> Probe:
        """Return what ``pyryrelay probe`` does to a relay of this protocol, whether it runs here or elsewhere."""

    def findings(self, options: Any, base: Path) -> Sequence[Finding]:
        """Return what prevents the start with these options, or is probably a mistake. Changes nothing.

        That is about the options themselves, and about the machine. Relative paths start at ``base``.
        """
