"""The admin API: list, jail and release clients, reload the configuration, and explain client addresses.

It is served on the admin listener; docs/reference/admin-api.md describes it. `ROUTES` has every request that it
answers, `AdminActions` what the handlers do to the relay. To add a request, write its handler, its line in `ROUTES` and
its action here, and the action in ``actions``. Invariant: input is quoted only in errors, shortened, and inside JSON.
Times are seconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeAlias, TypeVar

from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import Request

from pyryrelay.admin.resources import ApiError, ApiResource, ApiResponse, alternatives, body_of, subpath_of
from pyryrelay.guard.address.clientip import client_address
from pyryrelay.guard.address.lists import CidrSet, IPNetwork
from pyryrelay.guard.jail import MAX_DURATION_S
from pyryrelay.text import printable, quoted

__all__ = [
    "MAX_ENTRIES",
    "ROUTES",
    "AdminActions",
    "JailEntry",
    "JailListing",
    "ReloadOutcome",
    "Route",
    "UpgradeOutcome",
    "api_resources",
]

MAX_ENTRIES: Final = 10_000
"""Most jail entries in one response: serializing them blocks the reactor for about 50 ms."""

DEFAULT_ENTRIES: Final = 1_000

_MAX_ADDRESS: Final = 100
_NAMED: Final = re.compile(r"((?:[a-z0-9]+-)+[a-z0-9]+|forwarded)[ \t]*:(.*)", re.IGNORECASE | re.DOTALL | re.ASCII)
"""A header line with its name. No address begins like this, so lines without a name are not mistaken for one."""


class JailEntry(NamedTuple):
    """A jailed client: its network, the time left, and how many sentences in a row it got (0: jailed by hand).

    ``origin`` names the worker or the member of the cluster that passed the sentence, "" if it was passed here.
    """

    network: str
    seconds_left: float
    times: int
    origin: str = ""


class JailListing(NamedTuple):
    """Some of the jailed clients, and the number of all of them."""

    entries: Sequence[JailEntry]
    total: int


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """Names of the settings that were changed, and of those that only a restart changes.

    If there is an ``error``, which is one line, nothing was changed and both are empty.
    """

    changed: Sequence[str] = ()
    needs_restart: Sequence[str] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class UpgradeOutcome:
    """Which process has taken over, its version, and how long this one takes to move its peers.

    If there is an ``error``, which is one line, this process goes on as before.
    """

    pid: int = 0
    version: str = ""
    drain_over_s: float = 0.0
    error: str | None = None


JsonObject: TypeAlias = Mapping[str, object]


class AdminActions(Protocol):
    """What operators can do to a running relay. A `GuardError` is the operator's mistake; its text is sent to them.

    What must be asked of another process comes later, as a Deferred.
    """

    @property
    def forwarding_header(self) -> str:
        """The name of the header that client addresses are taken from, in lower case."""

    def jail_entries(self, limit: int) -> JailListing | Deferred[JailListing]:
        """Return at most ``limit`` of the clients that are jailed now."""

    def jail_add(self, network: IPNetwork, seconds: float) -> JailEntry | Deferred[JailEntry]:
        """Jail the client of ``network``. Raises `GuardError` where that would have no effect."""

    def jail_release(self, network: IPNetwork) -> str | Deferred[str | None] | None:
        """Release the client of ``network``; return the network it was jailed under, or None if it was not jailed."""

    def reload(self) -> Deferred[ReloadOutcome]:
        """Read the configuration and the list files again."""

    def upgrade(self) -> Deferred[UpgradeOutcome]:
        """Start another process, which takes over."""

    def status(self) -> JsonObject | Deferred[JsonObject]:
        """Return the object of ``GET /status``."""

    def explain(self, peer: str | None, lines: Sequence[str]) -> Sequence[str]:
        """Explain step by step which client is derived from ``peer`` (None: a UNIX socket) and these header lines."""

    def explain_client(self, address: str) -> JsonObject | Deferred[JsonObject]:
        """Return the object of ``GET /explain``. Raises `GuardError` for what is not the address of one client."""

    def effective_settings(self) -> Sequence[Mapping[str, str]]:
        """Return the settings in force, as the objects of ``GET /settings``."""


Answer: TypeAlias = "ApiResponse | Deferred[ApiResponse]"
T = TypeVar("T")


def _then(found: T | Deferred[T], respond: Callable[[T], ApiResponse]) -> Answer:
    """Respond with what was found, now or when it is there."""
    return found.addCallback(respond) if isinstance(found, Deferred) else respond(found)


def _list_jail(actions: AdminActions, request: Request) -> Answer:
    return _then(actions.jail_entries(_limit(request)), _listing_response)


def _listing_response(listing: JailListing) -> ApiResponse:
    body = [entry._asdict() for entry in listing.entries]
    return ApiResponse(200, body, {"X-Total-Count": str(listing.total)})


def _add_to_jail(actions: AdminActions, request: Request) -> Answer:
    address, seconds = _jail_request(request)
    added = actions.jail_add(_network(address), seconds)
    return _then(added, lambda entry: ApiResponse(201, entry._asdict()))


def _release_from_jail(actions: AdminActions, request: Request) -> Answer:
    address = subpath_of(request)
    if not address:
        raise ApiError(404, "name the address to release: DELETE /jail/192.0.2.7")

    def response(released: str | None) -> ApiResponse:
        if released is None:
            raise ApiError(404, f"{address!r} is not jailed: list the jail with 'pyryrelay jail list', or GET /jail")
        return ApiResponse(200, {"network": released})

    return _then(actions.jail_release(_network(address)), response)


def _reload(actions: AdminActions, request: Request) -> Deferred[ApiResponse]:
    return actions.reload().addCallback(_reload_response)


def _reload_response(outcome: ReloadOutcome) -> ApiResponse:
    body = {
        "changed": list(outcome.changed),
        "needs_restart": list(outcome.needs_restart),
        "error": outcome.error,
    }
    return ApiResponse(200 if outcome.error is None else 422, body)


def _upgrade(actions: AdminActions, request: Request) -> Deferred[ApiResponse]:
    return actions.upgrade().addCallback(_upgrade_response)


def _upgrade_response(outcome: UpgradeOutcome) -> ApiResponse:
    if outcome.error is not None:
        return ApiResponse(409, {"error": outcome.error})
    body = {"pid": outcome.pid, "version": outcome.version, "drain_over_s": outcome.drain_over_s}
    return ApiResponse(200, body)


def _status(actions: AdminActions, request: Request) -> Answer:
    return _then(actions.status(), partial(ApiResponse, 200))


def _whoami(actions: AdminActions, request: Request) -> ApiResponse:
    """Explain the given peer and header lines; without any, this request."""
    parameters = _parameters(request, "peer", "header")
    header = actions.forwarding_header
    notes: list[str] = []
    if parameters:
        lines, notes = _forwarded(parameters.get("header", []), header)
    else:
        lines = list(request.requestHeaders.getRawHeaders(header, []))
    if "peer" in parameters:
        peer = _peer(parameters["peer"])
    else:
        peer = getattr(request.getClientAddress(), "host", None)
    steps = [printable(step) for step in [*notes, *actions.explain(peer, lines)]]
    accepted = ",".join(request.requestHeaders.getRawHeaders("accept", []))
    body: object = {"steps": steps} if "application/json" in accepted.lower() else "".join(f"{s}\n" for s in steps)
    return ApiResponse(200, body, {"Vary": "Accept"})


def _explain(actions: AdminActions, request: Request) -> Answer:
    addresses = _parameters(request, "address").get("address", [])
    if len(addresses) != 1:
        raise ApiError(400, "name one address: GET /explain?address=192.0.2.7")
    if len(addresses[0]) > _MAX_ADDRESS:
        raise ApiError(400, f"{quoted(addresses[0])} is not an address: write '192.0.2.7' or '2001:db8::1'")
    return _then(actions.explain_client(addresses[0]), partial(ApiResponse, 200))


def _settings(actions: AdminActions, request: Request) -> ApiResponse:
    return ApiResponse(200, actions.effective_settings())


class Route(NamedTuple):
    """A request that the API answers. A path with a second part, such as ``/jail/ADDRESS``, has an argument there."""

    method: str
    path: str
    handler: Callable[[AdminActions, Request], Answer]

    def __str__(self) -> str:
        """Return method and path, as the documentation shows them."""
        return f"{self.method} {self.path}"

    @property
    def resource(self) -> str:
        """The path without the argument."""
        return "/" + self.path.split("/")[1]

    def handle(self, actions: AdminActions, request: Request) -> Answer:
        """Call the handler. Raises `ApiError` for an argument that the path does not have."""
        if self.path == self.resource and subpath_of(request):
            raise ApiError(404, f"there is nothing at this path: use {alternatives(_paths())}")
        return self.handler(actions, request)


ROUTES: Final = (
    Route("GET", "/status", _status),
    Route("GET", "/jail", _list_jail),
    Route("POST", "/jail", _add_to_jail),
    Route("DELETE", "/jail/ADDRESS", _release_from_jail),
    Route("POST", "/reload", _reload),
    Route("POST", "/upgrade", _upgrade),
    Route("GET", "/whoami", _whoami),
    Route("GET", "/explain", _explain),
    Route("GET", "/settings", _settings),
)


def _paths() -> list[str]:
    return list(dict.fromkeys(route.resource for route in ROUTES))


def api_resources(actions: AdminActions) -> dict[str, Resource]:
    """Return the API's resources by path, for `admin_site`."""
    return {
        path: ApiResource({route.method: partial(route.handle, actions) for route in ROUTES if route.resource == path})
        for path in _paths()
    }


# Reading requests


def _parameters(request: Request, *names: str) -> dict[str, list[str]]:
    """Return the parameters of the URL, read as ISO 8859-1 like header fields. Only ``names`` are allowed."""
    arguments: dict[bytes, list[bytes]] = request.args or {}
    parameters = {
        name.decode("latin-1"): [value.decode("latin-1") for value in values] for name, values in arguments.items()
    }
    for name in parameters:
        if name not in names:
            raise ApiError(400, f"{quoted(name)} is not a parameter of this path: use {' and '.join(names)}")
    return parameters


def _limit(request: Request) -> int:
    texts = _parameters(request, "limit").get("limit", [str(DEFAULT_ENTRIES)])
    text = texts[0]
    if len(texts) == 1 and text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_ENTRIES:
        return int(text)
    raise ApiError(400, f"limit {quoted(text)} is out of range: use 1 to {MAX_ENTRIES}, once")


_BODY: Final = 'send {"address": "192.0.2.7", "seconds": 600}'


def _jail_request(request: Request) -> tuple[str, float]:
    """Return address and seconds from the body of a request."""
    try:
        body = json.loads(body_of(request))
    except (ValueError, RecursionError):
        raise ApiError(400, f"the body is not JSON: {_BODY}") from None
    if not isinstance(body, dict) or body.keys() != {"address", "seconds"}:
        raise ApiError(400, f"the body is not an object with the keys address and seconds: {_BODY}")
    address, seconds = body["address"], body["seconds"]
    if not isinstance(address, str):
        raise ApiError(400, f"address is not a string: {_BODY}")
    # In Python a boolean is a number.
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MAX_DURATION_S:
        raise ApiError(400, f"seconds is not a number above 0 and up to {MAX_DURATION_S:.0f}: {_BODY}")
    return address, float(seconds)


def _network(text: str) -> IPNetwork:
    if len(text) > _MAX_ADDRESS:
        raise ApiError(400, f"{quoted(text)} is not an address: write '192.0.2.7' or '2001:db8::1'")
    (network,) = CidrSet([text])
    return network


def _peer(texts: Sequence[str]) -> str | None:
    """Return the address of a peer, or None for the word ``unix``."""
    text = texts[0].strip()
    if len(texts) > 1 or (text != "unix" and client_address(text) is None):
        raise ApiError(400, f"peer {quoted(text)} is not one address: write peer=192.0.2.7, or peer=unix")
    return None if text == "unix" else text


def _forwarded(texts: Sequence[str], header: str) -> tuple[list[str], list[str]]:
    """Return the values of ``header`` among ``texts``, and notes on lines of other headers.

    The texts are whole header lines, or values of ``header`` alone.
    """
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
