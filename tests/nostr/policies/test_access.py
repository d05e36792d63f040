"""Who may write and read."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.support.nostr_policies import ALICE, BOB, CAROL, context, event, verdict

from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.policies.access import FilterPolicy, authenticated_gift_wraps, private, readers, writers

ALLOWED = frozenset({ALICE})
NEEDS_AUTH = "auth-required: authenticate to publish here"
REFUSED = "restricted: this key may not publish here"


@pytest.mark.parametrize(
    ("access", "author", "keys", "expected"),
    [
        ("auth", BOB, (), NEEDS_AUTH),
        ("auth", BOB, (CAROL,), None),
        ("allowed-authors", ALICE, (), None),
        ("allowed-authors", BOB, (ALICE,), REFUSED),
        ("allowed-clients", ALICE, (), NEEDS_AUTH),
        ("allowed-clients", ALICE, (BOB,), REFUSED),
        ("allowed-clients", BOB, (CAROL, ALICE), None),
    ],
)
def test_writers(access: str, author: str, keys: tuple[str, ...], expected: str | None) -> None:
    """Each kind of access admits whom it names, and asks for authentication where that could help."""
    assert verdict(writers(access, ALLOWED, ()), event(pubkey=author), *keys) == expected


def test_open_kinds_are_for_everybody() -> None:
    """Kinds that are open need no access."""
    policy = writers("allowed-authors", ALLOWED, frozenset({10002}))
    assert verdict(policy, event(10002, pubkey=BOB)) is None
    assert verdict(policy, event(10050, pubkey=BOB)) == REFUSED


@pytest.mark.parametrize("kind", [1059, 21059])
def test_inbox(kind: int) -> None:
    """Gift wraps for allowed keys are accepted from everybody, others are not."""
    for_alice, for_bob = event(kind, tags=[["p", ALICE]], pubkey=BOB), event(kind, tags=[["p", BOB]], pubkey=BOB)
    with_inbox, without = (writers("allowed-authors", ALLOWED, (), has_inbox=has) for has in (True, False))
    assert [verdict(with_inbox, one) for one in (for_alice, for_bob)] == [None, REFUSED]
    assert verdict(without, for_alice) == REFUSED
    assert verdict(with_inbox, event(1, tags=[["p", ALICE]], pubkey=BOB)) == REFUSED
    assert verdict(writers("auth", ALLOWED, (), has_inbox=True), event(kind), BOB) is None


def test_where_to_register() -> None:
    """Where access is sold, clients are told where."""
    policy = writers("allowed-authors", ALLOWED, (), register_url="https://example.com/join")
    assert verdict(policy, event(pubkey=BOB)) == "restricted: register at https://example.com/join"


def test_gift_wraps_can_need_authentication() -> None:
    """Any key will do, since the author of a gift wrap is random."""
    policy = authenticated_gift_wraps()
    assert verdict(policy, event(1059)) == "auth-required: gift wraps need authentication"
    assert verdict(policy, event(1059), CAROL) is None
    assert verdict(policy, event(1)) is None


def refusal_of(policy: FilterPolicy, filters: Sequence[Filter], *keys: str) -> str | None:
    """Return the text with which a policy refuses filters, or None."""
    refused = policy(filters, context(*keys))
    return None if refused is None else refused.text


@pytest.mark.parametrize(
    ("access", "keys", "expected"),
    [
        ("auth", (), "auth-required: authenticate to read here"),
        ("auth", (BOB,), None),
        ("allowed-clients", (), "auth-required: authenticate to read here"),
        ("allowed-clients", (BOB,), "restricted: this key may not read here"),
        ("allowed-clients", (BOB, ALICE), None),
    ],
)
def test_readers(access: str, keys: tuple[str, ...], expected: str | None) -> None:
    """Filters need the access that events need."""
    assert refusal_of(readers(access, ALLOWED), [Filter()], *keys) == expected


@pytest.mark.parametrize(
    ("kinds", "is_refused"),
    [
        ([(4,)], True),
        ([(4, 1059)], True),
        ([(4, 1)], False),
        ([None], False),
        ([()], False),
        ([(4,), (1059,)], True),
        ([(4,), (1,)], False),
    ],
)
def test_private_kinds(kinds: list[tuple[int, ...] | None], *, is_refused: bool) -> None:
    """Only a message all of whose filters are for private kinds is refused, and only without a key."""
    policy = private(frozenset({4, 1059}))
    filters = [Filter(kinds=one) for one in kinds]
    expected = "auth-required: these kinds are for their recipients" if is_refused else None
    assert refusal_of(policy, filters) == expected
    assert refusal_of(policy, filters, BOB) is None
