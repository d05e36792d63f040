"""The tables of quotas: which a reload keeps, and whom they count as one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.support.nostr_policies import client

from pyryrelay.guard import ClusterBuckets, Quota, Spent
from pyryrelay.nostr.policies.quotas.tables import (
    Bucket,
    Sharing,
    key_of,
    of_clients,
    of_keys,
    of_prefixes,
    of_work,
    spend,
)

ONE, TWO = Quota.parse("1/minute"), Quota.parse("2/minute")
ME, STRANGER = client("192.0.2.1"), client("198.51.100.1")


MAKERS = {
    "clients": of_clients,
    "prefixes": of_prefixes,
    "keys": of_keys,
    "keys of workers": partial(of_keys, sharing=Sharing(with_workers=print)),
    "keys of a cluster": partial(of_keys, sharing=Sharing(with_cluster=print)),
    "keys of both": partial(of_keys, sharing=Sharing(print, print)),
    "work": of_work,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_table_is_kept_with_its_quota(make: Callable[..., Any]) -> None:
    """The same quota keeps the table, another one makes another, and none ends it."""
    table = make(None, ONE, 1000)
    assert make(table, Quota.parse("1/minute"), 2000) is table
    other = make(table, TWO, 1000)
    assert other is not table
    assert other.quota == TWO
    assert make(table, None, 1000) is None
    assert make(None, None, 1000) is None


def test_unknown_clients_have_one_key() -> None:
    """It is no address's."""
    assert key_of(None) == key_of(None)
    assert len({key_of(None), key_of(ME), key_of(STRANGER)}) == 3


def test_spending_of_clients() -> None:
    """Each has its own tokens, and without a quota there are always some."""
    table = of_clients(None, ONE, 1000)
    assert [spend(table, one, 0.0) for one in (ME, ME, STRANGER, None, None)] == [True, False, True, True, False]
    assert all(spend(None, ME, 0.0) for _ in range(10))


def test_a_bucket_of_its_own() -> None:
    """Waiting costs nothing, and spending takes tokens that come back."""
    bucket = Bucket()
    assert bucket.wait_s(TWO, 0.0, 2) == 0
    bucket.spend(TWO, 0.0, 2)
    assert bucket.wait_s(TWO, 0.0) == 30
    assert bucket.wait_s(TWO, 30.0) == 0


@pytest.mark.parametrize("make", [of_clients, of_prefixes, of_keys])
def test_those_who_share_are_called(make: Callable[..., Any]) -> None:
    """Each when there is something to tell again: once, until it was taken."""
    called: list[str] = []
    workers, cluster = partial(called.append, "workers"), partial(called.append, "cluster")
    for sharing, expected in (
        (Sharing(), []),
        (Sharing(with_workers=workers), ["workers"]),
        (Sharing(with_cluster=cluster), ["cluster"]),
        (Sharing(workers, cluster), ["cluster", "workers"]),
    ):
        table = make(None, TWO, 1000, sharing)
        table.spend(ME.key, 0.0)
        table.spend(ME.key, 0.0)
        assert called == expected
        called.clear()


def test_work_is_shared_with_a_cluster() -> None:
    """What it costs is known afterwards, and told all the same."""
    called: list[None] = []
    table = of_work(None, TWO, 1000, lambda: called.append(None))
    assert isinstance(table, ClusterBuckets)
    table.charge(ME.key, 3, 0.0)
    assert called == [None]
    assert table.changes() == [Spent(ME.key, 3)]
    assert table.wait_s(ME.key, 0.0) == 60
