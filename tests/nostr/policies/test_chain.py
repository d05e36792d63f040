"""The chains: every option turns its policy on, in the order of the specification."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.nostr_policies import ALICE, BOB, WALL_S, context, event

from pyryrelay.nostr.events import Canonical, Event, canonical
from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.policies.chain import EventChain, event_chain, filter_chain, lists_of
from pyryrelay.nostr.policies.lists import Lists
from pyryrelay.nostr.policies.refusal import NOT_ACCEPTED, Context, Refused

OFF: dict[str, Any] = dict.fromkeys(
    (
        "nostr_max_event_bytes",
        "nostr_max_tags",
        "nostr_max_tag_value_bytes",
        "nostr_max_content_chars",
        "nostr_reject_newer_s",
        "nostr_reject_older_s",
        "nostr_reject_ephemeral_older_s",
        "nostr_max_deletions",
        "nostr_max_filters",
        "nostr_max_filter_values",
        "nostr_max_tag_keys",
    )
)


def text(refused: Refused | None) -> str | None:
    """Return the text of a refusal, or None."""
    return None if refused is None else refused.text


def chain_of(**options: Any) -> EventChain:
    """Return the chain of these options alone."""
    return event_chain(NostrOptions(**{**OFF, **options}), can_authenticate=True)


# What an event can be refused for before it is charged, in the order of the specification: an option and the text.
BEFORE_QUOTA: list[tuple[dict[str, Any], str]] = [
    ({"nostr_max_event_bytes": 256}, "invalid: event is larger than 256 bytes"),
    ({"nostr_max_tags": 1}, "invalid: event has more than 1 tags"),
    ({"nostr_max_tag_value_bytes": 1}, "invalid: a tag value is longer than 1 bytes"),
    ({"nostr_max_content_chars": 1}, "invalid: content is longer than 1 characters"),
    ({"nostr_max_indexed_tags": 1}, "invalid: event has more than 1 indexed tags"),
    ({"nostr_deny_kind": frozenset({1})}, "blocked: kind 1 is not accepted here"),
    ({"nostr_deny_pubkey": frozenset({ALICE})}, "blocked: this key is banned"),
    ({"nostr_deny_event": frozenset({"f" * 64})}, "blocked: this event is banned"),
    ({"nostr_deny_word": frozenset({"data"})}, "blocked: content is not accepted here"),
    ({"nostr_inline_media": "refuse"}, "blocked: content is not accepted here"),
    ({"nostr_only_protected": True}, "blocked: protected events only"),
    ({"nostr_reject_older_s": 5.0}, "invalid: created_at is more than 5 s in the past"),
    ({}, "invalid: event has expired"),
    ({"nostr_min_pow": 8}, "pow: difficulty 0 is less than 8"),
]
GUILTY = event(
    content="data:image/",
    tags=[["t", "xx"], ["t", "yy"], ["expiration", "7"]],
    created_at=WALL_S - 10,
)


@pytest.mark.parametrize("number", range(len(BEFORE_QUOTA)), ids=lambda number: BEFORE_QUOTA[number][1])
def test_steps_before_the_quota_are_in_order(number: int) -> None:
    """An event that breaks every rule is refused for the first of those that are on."""
    later = BEFORE_QUOTA[number:]
    options = {name: value for one, _ in later for name, value in one.items()}
    checked = GUILTY if number <= 12 else event()
    expected = later[0][1]
    assert text(chain_of(**options).check_before_quota(checked, canonical(checked), context())) == expected


def test_kinds_with_work_of_their_own_turn_it_on() -> None:
    """``--nostr-pow-kind`` needs no general difficulty."""
    chain, one = chain_of(nostr_pow_kind={1: 4}), event()
    assert text(chain.check_before_quota(one, canonical(one), context())) == "pow: difficulty 0 is less than 4"


def test_an_ordinary_event_passes() -> None:
    """With the defaults, an ordinary note is accepted at every moment; credentials are not."""
    chain, one, form = event_chain(NostrOptions(), can_authenticate=True), event(), canonical(event())
    checks = (chain.check_before_quota, chain.check_after_signature, chain.check_rules, chain.check_hooks)
    assert [check(one, form, context()) for check in checks] == [None] * 4
    credential = chain.check_before_quota(event(22242), form, context())
    assert text(credential) == "blocked: kind 22242 is never published"


def test_steps_after_the_signature() -> None:
    """Protection goes before access, and access before gift wraps."""
    options = {"nostr_write": "allowed-authors", "nostr_giftwrap_auth": True}
    chain, form = chain_of(**options), canonical(event())
    wrap, protected = event(1059), event(tags=[["-"]])
    assert text(chain.check_after_signature(protected, form, context())) == (
        "auth-required: this event may only be published by its author"
    )
    assert text(chain.check_after_signature(wrap, form, context())) == "restricted: this key may not publish here"
    only_wraps = chain_of(nostr_giftwrap_auth=True)
    assert (
        text(only_wraps.check_after_signature(wrap, form, context())) == "auth-required: gift wraps need authentication"
    )


@pytest.mark.parametrize(("accepts", "can_authenticate"), [(False, True), (True, False)])
def test_protected_events_need_authentication(*, accepts: bool, can_authenticate: bool) -> None:
    """They are refused where nobody can authenticate, or where the operator wants none."""
    chain = event_chain(NostrOptions(nostr_protected=accepts), can_authenticate=can_authenticate)
    refused = chain.check_after_signature(event(tags=[["-"]]), canonical(event()), context(ALICE))
    assert text(refused) == "blocked: protected events are not accepted here"


def test_where_to_register() -> None:
    """The URL for payments is told only where payment is required."""
    options: dict[str, Any] = {"nostr_write": "allowed-authors", "nostr_payments_url": "https://x/"}
    for required, expected in ((True, "restricted: register at https://x/"), (False, "restricted: this key may not")):
        chain = chain_of(**options, nostr_payment_required=required)
        refused = text(chain.check_after_signature(event(), canonical(event()), context())) or ""
        assert refused.startswith(expected)


def test_rules_of_kinds() -> None:
    """Deletions and reposts have rules."""
    chain, form = chain_of(nostr_max_deletions=1), canonical(event())
    assert text(chain.check_rules(event(5), form, context())) == "invalid: deletion names nothing"
    assert (
        text(chain.check_rules(event(6, '{"tags":[["-"]]}'), form, context())) == "blocked: reposts a protected event"
    )


def test_lists_of_files_replace_those_of_the_options() -> None:
    """The lists are those that the caller gives; by default those of the options."""
    options = NostrOptions(nostr_deny_pubkey=frozenset({BOB}))
    assert lists_of(options) == Lists(denied_keys=frozenset({BOB}))
    chain = event_chain(options, Lists(denied_keys=frozenset({ALICE})), can_authenticate=True)
    assert text(chain.check_before_quota(event(), canonical(event()), context())) == "blocked: this key is banned"
    assert chain.check_before_quota(event(pubkey=BOB), canonical(event()), context()) is None
    readers = filter_chain(NostrOptions(nostr_read="allowed-clients"), Lists(allowed_keys=frozenset({ALICE})))
    assert readers.check([Filter()], context(ALICE)) is None
    assert readers.check([Filter()], context(BOB)) is not None


def test_hooks_of_events() -> None:
    """A Python user's policies are asked last, in their order."""
    asked: list[str] = []

    def no_bob(one: Event, _form: Canonical, _context: Context) -> Refused | None:
        asked.append(one.pubkey)
        return NOT_ACCEPTED() if one.pubkey == BOB else None

    chain = event_chain(NostrOptions(), can_authenticate=False, hooks=[no_bob])
    assert chain.check_hooks(event(), canonical(event()), context()) is None
    assert text(chain.check_hooks(event(pubkey=BOB), canonical(event()), context())) == "blocked: not accepted here"
    assert asked == [ALICE, BOB]


SECRET = Filter(kinds=(4,), tags=(("t", ("x",)), ("u", ("x",)), ("v", ("x",))))
# What filters can be refused for, in the order of the specification.
FILTER_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"nostr_max_filters": 1}, "invalid: more than 1 filters"),
    ({"nostr_max_filter_values": 1}, "invalid: more than 1 values"),
    ({"nostr_max_tag_keys": 1}, "invalid: more than 1 tag keys"),
    ({"nostr_read": "auth"}, "auth-required: authenticate to read here"),
    ({"nostr_private_kinds": frozenset({4})}, "auth-required: these kinds are for their recipients"),
]


@pytest.mark.parametrize("number", range(len(FILTER_OPTIONS)), ids=lambda number: FILTER_OPTIONS[number][1])
def test_filters_are_checked_in_order(number: int) -> None:
    """A message that breaks every rule is refused for the first of those that are on."""
    later = FILTER_OPTIONS[number:]
    options = {**OFF, "nostr_private_kinds": frozenset(), "nostr_filter_kinds": frozenset({1})}
    options |= {name: value for one, _ in later for name, value in one.items()}
    chain = filter_chain(NostrOptions(**options))
    assert text(chain.check([SECRET, SECRET], context())) == later[0][1]


@pytest.mark.parametrize(
    ("options", "one", "expected"),
    [
        ({"nostr_scrape": frozenset({"named", "precise"})}, Filter(), "blocked: name ids, authors, kinds or tags"),
        ({"nostr_scrape": frozenset({"precise"})}, Filter(kinds=(1,)), "blocked: name two of authors, kinds and tags"),
        (
            {"nostr_complex_filters": "refuse"},
            Filter(kinds=(1, 2), tags=SECRET.tags),
            "blocked: too many things to filter for",
        ),
        ({"nostr_max_filter_kinds": 1}, Filter(kinds=(1, 2)), "blocked: this relay serves other filters"),
        ({"nostr_filter_kinds": frozenset({1})}, Filter(), "blocked: this relay serves other filters"),
        ({"nostr_filter_needs": "author-or-tag"}, Filter(kinds=(1,)), "blocked: this relay serves other filters"),
    ],
)
def test_scrapes(options: dict[str, Any], one: Filter, expected: str) -> None:
    """Each option refuses its filters, but not those of exempt clients."""
    chain = filter_chain(NostrOptions(**options))
    assert text(chain.check([one], context())) == expected
    assert chain.check([one], context(is_exempt=True)) is None
    assert filter_chain(NostrOptions()).check([one], context()) is None


def test_without_private_kinds_nobody_needs_to_authenticate() -> None:
    """An operator may serve every kind to everybody."""
    chain = filter_chain(NostrOptions(**{**OFF, "nostr_private_kinds": frozenset()}))
    assert chain.shape == ()
    assert chain.check([SECRET], context()) is None


def test_precise_counts_are_no_scrapes() -> None:
    """A COUNT of a precise filter is exempt, its other filters are not."""
    chain = filter_chain(NostrOptions(nostr_filter_kinds=frozenset({1})))
    precise, vague = Filter(authors=(ALICE,), kinds=(7,)), Filter(kinds=(7,))
    assert chain.check([precise], context(), is_count=True) is None
    assert chain.check([precise], context()) is not None
    assert chain.check([precise, vague], context(), is_count=True) is not None


def test_hooks_of_filters() -> None:
    """A Python user's policies for filters are asked last."""
    chain = filter_chain(NostrOptions(), hooks=[lambda filters, _context: NOT_ACCEPTED() if len(filters) > 1 else None])
    assert chain.check([Filter()], context()) is None
    assert text(chain.check([Filter(), Filter()], context())) == "blocked: not accepted here"


def test_events_of_other_hosts() -> None:
    """What this relay could not serve and its own lists count; when, by whom and with how much work does not."""
    options = NostrOptions(
        nostr_write="allowed-authors",
        nostr_min_pow=30,
        nostr_reject_older_s=60.0,
        nostr_only_protected=True,
        nostr_deny_pubkey=frozenset({BOB}),
        nostr_max_content_chars=10,
    )
    chain = event_chain(options, can_authenticate=False)

    def refused(one: Event) -> str | None:
        return text(chain.check_from_host(one, canonical(one), context()))

    assert refused(event(created_at=WALL_S - 10_000, tags=[["-"]])) is None
    assert refused(event(pubkey=BOB)) == "blocked: this key is banned"
    assert refused(event(content="x" * 11)) == "invalid: content is longer than 10 characters"
    assert refused(event(tags=[["expiration", str(WALL_S)]])) == "invalid: event has expired"
    assert refused(event(kind=5)) == "invalid: deletion names nothing"
