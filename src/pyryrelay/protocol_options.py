"""The part of a protocol that is needed before anything runs: its options and what follows from them. PURE.

Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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

    def problems(self, options: Any, base: Path) -> Sequence[str]:
        """Return a line for each thing that prevents the start with these options, with the fix. Changes nothing.

        ``base`` is as for `preflight`.
        """

    def conflicts(self, options: Any, base: Path) -> Sequence[str]:
        """Return a line for each thing that another process has and this one needs, with the fix. Changes nothing.

        Like `problems`, these prevent the start; but ``--check`` only notes them, as it is used before a reload.
        """

    def warnings(self, options: Any) -> Sequence[str]:
        """Return a line for each setting that is valid but probably a mistake, with what to do about it."""

    def preflight(self, options: Any, base: Path) -> Sequence[str]:
        """Return a line for each thing that the machine lacks for these options. Changes nothing.

        Relative paths start at ``base``.
        """
