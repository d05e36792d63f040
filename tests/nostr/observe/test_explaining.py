"""What Nostr tells operators who ask why a client or an author is refused."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.nostr_policies import ALICE, BOB, QUOTAS_OFF, client, event

from pyryrelay.guard import Quota, Spent
from pyryrelay.nostr.keys import npub
from pyryrelay.nostr.observe.explaining import Sight, explain_client, explain_key, key_of_name
from pyryrelay.nostr.observe.refused import RefusedLately
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.options.types.rules import KindQuota, WorkQuota
from pyryrelay.nostr.policies.quotas.quotas import NostrQuotas
from pyryrelay.nostr.policies.quotas.tables import ConnectionQuotas, Sharing
from pyryrelay.protocol import ActionError, Rule

ONE = Quota.parse("1/minute burst 2")
ME = client("192.0.2.1")
NOTE = event(1)
SECRET = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"  # the example of NIP-19
OPTIONS = NostrOptions()


def sight(*, with_cluster: bool = False, can_store: bool = True, **options: Any) -> Sight:
    """Return a relay of which only these quotas are on."""
    made, quotas = NostrOptions(**{**QUOTAS_OFF, **options}), NostrQuotas()
    quotas.share(Sharing(with_cluster=(lambda: None) if with_cluster else None))
    quotas.configure(made)
    return Sight(made, quotas, RefusedLately(), can_store)


def of_client(seen: Sight, now: float = 0.0, *, is_exempt: bool = False) -> dict[str, Rule]:
    """Return the rules for a client by name."""
    return {rule.what: rule for rule in explain_client(seen, ME, now, is_exempt=is_exempt)}


def of_key(seen: Sight, key: str = ALICE, now: float = 0.0) -> dict[str, Rule]:
    """Return the rules for a key by name."""
    return {rule.what: rule for rule in explain_key(seen, key, now).rules}


def test_a_client_that_nothing_is_counted_of() -> None:
    """Without quotas it has the caps on what is open, which are off as well; nothing is used, nothing refuses."""
    rules = of_client(sight())
    assert {what: (rule.state, rule.used) for what, rule in rules.items()} == {
        "refused lately": ("info", 0),
        "open subscriptions": ("ok", 0),
        "values in open subscriptions": ("ok", 0),
    }
    assert rules["refused lately"].detail == "nothing that this process remembers"
    assert rules["open subscriptions"].detail == "0 open, no cap (--nostr-max-subscriptions-per-address)"


def test_each_quota_of_a_client_is_a_rule() -> None:
    """With the options that are on by default, and those that can be turned on."""
    options = {name: getattr(OPTIONS, name) for name in QUOTAS_OFF}
    options |= {"nostr_kind_quota": (KindQuota(frozenset({0, 3}), ONE),), "nostr_relay_event_quota": ONE}
    assert [*of_client(sight(**options))] == [
        "refused lately",
        "quota of events",
        "quota of events of the prefix",
        "quota of ephemeral events",
        "quota of ephemeral events of the prefix",
        "quota of kinds 0,3",
        "quota of filters",
        "quota of COUNT",
        "quota of the work of queries",
        "quota of invalid messages",
        "quota of authentications",
        "quota of events of all clients",
        "quota of ephemeral events of all clients",
        "open subscriptions",
        "values in open subscriptions",
    ]


def test_a_quota_that_is_spent() -> None:
    """Its rule refuses, says for how long, and what can be done."""
    seen = sight(nostr_event_quota=ONE)
    seen.quotas.events.spend(ME, NOTE, ConnectionQuotas(), 0.0)
    rule = of_client(seen)["quota of events"]
    assert (rule.state, rule.detail) == ("ok", "1 of 2 left, 1/minute burst 2 (--nostr-event-quota)")
    assert rule.used == 60.0
    seen.quotas.events.spend(ME, NOTE, ConnectionQuotas(), 0.0)
    rule = of_client(seen, 10.0)["quota of events"]
    assert (rule.state, rule.detail) == ("refuses", "none left for 50 s, 1/minute burst 2 (--nostr-event-quota)")
    assert rule.advice == (
        "it goes on once it has waited; to allow more, raise --nostr-event-quota, then: pyryrelay reload"
    )
    assert (rule.figures["left"], rule.figures["wait_s"], rule.figures["option"]) == (0, 50.0, "--nostr-event-quota")


def test_explaining_spends_nothing() -> None:
    """Operators may ask as often as they like."""
    seen = sight(nostr_event_quota=ONE, nostr_count_quota=ONE, nostr_pubkey_quota=ONE)
    assert [of_client(seen) for _ in range(5)] == [of_client(seen)] * 5
    assert [of_key(seen) for _ in range(5)] == [of_key(seen)] * 5
    assert seen.quotas.tracked == 0


def test_what_neighbours_and_all_clients_spend() -> None:
    """It may refuse the client, but does not make it a client that was seen."""
    seen = sight(nostr_event_prefix_quota=ONE, nostr_relay_event_quota=ONE)
    for _ in range(2):
        seen.quotas.events.spend(client("192.0.2.99"), NOTE, ConnectionQuotas(), 0.0)
    rules = of_client(seen)
    for what in ("quota of events of the prefix", "quota of events of all clients"):
        assert (rules[what].state, rules[what].used) == ("refuses", 0.0), what


def test_work_that_is_owed() -> None:
    """The queries of a client in debt wait."""
    seen = sight(nostr_work_quota=WorkQuota.parse("60/minute burst 100"))
    seen.quotas.queries.spend_work(ME, 150, 0.0)
    rule = of_client(seen)["quota of the work of queries"]
    assert rule.state == "refuses"
    assert rule.detail == (
        "none left for 51 s, 60/minute burst 100 (--nostr-work-quota); queries of the client wait until it has paid "
        "for 50 units"
    )


def test_what_other_members_have_spent() -> None:
    """In a cluster, a quota says how much of it was spent elsewhere."""
    seen = sight(with_cluster=True, nostr_event_quota=ONE, nostr_pubkey_quota=ONE)
    tables = seen.quotas.cluster_tables()
    tables["nostr-event"].absorb([Spent(ME.key, 2)], 0.0)
    tables["nostr-author"].absorb([Spent(bytes.fromhex(ALICE), 1)], 0.0)
    rule = of_client(seen)["quota of events"]
    assert (rule.figures["elsewhere"], rule.state) == (2, "refuses")
    assert rule.detail.endswith("; other members of the cluster have spent 2: full again in 2 min")
    for sharers in (seen.sharers, "other workers and members of the cluster"):
        detail = of_key(seen._replace(sharers=sharers))["quota of events of the author"].detail
        assert detail.endswith(f"; {sharers} have spent 1: full again in 60 s")
    assert seen.sharers == "other members of the cluster"


def test_what_other_workers_have_spent() -> None:
    """It is spent at this relay, so nothing is said about it."""
    seen = sight(with_cluster=True, nostr_pubkey_quota=ONE, nostr_relay_event_quota=ONE)._replace(sharers="")
    for name, key in (("author", bytes.fromhex(ALICE)), ("relay", b"")):
        seen.quotas.cluster_tables()[f"nostr-{name}"].absorb([Spent(key, 1)], 0.0)
    rules = of_key(seen)
    for what in ("quota of events of the author", "quota of events of all clients"):
        assert rules[what].detail.startswith("1 of 2 left, 1/minute burst 2 (--nostr-"), what
        assert (rules[what].detail[-1], rules[what].figures["elsewhere"], rules[what].used) == (")", 0, 60.0), what


def test_a_bucket_that_is_shared_for_want_of_room() -> None:
    """The rule says with whom."""
    seen = sight(nostr_count_quota=ONE)
    seen.quotas.configure(seen.options, 1)
    for number in range(2_000):
        seen.quotas.queries.spend_count(client(f"198.51.{number // 250}.{number % 250}"), 0.0)
    assert "; shared with all of " in of_client(seen)["quota of COUNT"].detail


def test_what_was_refused_lately() -> None:
    """For whichever reason, also those that no quota knows."""
    seen = sight()
    seen.refused.add(ME, "EVENT", "pow", 1.0)
    seen.refused.add(ME, "EVENT", "pow", 2.0)
    seen.refused.add(ME, "REQ", "scrape", 3.0)
    rule = of_client(seen, 4.5)["refused lately"]
    assert rule.detail == (
        "REQ or COUNT because of scrape: 1, the last one 2 s ago; EVENT because of pow: 2, the last one 3 s ago"
    )
    assert rule.figures == {
        "refused": [
            {"message": "REQ", "reason": "scrape", "times": 1, "ago_s": 1.5},
            {"message": "EVENT", "reason": "pow", "times": 2, "ago_s": 2.5},
        ]
    }
    assert (rule.state, rule.used) == ("info", 3)


def test_what_is_open() -> None:
    """A cap that is reached refuses."""
    seen = sight(nostr_max_subscriptions_per_address=2, nostr_max_open_values_per_address=100)
    seen.quotas.subscriptions.configure(seen.options)
    seen.quotas.subscriptions.hold(ME, 7)
    rules = of_client(seen)
    assert rules["open subscriptions"].detail == "1 of 2 open (--nostr-max-subscriptions-per-address)"
    assert rules["values in open subscriptions"].figures == {
        "option": "--nostr-max-open-values-per-address",
        "open": 7,
        "most": 100,
    }
    seen.quotas.subscriptions.hold(ME)
    assert of_client(seen)["open subscriptions"].state == "refuses"


def test_an_exempt_client() -> None:
    """Quotas do not hold for it; caps and policies do."""
    seen = sight(nostr_event_quota=ONE)
    rules = of_client(seen, is_exempt=True)
    assert [*rules] == ["refused lately", "quotas", "open subscriptions", "values in open subscriptions"]


def test_a_store_that_cannot_be_written() -> None:
    """Then everybody is refused."""
    seen = sight(can_store=False)
    assert of_client(seen)["store"].state == of_key(seen)["store"].state == "refuses"


def test_authenticated_clients_may_spend_another_quota() -> None:
    """The quotas that it replaces say so."""
    seen = sight(nostr_event_quota=ONE, nostr_pubkey_quota=ONE, nostr_authed_quota=ONE)
    said = "; clients that have authenticated spend --nostr-authed-quota instead"
    assert of_client(seen)["quota of events"].detail.endswith(said)
    rules = of_key(seen)
    assert rules["quota of events of the author"].detail.endswith(said)
    assert rules["quota of clients that have authenticated the key"].detail == (
        "2 of 2 left, 1/minute burst 2 (--nostr-authed-quota)"
    )


# Keys


def test_a_key_that_nothing_is_counted_of() -> None:
    """Everybody may publish and read by default, and the key is written in both ways."""
    found = explain_key(sight(), ALICE, 0.0)
    assert found.name == f"public key {npub(ALICE)} ({ALICE})"
    assert [(rule.what, rule.state) for rule in found.rules] == [
        ("deny list", "ok"),
        ("who may publish", "ok"),
        ("who may read", "ok"),
    ]


def test_an_author_who_has_spent_a_quota() -> None:
    """The rule refuses; another author has tokens."""
    seen = sight(nostr_pubkey_quota=ONE, nostr_ephemeral_pubkey_quota=ONE)
    for _ in range(2):
        seen.quotas.events.spend_author(NOTE, frozenset(), 0.0)
    states = {what: rule.state for what, rule in of_key(seen).items() if what.startswith("quota")}
    assert states == {"quota of events of the author": "refuses", "quota of ephemeral events of the author": "ok"}
    assert of_key(seen, BOB)["quota of events of the author"].state == "ok"


@pytest.mark.parametrize(
    ("options", "what", "state", "words"),
    [
        ({"nostr_deny_pubkey": {ALICE}}, "deny list", "refuses", "are not served (--nostr-deny-hides)"),
        ({"nostr_deny_pubkey": {ALICE}, "nostr_deny_hides": False}, "deny list", "refuses", "(--nostr-deny-pubkey)"),
        ({"nostr_deny_pubkey": {BOB}}, "deny list", "ok", "not on it"),
        ({"nostr_deny_address": {f"{ALICE}:*"}}, "denied addresses", "refuses", "all of its addressable"),
        ({"nostr_deny_address": {f"30023:{ALICE}:x", "*:y"}}, "denied addresses", "info", "events at 1 of its"),
        ({"nostr_trusted": {ALICE}}, "trusted keys", "info", "exempt from quotas"),
        ({"nostr_write": "auth"}, "who may publish", "info", "some key (--nostr-write auth)"),
        ({"nostr_write": "allowed-authors"}, "who may publish", "refuses", "not on the allow list"),
        (
            {"nostr_write": "allowed-clients", "nostr_open_kinds": {4, 5}, "nostr_inbox": True},
            "who may publish",
            "refuses",
            "(--nostr-write allowed-clients), except for 2 open kinds, and gift wraps to keys that are",
        ),
        (
            {"nostr_write": "allowed-authors", "nostr_allow_pubkey": {ALICE}},
            "who may publish",
            "ok",
            "its events may be published: it is on the allow list",
        ),
        (
            {"nostr_write": "allowed-clients", "nostr_allow_pubkey": {ALICE}},
            "who may publish",
            "ok",
            "clients that authenticate it may publish",
        ),
        ({"nostr_read": "auth"}, "who may read", "info", "some key (--nostr-read auth)"),
        ({"nostr_read": "allowed-clients"}, "who may read", "refuses", "not on the allow list"),
        (
            {"nostr_read": "allowed-clients", "nostr_allow_pubkey": {ALICE}},
            "who may read",
            "ok",
            "it is on the allow list",
        ),
    ],
)
def test_what_lists_say_about_a_key(options: dict[str, Any], what: str, state: str, words: str) -> None:
    """Each list, and who may publish and read."""
    options = {name: frozenset(value) if isinstance(value, set) else value for name, value in options.items()}
    rule = of_key(sight(**options))[what]
    assert (rule.state, words in rule.detail) == (state, True), rule
    assert bool(rule.advice) == (state == "refuses")


# Names


@pytest.mark.parametrize("text", [ALICE, ALICE.upper(), npub(ALICE), npub(ALICE).upper()])
def test_names_of_keys(text: str) -> None:
    """As operators write them."""
    assert key_of_name(text) == ALICE


@pytest.mark.parametrize("text", ["", "192.0.2.7", "2001:db8::7", "a" * 63, "a" * 65, "alice", "npub", "::1", "nsec"])
def test_other_texts_are_no_names(text: str) -> None:
    """Above all no address, which others explain."""
    assert key_of_name(text) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (SECRET, "this is a secret key"),
        (f"{npub(ALICE)[:-1]}q", "typing error"),
        ("npub1qqqq", "typing error"),
        ("note1fntxtkcy9pjwucqwa9mddn7v03wwwsu9j330jj350nvhpky2tuaspk6nqc", "only public keys and addresses"),
        ("nprofile1qqsrhuxx8l9ex335q7he0f09aej04zpazpl0ne2cgukyawd24mayt8g", "only public keys and addresses"),
    ],
)
def test_mistakes_in_names(text: str, problem: str) -> None:
    """The operator is told what to write, and the text is not repeated: it may be a secret."""
    with pytest.raises(ActionError, match=problem) as caught:
        key_of_name(text)
    assert text not in str(caught.value)
    assert caught.value.__cause__ is None
