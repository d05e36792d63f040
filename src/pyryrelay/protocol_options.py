"""What a protocol brings before anything runs: its options and what follows from them. PURE.

Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pyryrelay.guard import ThrottlePolicy


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """What is enforced on the connections of one application; None is unlimited.

    ``max_connections`` caps all of them, ``max_per_address`` those of one client address; ``throttle`` has the quotas
    of each. ``max_message_bytes`` is what one message may have, and is read at the start only.
    """

    max_connections: int | None = None
    max_per_address: int | None = None
    throttle: ThrottlePolicy = field(default_factory=ThrottlePolicy)
    max_message_bytes: int = 262_144


class ProtocolOptions(Protocol):
    """A protocol as its options see it. ``options`` is always the settings of the relay, which hold them."""

    @property
    def name(self) -> str:
        """A fixed word."""

    @property
    def refusal_words(self) -> tuple[str, ...]:
        """The reasons of its own `pyryrelay.protocol.HttpRefusal`, for ``--refusal``, logs and metrics."""

    @property
    def log_fields(self) -> frozenset[str]:
        """The fields that its log lines carry, beside those that every room may use."""

    def routes(self, options: Any) -> Mapping[str, RoutePolicy]:
        """Return what is enforced on each of its applications, by name."""

    def warnings(self, options: Any) -> Sequence[str]:
        """Return what is legal and probably a mistake, one line each, with what to do about it."""

    def preflight(self, options: Any, base: Path) -> Sequence[str]:
        """Return what the machine lacks for these options, one line each, and change nothing.

        Relative paths count from ``base``.
        """
