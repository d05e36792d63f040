"""The part of a protocol that is needed before anything runs: its options and what follows from them. PURE.

Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    adds them to its answers itself. These three are read at the start only.
    """

    max_connections: int | None = None
    max_per_address: int | None = None
    throttle: ThrottlePolicy = field(default_factory=ThrottlePolicy)
    max_message_bytes: int = 262_144
    deflate: Deflate | None = None
    answer_fields: tuple[tuple[str, str], ...] = ()


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

    def findings(self, options: Any, base: Path) -> Sequence[Finding]:
        """Return what prevents the start with these options, or is probably a mistake. Changes nothing.

        That is about the options themselves, and about the machine. Relative paths start at ``base``.
        """
