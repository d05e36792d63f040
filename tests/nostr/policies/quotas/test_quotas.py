"""All quotas of a relay: what a reload keeps, and what others share."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_policies import QUOTAS_OFF, client, event, quotas, text_of

from pyryrelay.guard import ClusterBuckets, Quota, Spent
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.options.types.rules import KindQuota, WorkQuota
from pyryrelay.nostr.policies.quotas.quotas import NostrQuotas
from pyryrelay.nostr.policies.quotas.tables import ConnectionQuotas, Sharing

ONE, TWO = Quota.parse("1/minute"), Quota.parse("2/minute")
ME = client("192.0.2.1")
NOTE, SIGNAL = event(1), event(20_001)


def test_counts_authentications_and_errors() -> None:
    """Each has a quota of the client."""
    made = quotas(nostr_count_quota=ONE, nostr_auth_quota=ONE, nostr_invalid_quota=ONE)
    assert made.queries.spend_count(ME, 0.0) is None
    assert text_of(made.queries.spend_count(ME, 0.0)) == "rate-limited: too many counts"
    assert made.spend_auth(ME, 0.0) is None
    assert text_of(made.spend_auth(ME, 0.0)) == "rate-limited: too many authentications"
    assert [made.spend_invalid(ME, 0.0), made.spend_invalid(ME, 0.0), made.spend_invalid(None, 0.0)] == [
        True,
        False,
        True,
    ]


def test_a_reload_keeps_buckets() -> None:
    """A quota that is the same keeps its buckets; another one starts with full ones."""
    options: dict[str, Any] = {
        "nostr_event_quota": ONE,
        "nostr_event_prefix_quota": TWO,
        "nostr_pubkey_quota": ONE,
        "nostr_relay_event_quota": TWO,
        "nostr_kind_quota": (KindQuota(frozenset({1}), TWO),),
        "nostr_work_quota": WorkQuota.parse("1/minute"),
    }
    made, connection = quotas(**options), ConnectionQuotas()
    assert made.events.spend(ME, NOTE, connection, 0.0) is None
    made.queries.spend_work(ME, 10, 0.0)
    made.configure(NostrOptions(**{**QUOTAS_OFF, **options}), 10)
    assert made.events.spend(ME, NOTE, connection, 0.0) is not None
    assert made.queries.work_wait_s(ME, 0.0) > 0
    made.configure(NostrOptions(**{**QUOTAS_OFF, **options, "nostr_event_quota": TWO, "nostr_work_quota": None}))
    assert made.events.spend(ME, NOTE, connection, 0.0) is None
    assert made.events.spend(ME, NOTE, connection, 0.0) is not None
    made.configure(NostrOptions(**{**QUOTAS_OFF, "nostr_work_quota": WorkQuota.parse("2/minute")}))
    assert made.queries.work_wait_s(ME, 0.0) == 0
    assert made.events.spend(ME, NOTE, connection, 0.0) is None


def test_full_buckets_are_forgotten() -> None:
    """Sweeps forget clients whose buckets are full again."""
    made = quotas(nostr_event_quota=ONE)
    made.events.spend(ME, NOTE, ConnectionQuotas(), 0.0)
    assert made.tracked == 1
    for now in range(0, 400, 10):
        made.sweep(float(now))
    assert made.tracked == 0


# Several workers


def shared(**changes: Any) -> NostrQuotas:
    """Return the quotas of one of several workers."""
    made = NostrQuotas()
    made.share(Sharing(with_workers=lambda: None))
    made.configure(NostrOptions(**{**QUOTAS_OFF, **changes}))
    return made


def tell(sender: NostrQuotas, others: list[NostrQuotas], now: float) -> None:
    """Let the others know what was spent."""
    for quota, keys, tokens in sender.changes():
        for other in others:
            other.absorb(quota, keys, tokens, now)


@given(
    field=st.sampled_from(["nostr_pubkey_quota", "nostr_ephemeral_pubkey_quota", "nostr_relay_event_quota"]),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("spend"), st.integers(0, 2)),
            st.tuples(st.just("spend"), st.integers(0, 2)),
            st.tuples(st.just("tell"), st.integers(0, 2)),
            st.tuples(st.just("wait"), st.floats(0.0, 30.0)),
        ),
        max_size=80,
    ),
)
def test_several_workers_let_through_little_more_than_one(field: str, steps: list[tuple[str, float]]) -> None:
    """N workers that each admit up to m events before the others know admit B + W/T + (N-1)*m in a time W at most."""
    quota = Quota.parse("6/minute burst 3")
    workers = [shared(**{field: quota}) for _ in range(3)]
    one = SIGNAL if "ephemeral" in field else NOTE
    untold, admitted, most, now = [0, 0, 0], 0, 0, 0.0
    for what, value in steps:
        index = int(value)
        if what == "wait":
            now += value
        elif what == "tell":
            tell(workers[index], [worker for worker in workers if worker is not workers[index]], now)
            untold[index] = 0
        else:
            quotas_ = workers[index]
            refused = quotas_.events.spend(ME, one, ConnectionQuotas(), now)
            if "relay" not in field:
                refused = quotas_.events.spend_author(one, frozenset(), now)
            admitted += refused is None
            untold[index] += refused is None
        most = max(most, *untold)
        assert admitted <= quota.burst + now / quota.emission_interval_s + (len(workers) - 1) * most + 1e-6


def test_what_was_told_is_told_once() -> None:
    """Tokens of a key are added up, and gone from the list; a quota that the other has not is ignored."""
    calls: list[None] = []
    made = NostrQuotas()
    made.share(Sharing(with_workers=lambda: calls.append(None)))
    made.configure(NostrOptions(**{**QUOTAS_OFF, "nostr_pubkey_quota": Quota.parse("9/minute")}))
    for _ in range(3):
        assert made.events.spend_author(NOTE, frozenset(), 0.0) is None
    assert len(calls) == 1
    had_changes, changes = made.has_changes, made.changes()
    assert had_changes
    assert changes == [("author", [bytes.fromhex(NOTE.pubkey)], [3])]
    assert not made.has_changes
    assert made.changes() == []
    other = shared()
    for quota, keys, tokens in changes:
        other.absorb(quota, keys, tokens, 0.0)
    assert other.changes() == []


def test_a_cluster_shares_all_quotas_but_those_of_connections() -> None:
    """By names that begin with the protocol's; those that are off are not there."""
    made, called = NostrQuotas(), list[None]()
    made.share(Sharing(with_cluster=lambda: called.append(None)))
    rules = (KindQuota(frozenset({7}), Quota.parse("5/minute")), KindQuota(frozenset({7}), Quota.parse("50/hour")))
    made.configure(NostrOptions(nostr_kind_quota=rules, nostr_relay_event_quota=Quota.parse("9/second")))
    tables = made.cluster_tables()
    assert {"nostr-event", "nostr-event-prefix", "nostr-author", "nostr-relay", "nostr-req", "nostr-work"} <= {*tables}
    assert {f"nostr-kinds {rule}" for rule in rules} <= {*tables}
    assert all(name.startswith("nostr-") for name in tables)
    assert not made.has_changes
    made.queries.spend_work(ME, 5, 0.0)
    assert called == [None]
    assert tables["nostr-work"].changes() == [Spent(ME.key, 5)]
    made.configure(NostrOptions(**QUOTAS_OFF))
    assert made.cluster_tables() == {}


def test_alone_nothing_is_kept_for_others() -> None:
    """It would take memory that nobody frees."""
    made = quotas(nostr_work_quota=WorkQuota.parse("2/minute"))
    made.queries.spend_work(ME, 5, 0.0)
    assert made.queries.work_wait_s(ME, 0.0) > 0
    assert not isinstance(made.queries._work, ClusterBuckets)
    assert made.cluster_tables() == {}


def test_what_operators_see() -> None:
    """Each quota that is on, of a client with its prefix, of a key, and of the relay; asking spends nothing."""
    made = quotas(
        nostr_event_quota=ONE,
        nostr_event_prefix_quota=TWO,
        nostr_pubkey_quota=ONE,
        nostr_relay_event_quota=TWO,
        nostr_kind_quota=(KindQuota(frozenset({1}), TWO),),
        nostr_auth_quota=ONE,
    )
    connection, key = ConnectionQuotas(), bytes.fromhex(NOTE.pubkey)
    made.events.spend(ME, NOTE, connection, 0.0)
    made.events.spend_author(NOTE, frozenset(), 0.0)
    for _ in range(2):
        assert {name: level.tokens for name, level in made.client_levels(ME.key, 0.0).items()} == {
            "event": 0,
            "event-prefix": 1,
            "kinds 1=2/minute burst 2": 1,
            "auth": 1,
        }
        assert {name: level.tokens for name, level in made.key_levels(key, 0.0).items()} == {"author": 0}
        assert {name: level.tokens for name, level in made.relay_levels(0.0).items()} == {
            "relay": 1,
            "ephemeral-relay": 2,
        }
    assert made.client_levels(client("192.0.2.9").key, 0.0)["event-prefix"].tokens == 1
