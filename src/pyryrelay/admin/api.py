"""The admin API: who is jailed, reload the configuration, and how a client address comes about.

It lives on the admin listener; docs/reference/admin-api.md describes it, `endpoint` guards it. What it does is
`AdminActions`. Invariant: input is quoted in errors only, shortened, and inside JSON. Times are seconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import Request

from pyryrelay.admin.resources import Answer, ApiResource, Handler, Rejected
from pyryrelay.guard.address.clientip import client_address
from pyryrelay.guard.address.lists import CidrSet, IPNetwork
from pyryrelay.guard.jail import MAX_DURATION_S
from pyryrelay.text import printable, quoted

__all__ = [
    "MAX_ENTRIES",
    "AdminActions",
    "JailEntry",
    "JailListing",
    "ReloadOutcome",
    "api_resources",
]

MAX_ENTRIES: Final = 10_000
"""Most jail entries in one answer: writing them down takes the reactor about 50 ms."""

DEFAULT_ENTRIES: Final = 1_000

_MAX_ADDRESS: Final = 100
_NAMED: Final = re.compile(r"((?:[a-z0-9]+-)+[a-z0-9]+|forwarded)[ \t]*:(.*)", re.IGNORECASE | re.DOTALL | re.ASCII)
"""A header line with its name. No address begins like this, so a line without a name is told apart."""


class JailEntry(NamedTuple):
    """One that is jailed: its network, for how much longer, and how many sentences in a row it had (0: by hand)."""

    network: str
    seconds_left: float
    times: int


class JailListing(NamedTuple):
    """Some of those who are jailed, and how many there are."""

    entries: Sequence[JailEntry]
    total: int


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """Names of the settings that were changed, and of those that only a restart changes.

    With an `error`, one line, nothing was changed and both are empty.
    """

    changed: Sequence[str] = ()
    needs_restart: Sequence[str] = ()
    error: str | None = None


class AdminActions(Protocol):
    """What an operator can ask of a running relay. A `GuardError` is the operator's mistake and is told in full."""

    @property
    def forwarding_header(self) -> str:
        """Name of the header that client addresses are taken from, in lower case."""

    def jail_entries(self, limit: int) -> JailListing:
        """At most `limit` of those who are jailed now."""

    def jail_add(self, network: IPNetwork, seconds: float) -> JailEntry:
        """Jail the client of `network`. Raises `GuardError` where that would have no effect."""

    def jail_release(self, network: IPNetwork) -> str | None:
        """Release the client of `network`: the network it was jailed under, or None if it was not jailed."""

    def reload(self) -> Deferred[ReloadOutcome]:
        """Read the configuration and the list files again."""

    def explain(self, peer: str | None, lines: Sequence[str]) -> Sequence[str]:
        """Say step by step which client is behind `peer` (None: a UNIX socket) that sends these header lines."""


class _JailApi:
    """`/jail` and `/jail/<address>`."""

    def __init__(self, actions: AdminActions) -> None:
        self._actions = actions

    def entries(self, request: Request) -> Answer:
        _check_no_rest(request)
        listing = self._actions.jail_entries(_limit(request))
        body = [entry._asdict() for entry in listing.entries]
        return Answer(200, body, {"X-Total-Count": str(listing.total)})

    def add(self, request: Request) -> Answer:
        _check_no_rest(request)
        address, seconds = _sentence(request)
        return Answer(201, self._actions.jail_add(_network(address), seconds)._asdict())

    def release(self, request: Request) -> Answer:
        address = _rest(request)
        if not address:
            raise Rejected(404, "name whom to release: DELETE /jail/192.0.2.7")
        released = self._actions.jail_release(_network(address))
        if released is None:
            raise Rejected(404, f"{address!r} is not jailed: 'pyryrelay jail list', or GET /jail, shows who is")
        return Answer(200, {"network": released})


def _rest(request: Request) -> str:
    """What follows the endpoint's own path."""
    return b"/".join(request.postpath or []).decode("utf-8", "replace")


def _check_no_rest(request: Request) -> None:
    if _rest(request):
        raise Rejected(404, "there is nothing at this path: use /jail, /reload or /whoami")


def _arguments(request: Request, *names: str) -> dict[str, list[str]]:
    """The parameters of the URL, of which only `names` are known."""
    # As bytes of a header are: ISO 8859-1.
    given = {name.decode("latin-1"): [value.decode("latin-1") for value in values] for name, values in _args(request)}
    for name in given:
        if name not in names:
            raise Rejected(400, f"{quoted(name)} is no parameter here: use {' and '.join(names)}")
    return given


def _args(request: Request) -> list[tuple[bytes, list[bytes]]]:
    return list((request.args or {}).items())


def _limit(request: Request) -> int:
    texts = _arguments(request, "limit").get("limit", [str(DEFAULT_ENTRIES)])
    text = texts[0]
    if len(texts) == 1 and text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_ENTRIES:
        return int(text)
    raise Rejected(400, f"limit {quoted(text)} is out of range: use 1 to {MAX_ENTRIES}, once")


_BODY: Final = 'send {"address": "192.0.2.7", "seconds": 600}'


def _sentence(request: Request) -> tuple[str, float]:
    """Address and seconds from the body of a request."""
    assert request.content is not None
    request.content.seek(0)
    try:
        body = json.loads(request.content.read())
    except (ValueError, RecursionError):
        raise Rejected(400, f"the body is not JSON: {_BODY}") from None
    if not isinstance(body, dict) or body.keys() != {"address", "seconds"}:
        raise Rejected(400, f"the body is no object with address and seconds alone: {_BODY}")
    address, seconds = body["address"], body["seconds"]
    if not isinstance(address, str):
        raise Rejected(400, f"address is no text: {_BODY}")
    # To Python a boolean is a number.
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MAX_DURATION_S:
        raise Rejected(400, f"seconds is no number above 0 and up to {MAX_DURATION_S:.0f}: {_BODY}")
    return address, float(seconds)


def _network(text: str) -> IPNetwork:
    if len(text) > _MAX_ADDRESS:
        raise Rejected(400, f"{quoted(text)} is no address: write '192.0.2.7' or '2001:db8::1'")
    (network,) = CidrSet([text])
    return network


def _whoami(actions: AdminActions, request: Request) -> Answer:
    """Explain a peer and header lines that are given, or this very request."""
    _check_no_rest(request)
    given = _arguments(request, "peer", "header")
    header = actions.forwarding_header
    notes: list[str] = []
    if given:
        lines, notes = _forwarded(given.get("header", []), header)
    else:
        lines = list(request.requestHeaders.getRawHeaders(header, []))
    peer = _given_peer(given["peer"]) if "peer" in given else getattr(request.getClientAddress(), "host", None)
    steps = [printable(step) for step in [*notes, *actions.explain(peer, lines)]]
    accepted = ",".join(request.requestHeaders.getRawHeaders("accept", []))
    body: object = {"steps": steps} if "application/json" in accepted.lower() else "".join(f"{s}\n" for s in steps)
    return Answer(200, body, {"Vary": "Accept"})


def _given_peer(texts: Sequence[str]) -> str | None:
    """The address of a peer, or None for the word ``unix``."""
    text = texts[0].strip()
    if len(texts) > 1 or (text != "unix" and client_address(text) is None):
        raise Rejected(400, f"peer {quoted(text)} is not one address: write peer=192.0.2.7, or peer=unix")
    return None if text == "unix" else text


def _forwarded(texts: Sequence[str], header: str) -> tuple[list[str], list[str]]:
    """The lines of `header` among `texts`, which are values of it or whole lines; and notes on those that are not."""
    lines: list[str] = []
    notes: list[str] = []
    for text in texts:
        named = _NAMED.fullmatch(text)
        if named is None:
            lines.append(text.strip())
        elif named[1].lower() == header:
            lines.append(named[2].strip())
        else:
            notes.append(f"{named[1].lower():.60} is not read: client addresses are taken from {header}")
    return lines, notes


def _reload(actions: AdminActions, request: Request) -> Deferred[Answer]:
    _check_no_rest(request)
    return actions.reload().addCallback(_reloaded)


def _reloaded(outcome: ReloadOutcome) -> Answer:
    body = {
        "changed": list(outcome.changed),
        "needs_restart": list(outcome.needs_restart),
        "error": outcome.error,
    }
    return Answer(200 if outcome.error is None else 422, body)


def api_resources(actions: AdminActions, names: Collection[str] = ()) -> dict[str, Resource]:
    """The API's resources by path, for `admin_site`. `names` are host names of the admin listener, if it has any."""
    jail = _JailApi(actions)
    handlers: dict[str, dict[str, Handler]] = {
        "/jail": {"GET": jail.entries, "POST": jail.add, "DELETE": jail.release},
        "/reload": {"POST": lambda request: _reload(actions, request)},
        "/whoami": {"GET": lambda request: _whoami(actions, request)},
    }
    return {path: ApiResource(methods, names) for path, methods in handlers.items()}
