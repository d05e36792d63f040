"""What becomes of a request head: an upgrade, or an answer. Sans-I/O: heads in, decisions out.

Every refusal that can be known from the head is given here, in the order of the specification (quota, caps, header
gate), so that Autobahn sees only upgrades that will be admitted. It still asks the gate itself, which spends the token.

If the relay has several processes, the listener's `pyryrelay.http.placement.Placement` is asked last.

A request on an application's path is an attempt to upgrade if it has a field ``Upgrade``. A web page cannot make a
browser send that field except by opening a WebSocket. All other requests are paid from another quota, and so are heads
that cannot be read.

If ``--host`` names hosts, RFC 9110 section 15.5.20 has the answer for requests that ask for others: 421.

Invariants: every attempt spends one token of the quota of attempts if there is one, and every other request one token
of its own quota. See `pyryrelay.http.refusals` for those of refusals.
"""

from __future__ import annotations

from typing import Final, NamedTuple, cast

from twisted.internet.defer import Deferred

from pyryrelay.guard import ClientAddress
from pyryrelay.guard.address.clientip import PROXY_SIGNS, Via
from pyryrelay.http import message
from pyryrelay.http.hosts import HostPolicy
from pyryrelay.http.listener_context import ListenerContext
from pyryrelay.http.placement import HERE, Carrier, Place, Placement
from pyryrelay.http.plain_requests import PendingAnswer, answer_page_request, ask_application, page_response
from pyryrelay.http.refusals import (
    ResponseBytes,
    refuse,
    refuse_admission,
    refuse_attempt,
    refuse_request,
    refuse_unread,
)
from pyryrelay.protocol import HttpRefusal, HttpRequest, Page, RepeatedHeaderError, Request
from pyryrelay.refusal_words import NOT_THE_CLIENTS_FAULT, RefusalWord
from pyryrelay.websocket.factory import RelayFactory
from pyryrelay.websocket.guarded import HeldLease

_BAD_METHOD: Final = HttpRefusal(405, RefusalWord.BAD_METHOD)
_NO_UPGRADE: Final = HttpRefusal(426, RefusalWord.NO_UPGRADE)
_BAD_HANDSHAKE: Final = HttpRefusal(400, RefusalWord.BAD_HANDSHAKE)
_UNMET_EXPECTATION: Final = HttpRefusal(417, RefusalWord.BAD_HANDSHAKE)
_WRONG_HOST: Final = HttpRefusal(421, RefusalWord.WRONG_HOST)
_REPEATED_HEADER: Final = HttpRefusal(400, RefusalWord.REPEATED_HEADER)


class Upgrade(NamedTuple):
    """A request that may become a WebSocket connection, and the key of its opening handshake.

    ``place`` is None if it is served here, and else who carries it away, or what will tell where it is served;
    ``place_key`` is what that depends on. ``lease`` was taken by another process, which has admitted the connection.
    """

    factory: RelayFactory
    request: Request
    key: str
    place: Carrier | Deferred[Place] | None = None
    place_key: str = ""
    lease: HeldLease | None = None


def decide(
    context: ListenerContext,
    raw: bytes,
    peer: str | None,
    *,
    is_admitted: bool = False,
    server_name: bytes | None = None,
) -> Upgrade | ResponseBytes | PendingAnswer:
    """Decide about one head, up to and including its empty line.

    ``peer`` is the connection's source, None on a UNIX socket. ``server_name`` is the name that TLS was begun with.
    ``is_admitted``: the gate has just been asked about this head, by `refuse_attempt` or `refuse_request`, and did not
    refuse it. Raises what an application or a page raises.
    """
    try:
        head = message.parse_head(raw)
    except message.HeadError as error:
        return refuse_unread(context, raw, peer, error.status, RefusalWord.BAD_HEAD)
    live = context.live
    trust = live.trust
    forwarded = head.fields.get(trust.header, ())
    client = trust.derive(peer, forwarded)
    factory = context.routes.get(head.path)
    is_ours = not live.hosts or _is_ours(live.hosts, head, server_name)
    if factory is None:
        # What comes through a UNIX socket, and was not forwarded, is from this machine although it has no address.
        is_local = client.ip.is_loopback if client is not None else peer is None and not forwarded
        return answer_page_request(context, head, client, is_local=is_local, is_ours=is_ours)
    name = factory.application.name
    if live.draining:
        return refuse(context, name, 503, RefusalWord.DRAINING, client)
    if "upgrade" not in head.fields:
        if not is_admitted:
            answer = refuse_request(context, name, client, context.now())
            if answer is not None:
                return answer
        if not is_ours:
            return refuse(context, name, 421, RefusalWord.WRONG_HOST, client)
        return ask_application(context, factory.application, HttpRequest(head.method, head.path, head.fields, client))
    if trust.is_proxy(peer):
        via = trust.via(forwarded, client)
    else:
        via = Via.DIRECT if PROXY_SIGNS.isdisjoint(head.fields) else Via.UNTRUSTED_HEADERS
    if not is_admitted:
        answer = refuse_attempt(context, name, client, via, context.now())
        if answer is not None:
            return answer
    # The gate refuses clients that cannot be named.
    return _attempt(context, head, factory, cast(ClientAddress, client), via, is_ours=is_ours)


def _is_ours(hosts: HostPolicy, head: message.Head, server_name: bytes | None) -> bool:
    """Tell whether a request asks for our hosts only, in whichever way it names one."""
    names = head.hosts
    is_ours = bool(names) and all(map(hosts.allows, names))
    return is_ours and (server_name is None or hosts.allows(server_name.decode("latin-1")))


def _attempt(
    context: ListenerContext,
    head: message.Head,
    factory: RelayFactory,
    client: ClientAddress,
    via: Via,
    *,
    is_ours: bool,
) -> Upgrade | ResponseBytes:
    """Decide about an attempt that quotas and caps let pass."""
    name, now = factory.application.name, context.now()
    context.observer.attempted(client, via)
    request = Request(head.path, head.fields, client)
    problem = _problem(head, factory, request) if is_ours else _WRONG_HOST
    if problem is not None:
        # It is an attempt, whatever is wrong with it, and costs a token.
        context.gate.spend(client, now)
        return refuse(context, name, problem.status, problem.reason, client, problem.fields)
    key = message.websocket_key(head) or ""
    if context.placement is None:
        return Upgrade(factory, request, key)
    return _place(context, context.placement, factory, request, key, None)


def decide_arrival(
    context: ListenerContext, request: Request, key: str, lease: HeldLease, placement: Placement | None
) -> Upgrade | ResponseBytes:
    """Decide about the upgrade of a connection that another process of the relay has admitted and given to this one.

    Nothing is spent, and the gate is not asked. The other process has read and checked the ``request`` and the ``key``
    of its opening handshake, and holds the ``lease``. Raises what an application or a placement raises.
    """
    factory = context.routes.get(request.path)
    if factory is None:
        return refuse(context, None, 404, RefusalWord.UNKNOWN_PATH, request.client)
    if context.live.draining:
        return refuse(context, factory.application.name, 503, RefusalWord.DRAINING, request.client)
    if placement is None:
        return Upgrade(factory, request, key, lease=lease)
    return _place(context, placement, factory, request, key, lease)


def _place(
    context: ListenerContext,
    placement: Placement,
    factory: RelayFactory,
    request: Request,
    key: str,
    lease: HeldLease | None,
) -> Upgrade | ResponseBytes:
    """Ask where an upgrade is to be served that nothing else forbids."""
    application = factory.application
    place_key = application.place_key(request)
    if place_key is None:
        return Upgrade(factory, request, key, lease=lease)
    place = placement.place(application.name, place_key)
    if place is HERE:
        return Upgrade(factory, request, key, None, place_key, lease)
    if isinstance(place, HttpRefusal | Page):
        return settle(context, Upgrade(factory, request, key, None, place_key, lease), place)
    return Upgrade(factory, request, key, place, place_key, lease)


def settle(context: ListenerContext, upgrade: Upgrade, place: Place) -> Upgrade | ResponseBytes:
    """Return what becomes of an upgrade whose place is known now: an answer, or one that does not wait any more."""
    if place is HERE:
        return upgrade._replace(place=None)
    if not isinstance(place, HttpRefusal | Page):
        return upgrade._replace(place=place)
    name, client = upgrade.factory.application.name, upgrade.request.client
    reason = place.reason if isinstance(place, HttpRefusal) else None
    if upgrade.lease is None and reason not in NOT_THE_CLIENTS_FAULT:
        refusal = context.gate.spend(client, context.now())
        if refusal is not None:
            # Others of this client have spent the last token while this one waited.
            return refuse_admission(context, name, refusal, client)
    if isinstance(place, Page):
        return page_response(context, "GET", place)
    return refuse(context, name, place.status, place.reason, client, place.fields)


def _problem(head: message.Head, factory: RelayFactory, request: Request) -> HttpRefusal | None:
    """Say what is wrong with an attempt that the gate would admit."""
    if head.method != "GET":
        return _BAD_METHOD
    if not message.asks_for_websocket(head):
        return _NO_UPGRADE
    if message.websocket_key(head) is None or message.has_body(head):
        return _BAD_HANDSHAKE
    if "expect" in head.fields:
        # RFC 9110 section 7.8 wants a 100 before the 101, and section 10.1.1 no expectation where there is no content.
        return _UNMET_EXPECTATION
    try:
        return factory.application.gate_headers(request)
    except RepeatedHeaderError:
        return _REPEATED_HEADER
