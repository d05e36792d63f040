"""The quotas of queries: filters, counts, and the work that they cause. PURE.

What is refused has spent nothing. Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyryrelay.guard import ClientAddress, Quota
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.policies.quotas.tables import (
    Bucket,
    ClientBuckets,
    ConnectionQuotas,
    Sharing,
    key_of,
    of_clients,
    of_work,
    spend,
)
from pyryrelay.nostr.policies.refusal import TOO_MANY_COUNTS, TOO_MANY_REQUESTS, Refused, wait_text_s

__all__ = ["QueryQuotas"]


class QueryQuotas:
    """What may be asked for. Configure it before anything else."""

    def __init__(self) -> None:
        """Start with every quota off."""
        self._filters: ClientBuckets | None = None
        self._counts: ClientBuckets | None = None
        self._work: ClientBuckets | None = None
        self._filters_of_connection: Quota | None = None

    def configure(self, options: NostrOptions, most: int, of_one: Sharing) -> None:
        """Enforce these options."""
        self._filters = of_clients(self._filters, options.nostr_req_quota, most, of_one)
        self._counts = of_clients(self._counts, options.nostr_count_quota, most, of_one)
        self._work = of_work(self._work, options.nostr_work_quota, most, of_one.with_cluster)
        self._filters_of_connection = options.nostr_connection_req_quota

    def tables(self) -> Mapping[str, ClientBuckets | None]:
        """Return the tables by the name of their quota."""
        return {"req": self._filters, "count": self._counts, "work": self._work}

    def spend_filters(
        self, client: ClientAddress | None, count: int, connection: ConnectionQuotas, now: float
    ) -> Refused | None:
        """Spend a token for each of ``count`` filters of a REQ, or return the refusal and spend nothing."""
        key = key_of(client)
        of_connection, by_client = self._filters_of_connection, self._filters
        if of_connection is not None:
            own = connection.filters = connection.filters or Bucket()
            own_cost = min(count, of_connection.burst)
            wait_s = own.wait_s(of_connection, now, own_cost)
            if wait_s:
                return TOO_MANY_REQUESTS(wait_text_s(wait_s))
        if by_client is not None:
            decision = by_client.spend(key, now, min(count, by_client.quota.burst))
            if not decision.allowed:
                return TOO_MANY_REQUESTS(wait_text_s(decision.retry_after_s))
        if of_connection is not None:
            own.spend(of_connection, now, own_cost)
        return None

    def spend_count(self, client: ClientAddress | None, now: float) -> Refused | None:
        """Spend a token for a COUNT, or return the refusal."""
        return None if spend(self._counts, client, now) else TOO_MANY_COUNTS()

    def work_wait_s(self, client: ClientAddress | None, now: float) -> float:
        """Return the seconds until a client has paid for the work of its queries; 0 if it has."""
        key = key_of(client)
        return self._work.wait_s(key, now) if self._work is not None else 0.0

    def spend_work(self, client: ClientAddress | None, units: int, now: float) -> None:
        """Charge a client for work that was done, whether it has tokens for it or not."""
        if self._work is not None and units > 0:
            self._work.charge(key_of(client), units, now)
