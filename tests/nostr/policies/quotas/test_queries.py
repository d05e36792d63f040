"""Quotas of queries: filters, counts and work."""

from __future__ import annotations

import pytest
from tests.support.nostr_policies import client, quotas, text_of

from pyryrelay.guard import Quota
from pyryrelay.nostr.options.types.rules import WorkQuota
from pyryrelay.nostr.policies.quotas.tables import ConnectionQuotas

TWO = Quota.parse("2/minute")
ME, STRANGER = client("192.0.2.1"), client("198.51.100.1")


def test_filters() -> None:
    """Each filter is paid for; a message with more filters than the burst needs a full bucket."""
    made, connection = quotas(nostr_req_quota=Quota.parse("4/minute")), ConnectionQuotas()
    assert made.queries.spend_filters(ME, 3, connection, 0.0) is None
    assert (
        text_of(made.queries.spend_filters(ME, 2, connection, 0.0))
        == "rate-limited: too many filters, try again in 15 s"
    )
    assert made.queries.spend_filters(ME, 1, connection, 0.0) is None
    assert (
        text_of(made.queries.spend_filters(ME, 9, connection, 0.0))
        == "rate-limited: too many filters, try again in 60 s"
    )
    assert made.queries.spend_filters(ME, 9, connection, 60.0) is None
    assert made.queries.spend_filters(STRANGER, 1, connection, 60.0) is None


def test_filters_of_a_connection() -> None:
    """A connection has a bucket of its own, and neither pays for what the other refuses."""
    made = quotas(nostr_req_quota=Quota.parse("3/minute"), nostr_connection_req_quota=TWO)
    first, second = ConnectionQuotas(), ConnectionQuotas()
    assert made.queries.spend_filters(ME, 2, first, 0.0) is None
    assert text_of(made.queries.spend_filters(ME, 1, first, 0.0)) == "rate-limited: too many filters, try again in 30 s"
    assert (
        text_of(made.queries.spend_filters(ME, 2, second, 0.0)) == "rate-limited: too many filters, try again in 20 s"
    )
    assert made.queries.spend_filters(ME, 1, second, 0.0) is None
    assert made.queries.spend_filters(ME, 1, second, 20.0) is None


def test_work_is_charged_afterwards() -> None:
    """A query may take more than there is; then its client waits, and nobody else does."""
    made = quotas(nostr_work_quota=WorkQuota.parse("100/second burst 1000"))
    made.queries.spend_work(ME, 0, 0.0)
    made.queries.spend_work(ME, 1000, 0.0)
    assert made.queries.work_wait_s(ME, 0.0) == pytest.approx(0.01)
    made.queries.spend_work(ME, 500, 0.0)
    assert made.queries.work_wait_s(ME, 0.0) == pytest.approx(5.01)
    assert made.queries.work_wait_s(STRANGER, 0.0) == 0
    assert made.queries.work_wait_s(ME, 5.02) == 0
