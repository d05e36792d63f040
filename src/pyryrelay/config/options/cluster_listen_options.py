"""The options of an instance that takes connections of other instances of its cluster. PURE.

They are a base of `pyryrelay.config.settings.SharedSettings`; see there for what `option(...)` declares.
"""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

from pyryrelay.config.endpoints import OPTIONAL_ENDPOINT, Endpoint, has_worker, is_haproxy, of_worker
from pyryrelay.config.groups import CLUSTER
from pyryrelay.config.sources import option
from pyryrelay.config.types import PROXIES, InvalidValueError, OptionType, Texts, TrustedProxies, choice
from pyryrelay.guard.address.lists import CidrSet

__all__ = ["ClusterListenOptions", "OnOutage", "cluster_listen_problem"]

OnOutage = Literal["local", "refuse"]

_PREFIX: Final = re.compile(r"/[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*/")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_MAX_ADDRESS: Final = 120


def _read_address(texts: Texts) -> str:
    text = texts[0]
    if not text:
        return ""
    if has_worker(text):
        _read_address((of_worker(text, 0),))
        return text
    if text.startswith("unix:"):
        if text == "unix:" or len(text) > _MAX_ADDRESS or not text.isascii() or not text.isprintable() or " " in text:
            raise InvalidValueError(text, "is no path that other instances could use")
        return text
    host, colon, port = text.rpartition(":")
    is_v6 = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if is_v6 else host)
    except ValueError:
        raise InvalidValueError(text, "does not begin with an IP address") from None
    if not colon or not _PORT.fullmatch(port) or not 0 < int(port) <= 65_535:
        raise InvalidValueError(text, "has no port from 1 to 65535")
    if (address.version == 6) != is_v6 or address.is_unspecified:
        raise InvalidValueError(text, "is no address that other instances could connect to")
    return f"[{address}]:{int(port)}" if is_v6 else f"{address}:{int(port)}"


_ADDRESS: Final[OptionType[str]] = OptionType(
    "ADDRESS:PORT",
    "write an IP address and a port, such as 10.0.0.1:7000 or [fd00::1]:7000, or unix:PATH",
    _read_address,
    lambda value: (value,),
)


def _read_prefix(texts: Texts) -> str:
    if texts[0] and not _PREFIX.fullmatch(texts[0]):
        raise InvalidValueError(texts[0], "is no location")
    return texts[0]


_LOCATION: Final[OptionType[str]] = OptionType(
    "LOCATION",
    'write a path that begins and ends with a slash, such as /pyryrelay-hop/, or "" to turn it off',
    _read_prefix,
    lambda value: (value,),
)


@dataclass(frozen=True, kw_only=True)
class ClusterListenOptions:
    """See the module's docstring."""

    cluster_listen: str = option(
        "",
        OPTIONAL_ENDPOINT,
        CLUSTER,
        help="The endpoint on which this instance takes connections that other instances have accepted, and that "
        "belong to a peer here. With it, peers find each other whichever instance they come to. Only instances "
        "may reach it: it is not encrypted, so use a private network. With several workers, write `{worker}` in it and "
        "in `--cluster-advertise`, since each is an instance.",
        restart=True,
        example="tcp:7000:interface=10.0.0.1",
        why="A relay alone has nobody to take connections from.",
    )
    cluster_advertise: str = option(
        "",
        _ADDRESS,
        CLUSTER,
        help="Where other instances reach the endpoint of `--cluster-listen`: an IP address and a port, or "
        "`unix:PATH`. It is also the name of this instance, so each one needs its own.",
        restart=True,
        example="10.0.0.1:7000",
        why="Only you know the addresses of your network.",
    )
    cluster_peers: TrustedProxies = option(
        TrustedProxies(CidrSet()),
        PROXIES,
        CLUSTER,
        help="Who may connect to `--cluster-listen`: the address or the network of the other instances, or `unix` for "
        "a UNIX-domain socket. With `--cluster-redirect` also the proxies in front.",
        restart=True,
        example="10.0.0.0/24",
        why="Nobody else has business there.",
    )
    cluster_on_outage: OnOutage = option(
        "local",
        choice(get_args(OnOutage)),
        CLUSTER,
        help="What becomes of peers that claim a key while the server of `--cluster` is away: `local` serves them "
        "here, and two instances may serve the same key until it is back; `refuse` answers 503. Peers that are "
        "connected stay connected either way.",
        restart=True,
        example="refuse",
        why="If the balancer sends the same peers to the same instance, nothing goes wrong with it.",
    )
    cluster_redirect: str = option(
        "",
        _LOCATION,
        CLUSTER,
        help="Have nginx in front take connections to the instance that they belong to, instead of passing their bytes "
        "on here: the answer to such a connection names this internal location (`X-Accel-Redirect`).",
        restart=True,
        example="/pyryrelay-hop/",
        why="It works only with nginx in front of every instance, with a location of that name.",
    )


def cluster_listen_problem(settings: ClusterListenOptions, *, has_cluster: bool) -> tuple[str, str, str] | None:
    """Return the option, the problem and the fix if the options contradict each other."""
    text = settings.cluster_listen
    if not text:
        peers = " ".join(PROXIES.write(settings.cluster_peers))
        given = {
            "cluster-advertise": settings.cluster_advertise,
            "cluster-peers": peers,
            "cluster-redirect": settings.cluster_redirect,
            "cluster-on-outage": "" if settings.cluster_on_outage == "local" else settings.cluster_on_outage,
        }
        for name, value in given.items():
            if value:
                return name, f"{value!r} has no effect without --cluster-listen", "add --cluster-listen, or remove it"
        return None
    if not has_cluster:
        return "cluster-listen", f"{text!r} has no effect without --cluster", "add --cluster URL, or remove it"
    if Endpoint.parse(text).scheme == "ssl" or is_haproxy(text):
        problem = f"{text!r} is no plain endpoint"
        return "cluster-listen", problem, "use a tcp: or unix: endpoint in a private network"
    if not settings.cluster_advertise:
        problem = f"{text!r} without --cluster-advertise cannot be found by other instances"
        return "cluster-listen", problem, "add --cluster-advertise ADDRESS:PORT, as they reach it"
    if has_worker(text) != has_worker(settings.cluster_advertise):
        problem = f"{text!r} does not fit to --cluster-advertise {settings.cluster_advertise!r}"
        return "cluster-listen", problem, "write {worker} in both of them, or in neither"
    if not settings.cluster_peers:
        problem = f"{text!r} without --cluster-peers would let nobody in"
        return "cluster-listen", problem, "add --cluster-peers with the network of the other instances"
    return None
