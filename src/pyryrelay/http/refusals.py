"""Refusals: counted, told to the observer, and answered from canned bytes. Sans-I/O.

Invariants: each function refuses at most once, and each refusal is recorded and observed exactly once, whether it is
answered or not. An answer is the bytes of a whole response. It is empty where the connection is to be dropped without
one: for the reasons in `LivePolicy.dropped`, and for a status of 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, TypeAlias

from pyryrelay.guard import ClientAddress, Quota, Reason, Refusal
from pyryrelay.guard.address.clientip import Via
from pyryrelay.http.fast_head import field_values
from pyryrelay.http.listener_context import ListenerContext
from pyryrelay.http.message import response
from pyryrelay.protocol import Fields
from pyryrelay.refusal_words import RefusalWord
from pyryrelay.websocket.guarded import refusal_fields

MAX_CANNED: Final = 1024
"""Answers of each kind that are kept ready."""

ResponseBytes: TypeAlias = bytes

_REQUIRED_FIELDS: Final[Mapping[int, Fields]] = {
    405: (("Allow", "GET"),),
    426: (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")),
}
"""What RFC 9110 sections 15.5.6 and 15.5.22 (and RFC 6455 section 4.2.2) require with these statuses."""


def refuse(
    context: ListenerContext,
    route: str | None,
    status: int,
    reason: str,
    client: ClientAddress | None,
    fields: Fields = (),
) -> ResponseBytes:
    """Refuse for a reason that is not the gate's.

    ``fields`` take the place of those of the same name that the status requires.
    """
    context.observer.refused(route, status, reason, client)
    if reason in context.live.dropped or not status:
        return b""
    if (usual := context.answer_fields.get(route)) is not None:
        names = {name for name, _ in fields}
        fields = (*fields, *(field for field in usual if field[0] not in names))
    return context.dated(_canned(status, *fields))


@lru_cache(MAX_CANNED)
def _canned(status: int, *fields: tuple[str, str]) -> ResponseBytes:
    names = {name for name, _ in fields}
    required = [field for field in _REQUIRED_FIELDS.get(status, ()) if field[0] not in names]
    return response(status, [*required, *fields])


def refuse_admission(
    context: ListenerContext, route: str | None, refusal: Refusal, client: ClientAddress | None
) -> ResponseBytes:
    """Refuse what the gate refuses."""
    context.observer.refused(route, refusal.status, refusal.reason, client)
    if refusal.reason in context.live.dropped:
        return b""
    status, reason, _, quota = refusal
    count, period_s = (0, 0.0) if quota is None else (quota.count, quota.period_s)
    fields = context.answer_fields.get(route, ())
    return context.dated(_canned_admission(status, reason, refusal.retry_after_whole_s, count, period_s, *fields))


@lru_cache(MAX_CANNED)
def _canned_admission(
    status: int, reason: Reason, wait_s: int | None, count: int, period_s: float, *fields: tuple[str, str]
) -> ResponseBytes:
    # There are few of them, because waits are told in whole seconds.
    quota = Quota(count, period_s, count) if count else None
    return response(status, [*refusal_fields(Refusal(status, reason, wait_s, quota)), *fields])


def refuse_arrival(
    context: ListenerContext, refusal: Refusal, address: ClientAddress | None, waiting: int
) -> ResponseBytes:
    """Refuse a connection at accept. ``waiting`` connections are not upgraded, including this one."""
    answer = refuse_admission(context, None, refusal, address)
    # With so many of them, further answers are not worth the memory.
    return b"" if waiting > 2 * context.gate.leases.limits.max_handshakes else answer


def refuse_attempt(
    context: ListenerContext, route: str, client: ClientAddress | None, via: Via, now: float
) -> ResponseBytes | None:
    """Refuse an attempt to upgrade on the path of the application ``route``, if the gate does.

    None if it does not; then nothing has happened yet. ``via``: see `Observer.attempted`.
    """
    refusal = context.gate.refuse(client, route, now)
    if refusal is None:
        return None
    if client is not None:
        context.observer.attempted(client, via)
    return refuse_admission(context, route, refusal, client)


def refuse_request(
    context: ListenerContext, route: str | None, client: ClientAddress | None, now: float
) -> ResponseBytes | None:
    """Pay for a request that asks for no upgrade, or refuse it. None if it is paid."""
    refusal = context.gate.request(client, now)
    return None if refusal is None else refuse_admission(context, route, refusal, client)


def refuse_unread(
    context: ListenerContext, raw: bytes | None, peer: str | None, status: int, reason: str
) -> ResponseBytes:
    """Refuse bytes that cannot be read as a head. ``raw`` is all of it, or None if its end has not been seen.

    Behind a proxy the client is the one that the lines of its header name, if they can be read. Without the end of the
    head they are not read: the client may have written them, and the proxy's may be still to come.
    """
    trust, now = context.live.trust, context.now()
    client, nearest = None, None
    if not trust.is_proxy(peer):
        client = nearest = trust.derive(peer, ())
    elif raw is not None and (lines := field_values(raw, len(raw), trust.header)):
        client = nearest = trust.derive(peer, lines)
    if client is not None:
        refusal = context.gate.request(client, now)
    else:
        # Proxies that were named are never jailed, so that they can be named in the log.
        proxy = trust.derive(peer, ())
        nearest = proxy if trust.is_listed(peer) else None
        refusal = context.gate.request_by_proxy(proxy, now)
    if refusal is not None:
        return refuse_admission(context, None, refusal, nearest)
    return refuse(context, None, status, reason, nearest)


def record_departure(context: ListenerContext, address: ClientAddress | None, *, has_begun: bool = False) -> None:
    """Count a connection that ended before its request was complete.

    ``has_begun``: a part of the request was received. No health check sends that, so each one is refused; an address
    that sends nothing is refused only if that happens often.
    """
    if has_begun and address is not None:
        refuse(context, None, 0, RefusalWord.UNFINISHED_HEAD, address)
    elif context.gate.closed_early(address, context.now()):
        refuse(context, None, 0, RefusalWord.NO_REQUEST, address)
