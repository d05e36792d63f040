"""Authentication of a connection (NIP-42, spec section 10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from pyryrelay.nostr.events import Event, canonical, event_id
from pyryrelay.nostr.messages import ok
from pyryrelay.nostr.policies import refusal
from pyryrelay.nostr.policies.authentication import check_auth
from pyryrelay.nostr.policies.refusal import Refused
from pyryrelay.nostr.serving.connection import Connection
from pyryrelay.nostr.serving.relay import Relay
from pyryrelay.nostr.workers.wire import Verdict

_WRONG_ID: Final = refusal.WRONG_ID()
_SHUTTING_DOWN: Final = refusal.SHUTTING_DOWN()
_FAILED: Final = refusal.NOT_STORED()
_REFUSED: Final[dict[int | None, Refused]] = {
    Verdict.BAD_KEY: refusal.WRONG_KEY(),
    Verdict.BAD_SIGNATURE: refusal.WRONG_SIGNATURE(),
}
_NO_FAULT: Final = frozenset(
    one.word for one in (refusal.TOO_MANY_KEYS, refusal.TOO_MANY_AUTHS, refusal.SHUTTING_DOWN, refusal.NOT_STORED)
)


def authenticate(relay: Relay, connection: Connection, event: Event, done: Callable[[], None]) -> bool:
    """Answer an AUTH whose shape is right. Returns whether that takes a while; then ``done`` is called after it.

    The cheap checks come first. A client whose event passes them is asked for nothing more than a good signature.
    """
    refused = _refused(relay, connection, event)
    if refused is not None:
        _refuse(relay, connection, event, refused)
        return False

    is_waiting = False
    is_verified = False

    def verified(verdicts: Sequence[int] | None) -> None:
        nonlocal is_verified
        is_verified = True
        _conclude(relay, connection, event, None if verdicts is None else verdicts[0])
        if is_waiting:
            done()

    relay.store.verifiers.verify([(event.id, event.pubkey, event.sig)], verified)
    is_waiting = not is_verified
    return is_waiting


def _refused(relay: Relay, connection: Connection, event: Event) -> Refused | None:
    if relay.is_draining:
        return _SHUTTING_DOWN
    refused = None if connection.is_exempt else relay.quotas.spend_auth(connection.client, relay.now())
    if refused is None and event_id(canonical(event).preimage) != event.id:
        refused = _WRONG_ID
    if refused is None:
        refused = check_auth(event, connection.challenge, relay.rules.urls, relay.wall_s())
    limit = relay.options.nostr_max_auth_keys
    if refused is None and limit is not None and event.pubkey not in connection.keys and len(connection.keys) >= limit:
        refused = refusal.TOO_MANY_KEYS(limit)
    return refused


def _conclude(relay: Relay, connection: Connection, event: Event, verdict: int | None) -> None:
    """Add the key of an event whose signature is good. Only a signature that was looked at counts."""
    if connection.is_closed:
        return
    if verdict != Verdict.GOOD:
        _refuse(relay, connection, event, _REFUSED.get(verdict, _FAILED))
        return
    if not connection.keys:
        relay.counts.authed_connections += 1
    connection.keys |= {event.pubkey}
    if event.pubkey in relay.options.nostr_trusted:
        connection.is_exempt = True
    relay.counts.auth["accepted"] += 1
    connection.reply([ok(event.id, True, "")])


def _refuse(relay: Relay, connection: Connection, event: Event, refused: Refused) -> None:
    relay.counts.auth[refused.word] += 1
    relay.note_refused("AUTH", connection.client, refused.word)
    connection.reply([ok(event.id, False, relay.text(refused.text))])
    if refused.word not in _NO_FAULT:
        relay.charge_invalid(connection, is_strike=True)
