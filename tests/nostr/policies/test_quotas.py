"""Quotas: who pays for what, all or nothing, and what a reload keeps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_policies import ALICE, BOB, CAROL, client, event

from pyryrelay.guard import ClusterBuckets, Quota, Spent
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.options.types.rules import KindQuota, WorkQuota
from pyryrelay.nostr.policies.quotas import ConnectionQuotas, NostrQuotas
from pyryrelay.nostr.policies.refusal import Refused
from pyryrelay.nostr.policies.tables import Sharing

ONE, TWO = Quota.parse("1/minute"), Quota.parse("2/minute")
ME, NEIGHBOUR, STRANGER = client("192.0.2.1"), client("192.0.2.2"), client("198.51.100.1")
OFF: dict[str, Any] = dict.fromkeys(
    (
        "nostr_event_quota",
        "nostr_event_prefix_quota",
        "nostr_pubkey_quota",
        "nostr_ephemeral_quota",
        "nostr_ephemeral_prefix_quota",
        "nostr_ephemeral_pubkey_quota",
        "nostr_invalid_quota",
        "nostr_auth_quota",
        "nostr_req_quota",
        "nostr_count_quota",
        "nostr_work_quota",
        "nostr_max_subscriptions_per_address",
        "nostr_max_open_values_per_address",
    )
)
NOTE, SIGNAL = event(1), event(20_001)


def quotas(**changes: Any) -> NostrQuotas:
    """Return quotas of which only these are on."""
    made = NostrQuotas()
    made.configure(NostrOptions(**{**OFF, **changes}))
    return made


def text(refused: Refused | None) -> str | None:
    """Return the text of a refusal, or None."""
    return None if refused is None else refused.text


def test_without_quotas_nothing_is_refused() -> None:
    """What is off spends nothing and tracks nothing."""
    made = quotas()
    for now in range(100):
        assert made.spend_event(ME, NOTE, ConnectionQuotas(), now) is None
        assert made.spend_author(event(content="x" * 40), frozenset(), now) is None
        assert made.spend_filters(ME, 100, ConnectionQuotas(), now) is None
        assert made.spend_count(ME, now) is None
        assert made.spend_auth(ME, now) is None
        assert made.spend_invalid(ME, now)
        made.spend_work(ME, 10**9, now)
        assert made.work_wait_s(ME, now) == 0
        made.sweep(now)
    assert made.tracked == 0


@pytest.mark.parametrize(
    ("field", "one", "same", "other"),
    [
        ("nostr_event_quota", NOTE, ME, NEIGHBOUR),
        ("nostr_event_prefix_quota", NOTE, NEIGHBOUR, STRANGER),
        ("nostr_ephemeral_quota", SIGNAL, ME, NEIGHBOUR),
        ("nostr_ephemeral_prefix_quota", SIGNAL, NEIGHBOUR, STRANGER),
    ],
)
def test_clients_and_prefixes(field: str, one: Any, same: Any, other: Any) -> None:
    """An address or a prefix has its quota, for one of the two sorts of events."""
    made = quotas(**{field: ONE})
    connection = ConnectionQuotas()
    assert made.spend_event(ME, one, connection, 0.0) is None
    assert text(made.spend_event(same, one, connection, 0.5)) == "rate-limited: too many events, try again in 60 s"
    assert made.spend_event(other, one, connection, 0.5) is None
    assert made.spend_event(ME, SIGNAL if one is NOTE else NOTE, connection, 0.5) is None
    assert made.spend_event(same, one, connection, 60.0) is None
    assert made.tracked == 2


@pytest.mark.parametrize("field", ["nostr_connection_event_quota", "nostr_relay_event_quota"])
def test_connections_and_the_relay(field: str) -> None:
    """A connection, or the whole relay, has one bucket for each sort of events."""
    made = quotas(**{field: ONE})
    connection, other = ConnectionQuotas(), ConnectionQuotas()
    for one in (NOTE, SIGNAL):
        assert made.spend_event(ME, one, connection, 0.0) is None
        assert made.spend_event(ME, one, connection, 1.0) is not None
        assert (made.spend_event(STRANGER, one, other, 1.0) is None) == (field == "nostr_connection_event_quota")
        assert made.spend_event(ME, one, connection, 61.0) is None


def test_kinds_have_their_own() -> None:
    """Each rule has a bucket for a client, for all of its kinds together, whatever else the client pays."""
    rules = (KindQuota(frozenset({1, 2}), ONE), KindQuota(frozenset({2, 3}), TWO))
    made, connection = quotas(nostr_kind_quota=rules), ConnectionQuotas()
    spent = [made.spend_event(ME, event(kind), connection, 0.0) is None for kind in (2, 1, 3, 3, 4)]
    assert spent == [True, False, True, False, True]
    assert made.spend_event(STRANGER, event(1), connection, 0.0) is None


def test_what_is_refused_spends_nothing() -> None:
    """Whichever quota refuses an event, the others keep their tokens, and the longest wait is told."""
    made = quotas(
        nostr_event_quota=TWO,
        nostr_event_prefix_quota=Quota.parse("2/hour"),
        nostr_relay_event_quota=Quota.parse("9/h"),
    )
    connection = ConnectionQuotas()
    assert made.spend_event(ME, NOTE, connection, 0.0) is None
    assert made.spend_event(NEIGHBOUR, NOTE, connection, 0.0) is None
    for _ in range(20):
        refused = made.spend_event(ME, NOTE, connection, 0.0)
        assert text(refused) == "rate-limited: too many events, try again in 1800 s"
    others = [client(f"203.0.{number}.1") for number in range(8)]
    assert [made.spend_event(other, NOTE, connection, 0.0) is None for other in others] == [True] * 7 + [False]
    assert made.spend_event(ME, NOTE, connection, 1800.0) is None


def test_unknown_clients_are_one() -> None:
    """Clients without an address share everything."""
    made, connection = quotas(nostr_event_quota=ONE, nostr_event_prefix_quota=ONE), ConnectionQuotas()
    assert made.spend_event(None, NOTE, connection, 0.0) is None
    assert made.spend_event(None, NOTE, connection, 0.0) is not None
    assert made.spend_event(ME, NOTE, connection, 0.0) is None


@pytest.mark.parametrize(
    ("field", "kind", "other_kind"), [("nostr_pubkey_quota", 1, 20_000), ("nostr_ephemeral_pubkey_quota", 20_000, 1)]
)
def test_authors(field: str, kind: int, other_kind: int) -> None:
    """An author has a quota wherever the events come from, for each sort of events."""
    made = quotas(**{field: ONE})
    assert made.spend_author(event(kind), frozenset(), 0.0) is None
    expected = "rate-limited: too many events of this key, try again in 60 s"
    assert text(made.spend_author(event(kind), frozenset({BOB}), 0.0)) == expected
    assert made.spend_author(event(other_kind), frozenset(), 0.0) is None
    assert made.spend_author(event(kind, pubkey=BOB), frozenset(), 0.0) is None


def test_authenticated_keys_pay_instead() -> None:
    """With a quota of authenticated keys, these pay, and neither the client nor the author does."""
    made = quotas(nostr_authed_quota=TWO, nostr_event_quota=ONE, nostr_pubkey_quota=ONE)
    connection, keys = ConnectionQuotas(), frozenset({ALICE, BOB})
    for _ in range(3):
        assert made.spend_event(ME, NOTE, connection, 0.0, keys) is None
    assert [made.spend_author(NOTE, keys, 0.0) is None for _ in range(3)] == [True, True, False]
    assert made.spend_author(event(pubkey=BOB), keys, 0.0) is None
    # The events of others are paid with one of the keys, always the same.
    assert made.spend_author(event(pubkey=CAROL), keys, 0.0) is not None
    assert made.spend_author(event(pubkey=CAROL), frozenset({BOB}), 0.0) is None
    # Clients that have not authenticated pay as ever.
    assert made.spend_event(ME, NOTE, connection, 0.0) is None
    assert made.spend_event(ME, NOTE, connection, 0.0) is not None


def test_repeated_content() -> None:
    """The same content is refused after its quota, by any author; short contents may be repeated."""
    made = quotas(nostr_repeat_quota=ONE, nostr_pubkey_quota=TWO)
    spam = "x" * 32
    assert made.spend_author(event(content=spam), frozenset(), 0.0) is None
    repeated = made.spend_author(event(content=spam, pubkey=BOB), frozenset(), 0.0)
    assert text(repeated) == "rate-limited: this text was posted too often"
    for _ in range(2):
        # The refusal has spent nothing of the author.
        assert made.spend_author(event(content="x" * 31, pubkey=BOB), frozenset(), 0.0) is None
    assert made.spend_author(event(content=spam + "x"), frozenset(), 0.0) is None
    # An author without tokens spends none of the content.
    assert made.spend_author(event(content="y" * 32), frozenset(), 0.0) is not None
    assert made.spend_author(event(content="y" * 32, pubkey=CAROL), frozenset(), 0.0) is None


def test_filters() -> None:
    """Each filter is paid for; a message with more filters than the burst needs a full bucket."""
    made, connection = quotas(nostr_req_quota=Quota.parse("4/minute")), ConnectionQuotas()
    assert made.spend_filters(ME, 3, connection, 0.0) is None
    assert text(made.spend_filters(ME, 2, connection, 0.0)) == "rate-limited: too many filters, try again in 15 s"
    assert made.spend_filters(ME, 1, connection, 0.0) is None
    assert text(made.spend_filters(ME, 9, connection, 0.0)) == "rate-limited: too many filters, try again in 60 s"
    assert made.spend_filters(ME, 9, connection, 60.0) is None
    assert made.spend_filters(STRANGER, 1, connection, 60.0) is None


def test_filters_of_a_connection() -> None:
    """A connection has a bucket of its own, and neither pays for what the other refuses."""
    made = quotas(nostr_req_quota=Quota.parse("3/minute"), nostr_connection_req_quota=TWO)
    first, second = ConnectionQuotas(), ConnectionQuotas()
    assert made.spend_filters(ME, 2, first, 0.0) is None
    assert text(made.spend_filters(ME, 1, first, 0.0)) == "rate-limited: too many filters, try again in 30 s"
    assert text(made.spend_filters(ME, 2, second, 0.0)) == "rate-limited: too many filters, try again in 20 s"
    assert made.spend_filters(ME, 1, second, 0.0) is None
    assert made.spend_filters(ME, 1, second, 20.0) is None


def test_counts_authentications_and_errors() -> None:
    """Each has a quota of the client."""
    made = quotas(nostr_count_quota=ONE, nostr_auth_quota=ONE, nostr_invalid_quota=ONE)
    assert made.spend_count(ME, 0.0) is None
    assert text(made.spend_count(ME, 0.0)) == "rate-limited: too many counts"
    assert made.spend_auth(ME, 0.0) is None
    assert text(made.spend_auth(ME, 0.0)) == "rate-limited: too many authentications"
    assert [made.spend_invalid(ME, 0.0), made.spend_invalid(ME, 0.0), made.spend_invalid(None, 0.0)] == [
        True,
        False,
        True,
    ]


def test_work_is_charged_afterwards() -> None:
    """A query may take more than there is; then its client waits, and nobody else does."""
    made = quotas(nostr_work_quota=WorkQuota.parse("100/second burst 1000"))
    made.spend_work(ME, 0, 0.0)
    made.spend_work(ME, 1000, 0.0)
    assert made.work_wait_s(ME, 0.0) == pytest.approx(0.01)
    made.spend_work(ME, 500, 0.0)
    assert made.work_wait_s(ME, 0.0) == pytest.approx(5.01)
    assert made.work_wait_s(STRANGER, 0.0) == 0
    assert made.work_wait_s(ME, 5.02) == 0


@given(st.lists(st.integers(-3, 2), max_size=30))
def test_subscriptions_of_a_client(steps: list[int]) -> None:
    """A client holds at most its cap, and what was released can be held again."""
    made, held = quotas(nostr_max_subscriptions_per_address=16), 0
    for step in steps:
        if step > 0:
            refused = made.hold_subscription(ME)
            assert text(refused) == ("rate-limited: more than 16 subscriptions" if held == 16 else None)
            held += refused is None
        else:
            made.release_subscription(ME, -step)
            held = max(0, held + step)
    assert made.tracked == (held > 0)


@given(st.lists(st.integers(-3, 4), max_size=30))
def test_values_of_a_client(steps: list[int]) -> None:
    """The subscriptions that a client holds have no more values than their cap, whichever of them are released."""
    made = quotas(nostr_max_open_values_per_address=1000)
    held: list[int] = []
    for step in steps:
        values = 150 * step
        if step >= 0:
            refused = made.hold_subscription(ME, values)
            is_over = step > 0 and sum(held) + values > 1000
            expected = "rate-limited: more than 1000 values in open subscriptions" if is_over else None
            assert text(refused) == expected
            if refused is None:
                held.append(values)
        elif held:
            made.release_subscription(ME, values=held.pop(step % len(held)))
    assert made.hold_subscription(STRANGER, 1000) is None
    made.release_subscription(STRANGER, values=1000)
    assert made.tracked == (len(held) > 0)


def test_a_cap_of_values() -> None:
    """A subscription that is refused counts for nothing, and one without values is never over the cap."""
    made = quotas(nostr_max_open_values_per_address=1000, nostr_max_subscriptions_per_address=16)
    assert made.hold_subscription(ME, 1001) is not None
    assert made.hold_subscription(ME, 1000) is None
    assert made.hold_subscription(ME) is None
    assert made.hold_subscription(ME, 1) is not None
    made.release_subscription(ME, values=1000)
    assert made.hold_subscription(ME, 999) is None
    assert quotas().hold_subscription(ME, 10**9) is None


def test_a_cap_of_subscriptions() -> None:
    """At the cap one client is refused and another is not; without a cap nobody is."""
    made = quotas(nostr_max_subscriptions_per_address=16)
    assert [made.hold_subscription(ME) is None for _ in range(17)] == [True] * 16 + [False]
    assert made.hold_subscription(None) is None
    assert [quotas().hold_subscription(ME) for _ in range(100)] == [None] * 100


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
    assert made.spend_event(ME, NOTE, connection, 0.0) is None
    made.spend_work(ME, 10, 0.0)
    made.configure(NostrOptions(**{**OFF, **options}), 10)
    assert made.spend_event(ME, NOTE, connection, 0.0) is not None
    assert made.work_wait_s(ME, 0.0) > 0
    made.configure(NostrOptions(**{**OFF, **options, "nostr_event_quota": TWO, "nostr_work_quota": None}))
    assert made.spend_event(ME, NOTE, connection, 0.0) is None
    assert made.spend_event(ME, NOTE, connection, 0.0) is not None
    made.configure(NostrOptions(**{**OFF, "nostr_work_quota": WorkQuota.parse("2/minute")}))
    assert made.work_wait_s(ME, 0.0) == 0
    assert made.spend_event(ME, NOTE, connection, 0.0) is None


def test_full_buckets_are_forgotten() -> None:
    """Sweeps forget clients whose buckets are full again."""
    made = quotas(nostr_event_quota=ONE)
    made.spend_event(ME, NOTE, ConnectionQuotas(), 0.0)
    assert made.tracked == 1
    for now in range(0, 400, 10):
        made.sweep(float(now))
    assert made.tracked == 0


# Several workers


def shared(**changes: Any) -> NostrQuotas:
    """Return the quotas of one of several workers."""
    made = NostrQuotas()
    made.share(Sharing(with_workers=lambda: None))
    made.configure(NostrOptions(**{**OFF, **changes}))
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
            refused = quotas_.spend_event(ME, one, ConnectionQuotas(), now)
            if "relay" not in field:
                refused = quotas_.spend_author(one, frozenset(), now)
            admitted += refused is None
            untold[index] += refused is None
        most = max(most, *untold)
        assert admitted <= quota.burst + now / quota.emission_interval_s + (len(workers) - 1) * most + 1e-6


def test_what_was_told_is_told_once() -> None:
    """Tokens of a key are added up, and gone from the list; a quota that the other has not is ignored."""
    calls: list[None] = []
    made = NostrQuotas()
    made.share(Sharing(with_workers=lambda: calls.append(None)))
    made.configure(NostrOptions(**{**OFF, "nostr_pubkey_quota": Quota.parse("9/minute")}))
    for _ in range(3):
        assert made.spend_author(NOTE, frozenset(), 0.0) is None
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
    made.spend_work(ME, 5, 0.0)
    assert called == [None]
    assert tables["nostr-work"].changes() == [Spent(ME.key, 5)]
    made.configure(NostrOptions(**OFF))
    assert made.cluster_tables() == {}


def test_alone_nothing_is_kept_for_others() -> None:
    """It would take memory that nobody frees."""
    made = quotas(nostr_work_quota=WorkQuota.parse("2/minute"))
    made.spend_work(ME, 5, 0.0)
    assert made.work_wait_s(ME, 0.0) > 0
    assert not isinstance(made._work, ClusterBuckets)
    assert made.cluster_tables() == {}
