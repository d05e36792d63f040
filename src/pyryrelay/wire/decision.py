"""What becomes of a request head: an upgrade, a page, or one refusal. Sans-I/O: heads in, answers out.

Every refusal that can be known from the head is given here, in the order of the specification (quota, caps, header
gate), so that Autobahn only ever sees upgrades that will pass; it still asks the gate itself, which spends the token.

Invariants: each refusal is recorded and observed exactly once, whether it is answered or not; every attempt on an
application's path spends one token if it has one. An answer is the bytes of a whole response, and empty where the
connection is to be dropped without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias, cast

from pyryrelay.application import HttpRefusal, Page, RepeatedHeaderError, Request
from pyryrelay.guard import ClientAddress, Quota, Reason, Refusal
from pyryrelay.guard.clientip import FORWARDING_HEADERS
from pyryrelay.wire import http
from pyryrelay.wire.guarded import refusal_fields

if TYPE_CHECKING:
    from pyryrelay.wire.entrance import EntranceConfig
    from pyryrelay.wire.websocket import RelayFactory

MAX_CANNED = 1024
"""Answers that are kept ready."""

Answer: TypeAlias = bytes
Fields: TypeAlias = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A request that may become a WebSocket connection, and the key of its opening handshake."""

    factory: RelayFactory
    request: Request
    key: str


def decide(
    config: EntranceConfig, raw: bytes, peer: str | None, nearest: ClientAddress | None, *, may_pass: bool = False
) -> Upgrade | Answer:
    """Decide about one head, up to and including its empty line.

    ``peer`` is the connection's source, None on a UNIX socket; ``nearest`` the client as far as it is known without
    a head. ``may_pass``: `refuse_attempt` has just been asked about this very attempt, and let it pass. Raises whatever
    an application or a page raises.
    """
    try:
        head = http.parse_head(raw)
    except http.HeadError as error:
        return refuse(config, None, error.status, "bad_head", nearest)
    forwarded = head.fields.get(config.trust.header, ())
    client = config.trust.derive(peer, forwarded)
    factory = config.routes.get(head.path)
    if factory is None:
        # Through a UNIX socket, and passed on by nobody: from this machine, although it has no address.
        is_local = client.ip.is_loopback if client is not None else peer is None and not forwarded
        return _plain_request(config, head, client, is_local)
    if config.draining:
        return refuse(config, factory.application.name, 503, "draining", client)
    forwards = not config.trust.is_proxy(peer) and not FORWARDING_HEADERS.keys().isdisjoint(head.fields)
    if not may_pass:
        answer = refuse_attempt(config, factory.application.name, client, forwards, config.now())
        if answer is not None:
            return answer
    return _attempt(config, head, factory, client, forwards)


def _attempt(
    config: EntranceConfig, head: http.Head, factory: RelayFactory, client: ClientAddress | None, forwards: bool
) -> Upgrade | Answer:
    """An attempt on an application's path that quotas and caps let pass: everything else about it."""
    name, now = factory.application.name, config.now()
    # The gate refuses whoever cannot be named.
    client = cast(ClientAddress, client)
    config.observer.attempted(client, forwards)
    request = Request(head.path, head.fields, client)
    problem = _problem(head, factory, request)
    if problem is not None:
        # An attempt is an attempt: what is wrong with it does not make it free.
        config.gate.spend(client, now)
        return refuse(config, name, problem.status, problem.reason, client, _FIELDS.get(problem.status, ()))
    return Upgrade(factory, request, http.websocket_key(head) or "")


_FIELDS: Mapping[int, Fields] = {
    405: (("Allow", "GET"),),
    426: (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")),
}
"""What RFC 9110 sections 15.5.6 and 15.5.22 (and RFC 6455 section 4.2.2) want with these statuses."""


def _problem(head: http.Head, factory: RelayFactory, request: Request) -> HttpRefusal | None:
    """What is wrong with an attempt that the gate would admit."""
    if head.method != "GET":
        return HttpRefusal(405, "bad_method")
    if not http.asks_for_websocket(head):
        return HttpRefusal(426, "no_upgrade")
    if http.websocket_key(head) is None:
        return HttpRefusal(400, "bad_handshake")
    try:
        return factory.application.gate_headers(request)
    except RepeatedHeaderError:
        return HttpRefusal(400, "repeated_header")


def _plain_request(config: EntranceConfig, head: http.Head, client: ClientAddress | None, is_local: bool) -> Answer:
    """A request that asks for no upgrade: a page, or nothing that is here."""
    page = config.pages.get(head.path)
    # The machine's own probes must get through whatever else is going on.
    if page is None or not is_local:
        refusal = config.gate.request(client, config.now())
        if refusal is not None:
            return refuse_admission(config, None, refusal, client)
    if page is None:
        return refuse(config, None, 404, "unknown_path", client)
    return _answer_page(config, head, page, client)


def _answer_page(
    config: EntranceConfig, head: http.Head, page: Callable[[], Page], client: ClientAddress | None
) -> Answer:
    if head.method not in ("GET", "HEAD"):
        return refuse(config, None, 405, "bad_method", client, (("Allow", "GET, HEAD"),))
    content = page()
    return http.response(content.status, content.fields, content.body, head_only=head.method == "HEAD")


def refuse_attempt(
    config: EntranceConfig, route: str, client: ClientAddress | None, forwards: bool, now: float
) -> Answer | None:
    """Refuse an attempt on the path of the application ``route`` as far as the gate alone knows; None if it may go on.

    Then nothing has happened yet. ``forwards``: see `pyryrelay.wire.entrance.Observer.attempted`.
    """
    refusal = config.gate.refuse(client, route, now)
    if refusal is None:
        return None
    if client is not None:
        config.observer.attempted(client, forwards)
    return refuse_admission(config, route, refusal, client)


def refuse_arrival(config: EntranceConfig, refusal: Refusal, address: ClientAddress | None, waiting: int) -> Answer:
    """Refuse a connection at accept. ``waiting``: how many are not upgraded, this one among them."""
    answer = refuse_admission(config, None, refusal, address)
    # Not even an answer is owed to so many at once.
    return b"" if waiting > 2 * config.gate.leases.limits.max_handshakes else answer


def note_leaving(config: EntranceConfig, address: ClientAddress | None) -> None:
    """A connection ended before there was a request; hold it against an address that does so again and again."""
    if config.gate.left(address, config.now()):
        refuse(config, None, 0, "no_request", address)


def refuse_admission(
    config: EntranceConfig, route: str | None, refusal: Refusal, client: ClientAddress | None
) -> Answer:
    """Refuse what the gate refuses; the answer, empty for a reason that is dropped."""
    config.gate.record(refusal)
    config.observer.refused(route, refusal.status, refusal.reason, client)
    if refusal.reason in config.dropped:
        return b""
    status, reason, _, quota = refusal
    if quota is None:
        return _canned(status, reason, refusal.retry_after_whole_s)
    return _canned(status, reason, refusal.retry_after_whole_s, quota.count, quota.period_s)


@lru_cache(MAX_CANNED)
def _canned(status: int, reason: Reason, wait_s: int | None, count: int = 0, period_s: float = 0.0) -> Answer:
    """The answer to a refusal of the gate; there are few, because waits are told in whole seconds."""
    quota = Quota(count, period_s, count) if count else None
    return http.response(status, refusal_fields(Refusal(status, reason, wait_s, quota)))


def refuse(
    config: EntranceConfig,
    route: str | None,
    status: int,
    reason: str,
    client: ClientAddress | None,
    fields: Fields = (),
) -> Answer:
    """Refuse, and tell the observer; the answer, empty for a reason that is dropped and for a ``status`` of 0."""
    config.observer.refused(route, status, reason, client)
    return b"" if reason in config.dropped or not status else http.response(status, fields)
