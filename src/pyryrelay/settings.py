"""Every setting of the relay, documented once: TOML file < environment < command line. PURE.

A field of `Settings` made with `option(...)` is the whole of an option: its flag on the command line, its
key in the TOML file, its environment variable, its line in ``--help`` and its section in
docs/reference/options.md all follow from it, so adding an option is adding one field.
Invariants: the fields of a `Settings` that exists do not contradict each other, and those that
`from_sources` made are each within their range.
Units: `_s` seconds, `_bytes` bytes; counts otherwise.
"""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, get_args

from pyryrelay.endpoints import ENDPOINTS, OPTIONAL_ENDPOINT, Endpoint
from pyryrelay.guard.lists import CidrSet
from pyryrelay.guard.quota import Quota
from pyryrelay.kinds import (
    NETWORKS,
    PROXIES,
    QUOTA,
    SWITCH,
    TrustedProxies,
    choice,
    seconds,
    whole_number,
)
from pyryrelay.sources import Option, SettingsError, collect, option, options_of, to_toml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "BY_NAME",
    "OPTIONS",
    "LogClientAddress",
    "Settings",
    "SettingsError",
    "TrustedProxies",
    "effective",
    "from_sources",
]

LogClientAddress = Literal["full", "prefix", "hashed", "none"]

LISTENING: Final = "Where to listen"
CLIENTS: Final = "Who a client is"
ADMISSION: Final = "Who may come in, and how often"
LIMITS: Final = "How many and how much"
LOGGING: Final = "What is logged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one relay; `Settings()` is the defaults.

    `origins` maps the name of each option that was given to its source; it takes no part in equality.
    Raises `SettingsError` when fields contradict each other.
    """

    listen: tuple[str, ...] = option(
        ("tcp:8080:interface=127.0.0.1",),
        ENDPOINTS,
        LISTENING,
        help="Where binaries and phones connect: any Twisted server endpoint string (`tcp:`, `ssl:`, "
        "`unix:`, `systemd:`, `haproxy:tcp:`...).",
        example="tcp:8080:interface=0.0.0.0",
        why="Only this machine can reach it, so that a proxy with TLS goes in front before anybody else can.",
    )
    admin_listen: str = option(
        "tcp:9090:interface=127.0.0.1",
        OPTIONAL_ENDPOINT,
        LISTENING,
        help="Where metrics and health are served; an empty value turns them off. They have no password.",
        example="tcp:9090:interface=10.0.0.5",
        why="Numbers about clients are for the operator, so they stay on this machine until you say otherwise.",
    )
    trust_x_forwarded_for: bool = option(
        False,
        SWITCH,
        CLIENTS,
        help="Take the client address from the `X-Forwarded-For` header that your proxy sets, instead of "
        "from TCP. Name the proxy with `--trusted-proxy` wherever clients could connect past it.",
        example="true",
        why="The header is whatever its sender says; believing it without a proxy lets clients choose their address.",
    )
    trusted_proxy: TrustedProxies = option(
        TrustedProxies(CidrSet()),
        PROXIES,
        CLIENTS,
        help="A peer that may set forwarding headers: an address, a network, or `unix` for peers on a "
        "UNIX-domain socket. Entries of these proxies are skipped from the right of "
        "`X-Forwarded-For`; without any, whoever connects is believed, for one hop.",
        example=("10.0.0.0/8", "unix"),
        why="Only you know where your proxies are.",
    )
    ipv6_prefix: int = option(
        64,
        whole_number(32, 128),
        CLIENTS,
        help="How many leading bits of an IPv6 address make a client: addresses that share them share one quota.",
        example="56",
        why="Providers hand out a /64 or more to one customer, who could otherwise take a new address per attempt.",
    )
    upgrade_quota: Quota = option(
        Quota.parse("10/minute burst 20"),
        QUOTA,
        ADMISSION,
        help="How many WebSocket upgrades one client address may attempt: the burst at once, then at the "
        "steady rate. More are answered 429 with `Retry-After`.",
        example="30/minute burst 60",
        why="It lets a household's phones reconnect together after an outage, and makes guessing server-ids slow.",
    )
    allow: CidrSet = option(
        CidrSet(),
        NETWORKS,
        ADMISSION,
        help="A network whose clients are exempt from quotas. Caps on concurrent connections still hold for them.",
        example=("192.0.2.0/24", "2001:db8::/48"),
        why="Nobody is above the quota until you say who.",
    )
    deny: CidrSet = option(
        CidrSet(),
        NETWORKS,
        ADMISSION,
        help="A network whose clients are refused with 403.",
        example="198.51.100.0/24",
        why="Nobody is shut out until you say who.",
    )
    max_tracked: int = option(
        1_000_000,
        whole_number(1000),
        ADMISSION,
        help="How many client addresses are remembered at once. Past that, new ones share the quota of their "
        "neighbourhood, so a scan of the address space cannot fill the memory.",
        example="200000",
        why="It is more than an honest relay sees, and its memory is still bounded.",
    )
    max_connections: int = option(
        10_000,
        whole_number(1),
        LIMITS,
        help="How many connections may be open at once, all clients together; more are answered 503. Each "
        "needs a file descriptor, so raise the limit of open files (`ulimit -n`) with it.",
        example="50000",
        why="It fits a small machine, and a relay that is full says so instead of failing.",
    )
    max_connections_per_address: int = option(
        64,
        whole_number(1),
        LIMITS,
        help="How many connections one client address may have open at once; more are answered 429.",
        example="256",
        why="It leaves room for an office behind one address, and no single client can fill the relay.",
    )
    max_phones: int = option(
        16,
        whole_number(1),
        LIMITS,
        help="How many phones may be connected to one server-id; more are closed with 4429.",
        example="4",
        why="It is what the pyrycode protocol promises.",
    )
    max_message_bytes: int = option(
        262_144,
        whole_number(1024, 16 * 1024 * 1024),
        LIMITS,
        help="The longest message either side may send, in bytes; a longer one closes its sender with 1009.",
        example="1048576",
        why="It is what the pyrycode protocol promises; each connection may cost this much memory.",
    )
    grace_s: float = option(
        30.0,
        seconds(0, 3600),
        LIMITS,
        name="grace",
        help="How long, in seconds, a server-id stays reserved and its phones stay connected after its "
        "binary disconnects.",
        example="60",
        why="A daemon that restarts or changes networks is back within it.",
    )
    log_client_address: LogClientAddress = option(
        "full",
        choice(get_args(LogClientAddress)),
        LOGGING,
        help="How client addresses appear in logs: as they are, cut to their network, as a keyed hash, or not at all.",
        example="prefix",
        why="Whoever runs a relay needs addresses to act on abuse; choose less where the law or your promise says so.",
    )
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_endpoints(self)
        if self.trusted_proxy and not self.trust_x_forwarded_for:
            given = " ".join(PROXIES.write(self.trusted_proxy))
            raise self.error(
                "trusted-proxy",
                f"{given!r} has no effect without --trust-x-forwarded-for",
                "add --trust-x-forwarded-for, or remove --trusted-proxy",
            )

    def error(self, name: str, problem: str, fix: str = "") -> SettingsError:
        """An error about the value that option `name` has here, for checks that need more than the value."""
        return BY_NAME[name].error(self.origins.get(name, "default"), problem, fix)

    def warnings(self) -> list[str]:
        """What is legal and probably a mistake, one line each, with what to do about it."""
        if not self.trust_x_forwarded_for:
            return [
                f"--listen {text!r} without --trust-x-forwarded-for: peers of a UNIX-domain socket have no address, "
                "so every upgrade is refused with 429; add --trust-x-forwarded-for --trusted-proxy unix"
                for text in self.listen
                if Endpoint.parse(text).scheme == "unix"
            ]
        if self.trusted_proxy:
            return []
        return [
            f"--trust-x-forwarded-for without --trusted-proxy on {text!r}: whoever can connect there chooses "
            "the address that quotas count; add --trusted-proxy with your proxy's address, or listen on 127.0.0.1"
            for text in self.listen
            if not Endpoint.parse(text).is_local
        ]


OPTIONS: Final[tuple[Option, ...]] = options_of(Settings)
BY_NAME: Final[Mapping[str, Option]] = {about.name: about for about in OPTIONS}


def _check_endpoints(settings: Settings) -> None:
    if not settings.listen:
        raise settings.error("listen", "'' leaves nowhere to listen")
    seen: set[object] = set()
    for text in settings.listen:
        place = Endpoint.parse(text).place(text)
        if place in seen:
            problem = f"{text!r} takes a port or path that another --listen has"
            raise settings.error("listen", problem, "remove one of the two, or change its port")
        seen.add(place)
    admin = settings.admin_listen
    if admin and Endpoint.parse(admin).place(admin) in seen:
        problem = f"{admin!r} takes a port or path that --listen has"
        raise settings.error("admin-listen", problem, "choose another port, for example 9090")


def from_sources(
    toml: Mapping[str, object] | None,
    env: Mapping[str, str],
    argv: Mapping[str, Sequence[str]],
    *,
    toml_name: str = "configuration file",
) -> Settings:
    """The settings that a parsed TOML file, the environment and the command line give together.

    `argv` maps option names to their values in the order given; of an option that is not repeatable the
    last one counts. `toml_name` is what errors call the file. Raises `SettingsError` for the first thing
    that is wrong.
    """
    collected = collect(OPTIONS, toml or {}, env, argv, toml_name)
    return Settings(**collected.values, origins=collected.origins)


def effective(settings: Settings) -> str:
    """`settings` as a TOML file that gives the same settings again.

    Comments tell where values other than the defaults came from. Secrets are left out, and a comment says so.
    """
    return to_toml(OPTIONS, settings, settings.origins)
