"""All options of the Nostr relay. PURE.

`NostrOptions` is a base of `pyryrelay.mounts.Settings`. See `pyryrelay.config.settings` for what ``option(...)``
declares. The name of a field is that of its option, with underscores and with its unit.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyryrelay.nostr.options.access import AccessOptions
from pyryrelay.nostr.options.events import EventOptions
from pyryrelay.nostr.options.information import InformationOptions
from pyryrelay.nostr.options.lists import ListOptions
from pyryrelay.nostr.options.queries import QueryOptions
from pyryrelay.nostr.options.rates import RateOptions
from pyryrelay.nostr.options.storage import StorageOptions
from pyryrelay.nostr.options.transport import TransportOptions

__all__ = ["NostrOptions"]


# The order of bases is that of the documentation, backwards: dataclasses begin with the fields of the last base.
@dataclass(frozen=True, kw_only=True)
class NostrOptions(
    InformationOptions,
    StorageOptions,
    ListOptions,
    AccessOptions,
    QueryOptions,
    RateOptions,
    EventOptions,
    TransportOptions,
):
    """All options of the Nostr relay."""

    @property
    def default_limit(self) -> int | None:
        """How many stored events a filter without a limit yields; None is all."""
        limits = [limit for limit in (self.nostr_default_limit, self.nostr_max_limit) if limit is not None]
        return min(limits, default=None)

    @property
    def is_counting(self) -> bool:
        """Whether COUNT is answered."""
        return self.nostr_max_count != 0
