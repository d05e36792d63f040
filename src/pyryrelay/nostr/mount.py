"""The Nostr relay as the house mounts it: an implementation of `pyryrelay.protocol.ProtocolKind`.

Every relay imports this module, and most do not speak Nostr: what only those need that do is imported by functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pyryrelay.nostr.information import CORS, REFUSAL_WORDS, ROUTE
from pyryrelay.nostr.observe.log import LOG_FIELDS
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.protocol import RunningProtocol, Services
from pyryrelay.protocol_options import Check, Finding, Probe, RoutePolicy

_VERIFYING_LIBRARY: Final = "coincurve"


class _NostrKind:
    """See `pyryrelay.protocol.ProtocolKind`."""

    name = "nostr"
    refusal_words = REFUSAL_WORDS
    log_fields = LOG_FIELDS

    @property
    def checks(self) -> tuple[Check, ...]:
        """The kinds of its findings."""
        from pyryrelay.nostr.options.checks import CHECKS

        return CHECKS

    def is_on(self, options: NostrOptions) -> bool:
        """Return whether the relay speaks Nostr."""
        return options.nostr

    def routes(self, options: NostrOptions) -> Mapping[str, RoutePolicy]:
        """Return the policy of the relay's connections."""
        return {
            ROUTE: RoutePolicy(
                max_connections=options.max_nostr_connections,
                throttle=options.nostr_throttle(),
                max_message_bytes=options.nostr_max_message_bytes,
                deflate=None if options.nostr_deflate == "off" else options.nostr_deflate,
                answer_fields=CORS,
            )
        }

    def probe(self) -> Probe:
        """Return the probe that is a client."""
        from pyryrelay.nostr.tools.probing import NostrProbe

        return NostrProbe()

    def findings(self, options: Any, base: Path) -> Sequence[Finding]:
        """Return contradictions, probable mistakes, a missing library, and what is wrong with the database."""
        from pyryrelay.nostr.options import checks
        from pyryrelay.nostr.storage.sqlite.preconditions import database_conflict, database_of, database_problem

        found = [*checks.contradictions(options, options), *checks.mistakes(options, options)]
        if find_spec(_VERIFYING_LIBRARY) is None:
            why = f"it needs {_VERIFYING_LIBRARY}, which is not installed"
            found.append(Finding(checks.LIBRARY, "--nostr", why, "pip install 'pyryrelay[nostr]'"))
        database = database_of(options.nostr_database, base)
        problem, conflict = database_problem(database), database_conflict(database)
        found += [checks.about_database(checks.DATABASE, problem)] if problem is not None else []
        found += [checks.about_database(checks.DATABASE_IN_USE, conflict)] if conflict is not None else []
        return found

    def shared_children(self, options: NostrOptions) -> Mapping[str, Sequence[str]]:
        """Return the store's writer, and what passes on between workers what is not stored."""
        from pyryrelay.nostr.workers.worker_process import EXCHANGE, MODULE, WRITER

        return {WRITER: ("-m", MODULE, "writer"), EXCHANGE: ("-m", MODULE, "exchange")}

    def build(self, options: NostrOptions, services: Services) -> RunningProtocol[NostrOptions]:
        """Return the protocol, ready to be mounted."""
        from pyryrelay.nostr.running import Nostr

        return Nostr(options, services)


NOSTR: Final = _NostrKind()
