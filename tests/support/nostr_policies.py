"""Events, filters and contexts for the tests of policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pyryrelay.guard import ClientAddress, client_address
from pyryrelay.nostr.events import Canonical, Event, canonical
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.policies.quotas.quotas import NostrQuotas
from pyryrelay.nostr.policies.refusal import Context, Refused

WALL_S = 1_800_000_000
ALICE, BOB, CAROL = "a" * 64, "b" * 64, "c" * 64

Policy = Callable[[Event, Canonical, Context], Refused | None]


def event(
    kind: int = 1,
    content: str = "",
    tags: Iterable[list[str]] = (),
    *,
    pubkey: str = ALICE,
    created_at: int = WALL_S,
    id: str = "f" * 64,  # noqa: A002
) -> Event:
    """Return an event whose id and signature are made up."""
    return Event(id, pubkey, created_at, kind, list(tags), content, "0" * 128)


def client(text: str = "192.0.2.1") -> ClientAddress:
    """Return the client at an address."""
    found = client_address(text)
    assert found is not None
    return found


def context(*keys: str, is_exempt: bool = False) -> Context:
    """Return the context of a client that has authenticated these keys."""
    return Context(client(), frozenset(keys), WALL_S, is_exempt)


def verdict(policy: Policy, checked: Event, *keys: str) -> str | None:
    """Return the text with which a policy refuses an event of a client with these keys, or None."""
    refused = policy(checked, canonical(checked), context(*keys))
    return None if refused is None else refused.text


QUOTAS_OFF: dict[str, Any] = dict.fromkeys(
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


def quotas(**changes: Any) -> NostrQuotas:
    """Return quotas of which only these are on."""
    made = NostrQuotas()
    made.configure(NostrOptions(**{**QUOTAS_OFF, **changes}))
    return made


def text_of(refused: Refused | None) -> str | None:
    """Return the text of a refusal, or None."""
    return None if refused is None else refused.text
