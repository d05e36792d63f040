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
from pyryrelay.protocol_options import RoutePolicy

_VERIFYING_LIBRARY: Final = "coincurve"


class _NostrKind:
    """See `pyryrelay.protocol.ProtocolKind`."""

    name = "nostr"
    refusal_words = REFUSAL_WORDS
    log_fields = LOG_FIELDS

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

    def problems(self, options: Any, base: Path) -> Sequence[str]:
        """Return contradictions, a missing library, and what is wrong with the database."""
        from pyryrelay.nostr.options import checks
        from pyryrelay.nostr.storage.sqlite.preconditions import database_of, database_problem

        found = checks.problems(options, options)
        if find_spec(_VERIFYING_LIBRARY) is None:
            found.append(f"--nostr needs {_VERIFYING_LIBRARY}, which is not installed: pip install 'pyryrelay[nostr]'")
        problem = database_problem(database_of(options.nostr_database, base))
        if problem is not None:
            found.append(f"--nostr-database: {problem}")
        return found

    def warnings(self, options: Any) -> Sequence[str]:
        """Return what is probably a mistake."""
        from pyryrelay.nostr.options import checks

        return checks.warnings(options, options)

    def conflicts(self, options: NostrOptions, base: Path) -> Sequence[str]:
        """Return that the database is in use by another relay, if it is."""
        from pyryrelay.nostr.storage.sqlite.preconditions import database_conflict, database_of

        problem = database_conflict(database_of(options.nostr_database, base))
        return () if problem is None else (f"--nostr-database: {problem}",)

    def preflight(self, options: NostrOptions, base: Path) -> Sequence[str]:
        """Return no findings: what the machine lacks is a problem already."""
        return ()

    def build(self, options: NostrOptions, services: Services) -> RunningProtocol[NostrOptions]:
        """Return the protocol, ready to be mounted."""
        from pyryrelay.nostr.running import Nostr

        return Nostr(options, services)


NOSTR: Final = _NostrKind()
