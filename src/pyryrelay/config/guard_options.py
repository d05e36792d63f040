"""The options of the guard: quotas, caps, lists and the jail. PURE.

They are a base of `pyryrelay.config.settings.SharedSettings`; see there for what `option(...)` declares.
Units: `_s` seconds, `_bytes` bytes; counts otherwise. A quota or cap that is None is off.
"""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from pyryrelay.config.groups import ADMISSION, JAIL, LIMITS, QUOTAS
from pyryrelay.config.sources import option
from pyryrelay.config.types import (
    CAP,
    FILES,
    NETWORKS,
    OPTIONAL_FILE,
    QUOTA,
    STRIKES,
    SWITCH,
    OptionType,
    or_auto,
    or_off,
    seconds,
    table_of,
    whole_number,
)
from pyryrelay.guard import ThrottlePolicy
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.rate.quota import ByteQuota, Quota
from pyryrelay.guard.refusal import Reason
from pyryrelay.refusal_words import NEVER_ANSWERED, RefusalWord

_DAY_S: Final = 86_400
_WHY_FILES: Final = "Lists that are written by tools should be separate files."


def all_reasons(words: Iterable[str]) -> tuple[str, ...]:
    """Return all reasons for refusals; `words` are those of the protocols."""
    return (*Reason, *sorted([*RefusalWord, *words]))


def answerable(words: Iterable[str]) -> tuple[str, ...]:
    """Return all reasons whose refusals can have an answer; `words` are those of the protocols."""
    return tuple(word for word in all_reasons(words) if word not in NEVER_ANSWERED)


def refusal_type(words: Iterable[str]) -> OptionType[Mapping[str, str]]:
    """Return the type of ``--refusal``; `words` are the reasons of the protocols."""
    return table_of(answerable(words), ["answer", "drop"], "REASON=answer|drop")


@dataclass(frozen=True, slots=True)
class Preset:
    """Defaults that one option changes: the names of options, with the texts that they are read from.

    ``origin`` is what ``--check`` calls it.
    """

    origin: str = ""
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ConnectionSettings:
    """The options that apply to each connection of any protocol."""

    ping_quota: Quota | None = option(
        Quota.parse("60/minute"),
        QUOTA,
        QUOTAS,
        help="How many pings one connection may send. A connection that exceeds it is not read from until it has "
        "earned its tokens, and is closed with 1008 if that continues for `--excess-timeout`.",
        example="120/minute",
        why="Libraries ping every 20 to 30 s, and each ping costs an answer.",
    )
    excess_timeout_s: float | None = option(
        300.0,
        or_off(seconds(1, _DAY_S)),
        QUOTAS,
        name="excess-timeout",
        help="How long, in seconds, a connection may exceed its quota of frames, bytes or pings without a break of one "
        "second before it is closed with 1008. With `off`, it is never closed for this: not reading from it already "
        "enforces the quota.",
        example="60",
        why="An honest peer that sends a lot at once is only slowed down. Five minutes of continuous excess are not a "
        "peak.",
    )

    ping_interval_s: float = option(
        30.0,
        seconds(5, 3600),
        LIMITS,
        name="ping-interval",
        help="How often, in seconds, the relay pings each connection. A peer that does not answer a ping within 30 s "
        "is closed with 1011.",
        restart=True,
        example="55",
        why="Proxies and home routers forget connections that are silent for a minute or two.",
    )

    @classmethod
    def preset(cls, values: Mapping[str, Any]) -> Preset:
        """Return the defaults that one of the `values`, by field name, changes. Overriding methods extend it."""
        return Preset()

    def throttle(self, *, frames: Quota | None, size: ByteQuota | None) -> ThrottlePolicy:
        """Return the quotas of a connection with these quotas of frames and of bytes (`size`)."""
        pings, timeout_s = self.ping_quota, self.excess_timeout_s
        return ThrottlePolicy(frames=frames, bytes=size, pings=pings, excess_timeout_s=timeout_s)


@dataclass(frozen=True, kw_only=True)
class AdmissionSettings(ConnectionSettings):
    """The options of the guard."""

    upgrade_quota: Quota | None = option(
        Quota.parse("10/minute burst 20"),
        QUOTA,
        QUOTAS,
        help="How many WebSocket upgrades one client address may attempt: the burst at once, then at the steady rate. "
        "More are answered with 429 and `Retry-After`.",
        example="30/minute burst 60",
        why="The devices of a household can reconnect together after an outage, and guessing names is slow.",
    )
    prefix_quota: Quota | None = option(
        Quota.parse("100/minute burst 200"),
        QUOTA,
        QUOTAS,
        help="How many upgrades a whole /24 (IPv4) or /48 (IPv6) may attempt, in addition to the quota of each address "
        "in it.",
        example="300/minute burst 600",
        why="A customer with a /48, or a rented subnet, must not have a quota for each of its addresses. Ten "
        "households with neighbouring addresses still have their full quotas.",
    )
    http_quota: Quota | None = option(
        Quota.parse("60/minute burst 120"),
        QUOTA,
        QUOTAS,
        help="How many plain HTTP requests (without an upgrade) one client address may send, on any path, well-formed "
        "or not; `/healthz` from this machine is exempt. More are answered with 429, and count towards the jail if "
        "they are ten times as many, because a web page can make its visitors send such requests.",
        example="600/minute",
        why="Monitoring needs less than one page per second, and scanners exceed the quota within seconds.",
    )
    tls_quota: Quota | None = option(
        Quota.parse("120/minute burst 240"),
        QUOTA,
        QUOTAS,
        help="How many connections one client address may open to `ssl:` endpoints. Each of them costs a TLS handshake "
        "before anything else is known about it. More are reset at accept, since without a handshake no answer could "
        "be read. Trusted proxies are exempt; `--allow` load balancers that pass TLS on, because they have many "
        "clients.",
        example="600/minute burst 1200",
        why="It is well above the quotas of upgrades and of HTTP requests together, so honest clients get "
        "`Retry-After` from these first. Two handshakes a second take less than 0.1 % of a core.",
    )
    tls_prefix_quota: Quota | None = option(
        Quota.parse("1200/minute burst 2400"),
        QUOTA,
        QUOTAS,
        help="How many connections a whole /24 (IPv4) or /48 (IPv6) may open to `ssl:` endpoints, in the same way.",
        example="6000/minute",
        why="Ten times the quota of an address: a customer with a /48 must not have a quota for each of its addresses.",
    )
    allow: CidrSet = option(
        CidrSet(),
        NETWORKS,
        ADMISSION,
        help="A network whose clients are exempt from the quotas of upgrades, HTTP requests and TLS handshakes, and "
        "from the jail. Caps on connections and the quotas of each connection still apply to them.",
        example=("192.0.2.0/24", "2001:db8::/48"),
        why="No address is exempt by default.",
    )
    deny: CidrSet = option(
        CidrSet(),
        NETWORKS,
        ADMISSION,
        help="A network whose clients are refused with 403, unless they are allowed.",
        example="198.51.100.0/24",
        why="No address is denied by default.",
    )
    allow_file: tuple[str, ...] = option(
        (),
        FILES,
        ADMISSION,
        help="A file of networks to allow, one per line, with `#` for comments. It is read again when it changes. If a "
        "line is invalid, it is reported with its number, and the old list stays in force.",
        example="/etc/pyryrelay/allow.txt",
        why=_WHY_FILES,
    )
    deny_file: tuple[str, ...] = option(
        (),
        FILES,
        ADMISSION,
        help="A file of networks to deny, in the same way.",
        example="/etc/pyryrelay/deny.txt",
        why=_WHY_FILES,
    )
    max_tracked: int = option(
        1_000_000,
        whole_number(1000),
        ADMISSION,
        help="How many clients are remembered at once, in each of several tables: addresses that ask for upgrades, "
        "that ask for anything else, that open TLS connections, that leave without a request, and prefixes (/24 and "
        "/48). Beyond that, new clients share the quota of a larger network, so a scan of the address space cannot "
        "fill the memory.",
        example="200000",
        why="It is more than a relay has honest clients, and the memory for it is bounded.",
    )
    refusal: Mapping[str, str] = option(
        MappingProxyType({}),
        refusal_type(()),
        ADMISSION,
        help="Whether refusals for a reason are answered, or the connection is dropped without an answer. In the file "
        'it may be a table: `refusal = { unknown_path = "drop" }`.',
        example=("unknown_path=drop", "rate_limit=drop"),
        why="Answers tell honest clients when to come back. Only jailed clients (`jailed`) are dropped.",
    )
    max_connections: int = option(
        10_000,
        whole_number(1),
        LIMITS,
        help="How many connections may be open at once, from all clients together; more are answered with 503. The "
        "last tenth is reserved for addresses that hold fewer than 4. Each connection needs a file descriptor, so "
        "raise the limit of open files (`ulimit -n`) as well.",
        example="50000",
        why="A small machine can serve that many, and a full relay should refuse connections instead of failing.",
    )
    max_connections_per_address: int = option(
        64,
        whole_number(1),
        LIMITS,
        help="How many connections one client address may have open at once; more are answered with 429.",
        example="256",
        why="It is enough for an office behind one address, and no single client can fill the relay.",
    )
    max_connections_per_prefix: int | None = option(
        512,
        CAP,
        LIMITS,
        help="How many connections a whole /24 (IPv4) or /48 (IPv6) may have open at once; more are answered with 429.",
        example="2048",
        why="Eight times the cap of an address: a subnet rented for an attack cannot fill the relay either.",
    )
    jail_after: Quota | None = option(
        Quota.parse("60/minute"),
        STRIKES,
        JAIL,
        help="An address that is refused this often within the period is jailed: it is dropped at accept without an "
        "answer, or behind a proxy once its request head has arrived. Refusals for an exceeded quota of attempts do "
        "not count, but ten attempts that do not wait as `Retry-After` says are enough. If addresses of one IPv6 /48 "
        "are refused four times as often, the whole /48 is jailed. Trusted proxies, this machine and allowed addresses "
        "are never jailed. With `--trust-x-forwarded-for` and without `--trusted-proxy`, the address in the header is "
        "jailed, although any client may have written it; then only requests that name it are dropped, and no other "
        "connections.",
        example="20/minute",
        why="Clients that wait as they are told are never jailed, however many share an address. Retry storms are, "
        "within seconds.",
    )
    jail_time_s: float = option(
        600.0,
        seconds(1, 365 * _DAY_S),
        JAIL,
        name="jail-time",
        help="How long, in seconds, an address is jailed for the first time. If it is jailed again soon, the time "
        "doubles.",
        example="60",
        why="Ten minutes end a retry storm, and an honest client that was jailed by mistake is soon back.",
    )
    jail_time_max_s: float = option(
        86_400.0,
        seconds(1, 365 * _DAY_S),
        JAIL,
        name="jail-time-max",
        help="How long, in seconds, an address can be jailed at most.",
        example="604800",
        why="Addresses get new owners, and one day is long enough to make an attack useless.",
    )
    jail_file: str = option(
        "pyryrelay-jail.sqlite",
        OPTIONAL_FILE,
        JAIL,
        help="The file in which the jail survives a restart, relative to the run directory; an empty value keeps the "
        "jail in memory only.",
        restart=True,
        example="/var/lib/pyryrelay/jail.sqlite",
        why="A restart should not release attackers. If the file is lost, only bans are lost.",
    )
    kernel_drop: bool | None = option(
        None,
        or_auto(SWITCH),
        JAIL,
        help="Have the kernel drop jailed addresses, so that it does not answer their SYN and a flood from them costs "
        "the process nothing. Up to 16 of their connections a second are still accepted, counted and reset. With "
        "`auto`, this happens where it needs no privilege (`tcp:` and `ssl:` endpoints on Linux), unless clients could "
        "forge the address that is dropped, or `--refusal jailed=answer` promises an answer. With `true`, it also "
        "happens on inherited sockets, which needs CAP_NET_ADMIN; without it, the relay logs a line and starts without "
        "the filter. On the command line, neither form means `auto`.",
        restart=True,
        example="true",
        why="No other way is as cheap, and clients that connect only now and then see no difference.",
    )
