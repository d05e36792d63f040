"""The caps of one client: open subscriptions, and the values in their filters. PURE."""

from __future__ import annotations

from pyryrelay.guard import AddressKey, ClientAddress
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.policies.quotas.tables import key_of
from pyryrelay.nostr.policies.refusal import TOO_MANY_OPEN_VALUES, TOO_MANY_SUBSCRIPTIONS, Refused

__all__ = ["OpenSubscriptions"]


class OpenSubscriptions:
    """Counts what is open, by client. ``len()`` is the number of clients that have something open."""

    def __init__(self) -> None:
        """Start with nothing open, and without caps."""
        self._subscriptions: dict[AddressKey, int] = {}
        self._values: dict[AddressKey, int] = {}
        self._max_subscriptions: int | None = None
        self._max_values: int | None = None

    def configure(self, options: NostrOptions) -> None:
        """Enforce these caps from now on; what is open stays open."""
        self._max_subscriptions = options.nostr_max_subscriptions_per_address
        self._max_values = options.nostr_max_open_values_per_address

    def __len__(self) -> int:
        return len(self._subscriptions)

    def held(self, key: AddressKey) -> tuple[int, int]:
        """Return how many subscriptions a client has open, and how many values their filters have."""
        return self._subscriptions.get(key, 0), self._values.get(key, 0)

    def hold(self, client: ClientAddress | None, values: int = 0) -> Refused | None:
        """Count one more open subscription of a client, whose filters have so many values, or return the refusal.

        Release it once it is closed.
        """
        key = key_of(client)
        held, most = self._subscriptions.get(key, 0), self._max_subscriptions
        if most is not None and held >= most:
            return TOO_MANY_SUBSCRIPTIONS(most)
        if values:
            open_values, most = self._values.get(key, 0) + values, self._max_values
            if most is not None and open_values > most:
                return TOO_MANY_OPEN_VALUES(most)
            self._values[key] = open_values
        self._subscriptions[key] = held + 1
        return None

    def release(self, client: ClientAddress | None, count: int = 1, values: int = 0) -> None:
        """Count ``count`` subscriptions of a client less, with so many values together."""
        key = key_of(client)
        for table, less in ((self._subscriptions, count), (self._values, values)):
            if less:
                left = table.get(key, 0) - less
                if left > 0:
                    table[key] = left
                else:
                    table.pop(key, None)
