"""What becomes of a request head: an upgrade, a page, or one refusal. Sans-I/O: heads in, answers out.

Every refusal that can be known from the head is given here, in the order of the specification (quota, caps, header
gate), so that Autobahn only ever sees upgrades that will pass; it still asks the gate itself, which spends the token.

A request on an application's path is an attempt if it has a field ``Upgrade``, which no page can make a browser send
otherwise than by opening a WebSocket. All others, heads that cannot be read among them, are paid from another quota.

Invariants: each refusal is recorded and observed exactly once, whether it is answered or not; every attempt spends one
token of the quota of attempts if it has one, and every other request one of its own. An answer is the bytes of a whole
response, and empty where the connection is to be dropped without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias, cast

from pyryrelay.guard import ClientAddress, Quota, Reason, Refusal
from pyryrelay.guard.address.clientip import PROXY_SIGNS, Via
from pyryrelay.http import message
from pyryrelay.http.fast_head import field_values
from pyryrelay.http.listener_context import ListenerContext
from pyryrelay.protocol import HttpRefusal, Page, RepeatedHeaderError, Request
from pyryrelay.websocket.factory import RelayFactory
from pyryrelay.websocket.guarded import refusal_fields

MAX_CANNED = 1024
"""Answers that are kept ready."""

ResponseBytes: TypeAlias = bytes
Fields: TypeAlias = Sequence[tuple[str, str]]


class Upgrade(NamedTuple):
    """A request that may become a WebSocket connection, and the key of its opening handshake."""

    factory: RelayFactory
    request: Request
    key: str


def decide(
    context: ListenerContext, raw: bytes, peer: str | None, *, may_pass: bool = False
) -> Upgrade | ResponseBytes:
    """Decide about one head, up to and including its empty line.

    ``peer`` is the connection's source, None on a UNIX socket. ``may_pass``: `refuse_attempt` has just been asked about
    this very attempt, and let it pass. Raises whatever an application or a page raises.
    """
    try:
        head = message.parse_head(raw)
    except message.HeadError as error:
        return refuse_unread(context, raw, peer, error.status, "bad_head")
    live = context.live
    trust = live.trust
    forwarded = head.fields.get(trust.header, ())
    client = trust.derive(peer, forwarded)
    factory = context.routes.get(head.path)
    if factory is None:
        # Through a UNIX socket, and passed on by nobody: from this machine, although it has no address.
        is_local = client.ip.is_loopback if client is not None else peer is None and not forwarded
        return _plain_request(context, head, client, is_local)
    name = factory.application.name
    if live.draining:
        return refuse(context, name, 503, "draining", client)
    if "upgrade" not in head.fields:
        return refuse_plain(context, name, head.method, client)
    if trust.is_proxy(peer):
        via = trust.via(forwarded, client)
    else:
        via = Via.DIRECT if PROXY_SIGNS.isdisjoint(head.fields) else Via.STRANGER
    if not may_pass:
        answer = refuse_attempt(context, name, client, via, context.now())
        if answer is not None:
            return answer
    return _attempt(context, head, factory, client, via)


def refuse_unread(
    context: ListenerContext, raw: bytes | None, peer: str | None, status: int, reason: str
) -> ResponseBytes:
    """Refuse what cannot be read as a head; ``raw`` is all of it, or None if its end has not been seen.

    Behind a proxy the client is whom the lines of its header name, where they can be read. A client may have written
    the ones that are there while the proxy's are still to come, so the end must be there.
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


def _attempt(
    context: ListenerContext, head: message.Head, factory: RelayFactory, client: ClientAddress | None, via: Via
) -> Upgrade | ResponseBytes:
    """An attempt on an application's path that quotas and caps let pass: everything else about it."""
    name, now = factory.application.name, context.now()
    # The gate refuses whoever cannot be named.
    client = cast(ClientAddress, client)
    context.observer.attempted(client, via)
    request = Request(head.path, head.fields, client)
    problem = _problem(head, factory, request)
    if problem is not None:
        # An attempt is an attempt: what is wrong with it does not make it free.
        context.gate.spend(client, now)
        return refuse(context, name, problem.status, problem.reason, client, _FIELDS.get(problem.status, ()))
    return Upgrade(factory, request, message.websocket_key(head) or "")


def refuse_plain(context: ListenerContext, route: str, method: str, client: ClientAddress | None) -> ResponseBytes:
    """Answer a request on the path of the application ``route`` that asks for no upgrade."""
    refusal = context.gate.request(client, context.now())
    if refusal is not None:
        return refuse_admission(context, route, refusal, client)
    problem = _NO_UPGRADE if method == "GET" else _BAD_METHOD
    return refuse(context, route, problem.status, problem.reason, client, _FIELDS[problem.status])


_BAD_METHOD = HttpRefusal(405, "bad_method")
_NO_UPGRADE = HttpRefusal(426, "no_upgrade")

_FIELDS: Mapping[int, Fields] = {
    405: (("Allow", "GET"),),
    426: (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")),
}
"""What RFC 9110 sections 15.5.6 and 15.5.22 (and RFC 6455 section 4.2.2) want with these statuses."""


def _problem(head: message.Head, factory: RelayFactory, request: Request) -> HttpRefusal | None:
    """What is wrong with an attempt that the gate would admit."""
    if head.method != "GET":
        return _BAD_METHOD
    if not message.asks_for_websocket(head):
        return _NO_UPGRADE
    if message.websocket_key(head) is None or message.has_body(head):
        return HttpRefusal(400, "bad_handshake")
    if "expect" in head.fields:
        # RFC 9110 section 7.8 wants a 100 before the 101, and section 10.1.1 no expectation where there is no content.
        return HttpRefusal(417, "bad_handshake")
    try:
        return factory.application.gate_headers(request)
    except RepeatedHeaderError:
        return HttpRefusal(400, "repeated_header")


def _plain_request(
    context: ListenerContext, head: message.Head, client: ClientAddress | None, is_local: bool
) -> ResponseBytes:
    """A request that asks for no upgrade: a page, or nothing that is here."""
    page = context.pages.get(head.path)
    # The machine's own probes must get through whatever else is going on.
    if page is None or not is_local:
        refusal = context.gate.request(client, context.now())
        if refusal is not None:
            return refuse_admission(context, None, refusal, client)
    if page is None:
        return refuse(context, None, 404, "unknown_path", client)
    return _answer_page(context, head, page, client)


def _answer_page(
    context: ListenerContext, head: message.Head, page: Callable[[], Page], client: ClientAddress | None
) -> ResponseBytes:
    if head.method not in ("GET", "HEAD"):
        return refuse(context, None, 405, "bad_method", client, (("Allow", "GET, HEAD"),))
    content = page()
    head_only = head.method == "HEAD"
    return context.dated(message.response(content.status, content.fields, content.body, head_only=head_only))


def refuse_attempt(
    context: ListenerContext, route: str, client: ClientAddress | None, via: Via, now: float
) -> ResponseBytes | None:
    """Refuse an attempt on the path of the application ``route`` as far as the gate alone knows; None if it may go on.

    Then nothing has happened yet. ``via``: see `pyryrelay.http.listener_context.Observer.attempted`.
    """
    refusal = context.gate.refuse(client, route, now)
    if refusal is None:
        return None
    if client is not None:
        context.observer.attempted(client, via)
    return refuse_admission(context, route, refusal, client)


def refuse_arrival(
    context: ListenerContext, refusal: Refusal, address: ClientAddress | None, waiting: int
) -> ResponseBytes:
    """Refuse a connection at accept. ``waiting``: how many are not upgraded, this one among them."""
    answer = refuse_admission(context, None, refusal, address)
    # Not even an answer is owed to so many at once.
    return b"" if waiting > 2 * context.gate.leases.limits.max_handshakes else answer


def note_leaving(context: ListenerContext, address: ClientAddress | None, *, begun: bool = False) -> None:
    """A connection ended before there was a request; hold it against an address that does so again and again.

    ``begun``: a part of one was there. No health check sends that, so it counts from the first time on.
    """
    if begun and address is not None:
        refuse(context, None, 0, "unfinished_head", address)
    elif context.gate.left(address, context.now()):
        refuse(context, None, 0, "no_request", address)


def refuse_admission(
    context: ListenerContext, route: str | None, refusal: Refusal, client: ClientAddress | None
) -> ResponseBytes:
    """Refuse what the gate refuses; the answer, empty for a reason that is dropped."""
    context.gate.record(refusal)
    context.observer.refused(route, refusal.status, refusal.reason, client)
    if refusal.reason in context.live.dropped:
        return b""
    status, reason, _, quota = refusal
    count, period_s = (0, 0.0) if quota is None else (quota.count, quota.period_s)
    return context.dated(_canned(status, reason, refusal.retry_after_whole_s, count, period_s))


@lru_cache(MAX_CANNED)
def _canned(status: int, reason: Reason, wait_s: int | None, count: int = 0, period_s: float = 0.0) -> ResponseBytes:
    """The answer to a refusal of the gate; there are few, because waits are told in whole seconds."""
    quota = Quota(count, period_s, count) if count else None
    return message.response(status, refusal_fields(Refusal(status, reason, wait_s, quota)))


def refuse(
    context: ListenerContext,
    route: str | None,
    status: int,
    reason: str,
    client: ClientAddress | None,
    fields: Fields = (),
) -> ResponseBytes:
    """Refuse, and tell the observer; the answer, empty for a reason that is dropped and for a ``status`` of 0."""
    context.observer.refused(route, status, reason, client)
    return b"" if reason in context.live.dropped or not status else context.dated(_told(status, *fields))


@lru_cache(MAX_CANNED)
def _told(status: int, *fields: tuple[str, str]) -> ResponseBytes:
    """The answer to another refusal."""
    return message.response(status, fields)
