"""The settings of the guard: quotas, caps, lists and the jail. PURE.

They are a base of `pyryrelay.config.settings.SharedSettings`; see there for what a field made with `option(...)` is.
Units: `_s` seconds, `_bytes` bytes; counts otherwise. A quota or cap that is None is off.
"""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

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
    Kind,
    or_auto,
    or_off,
    seconds,
    whole_number,
    words_of,
)
from pyryrelay.guard import ThrottlePolicy
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.gate import Reason
from pyryrelay.guard.rate.quota import ByteQuota, Quota
from pyryrelay.refusal_words import NEVER_ANSWERED, RefusalWord

_DAY_S: Final = 86_400
_WHY_FILES: Final = "Lists that tools write belong in files of their own."


def all_reasons(words: Iterable[str]) -> tuple[str, ...]:
    """Return each reason for which a request may be refused; `words` are the protocols' own."""
    return (*Reason, *sorted([*RefusalWord, *words]))


def answerable(words: Iterable[str]) -> tuple[str, ...]:
    """Return those of `all_reasons` whose refusals can be answered."""
    return tuple(word for word in all_reasons(words) if word not in NEVER_ANSWERED)


def refusal_kind(words: Iterable[str]) -> Kind[Mapping[str, str]]:
    """Return the kind of ``--refusal``; `words` are the protocols' own reasons."""
    return words_of(answerable(words), ["answer", "drop"], "REASON=answer|drop")


@dataclass(frozen=True, kw_only=True)
class ConnectionSettings:
    """What is enforced on each connection, whichever protocol it speaks."""

    ping_quota: Quota | None = option(
        Quota.parse("60/minute"),
        QUOTA,
        QUOTAS,
        help="How many pings one connection may send. Over it the connection is not read from until it has earned its "
        "tokens, and closed with 1008 if that goes on for `--excess-timeout`.",
        example="120/minute",
        why="Libraries ping every 20 to 30 s; each ping costs an answer.",
    )
    excess_timeout_s: float | None = option(
        300.0,
        or_off(seconds(1, _DAY_S)),
        QUOTAS,
        name="excess-timeout",
        help="How long, in seconds, a connection may be over its quota of frames, bytes or pings without a break of a "
        "second; then it is closed with 1008. Not reading from it is what enforces the quota; `off` leaves it at that.",
        example="60",
        why="An honest peer that sends a lot at once is slowed down and then done. Five minutes of nothing but excess "
        "are no peak.",
    )

    def throttle(self, *, frames: Quota | None, size: ByteQuota | None) -> ThrottlePolicy:
        """Return the quotas of a connection that may send so many frames, and bytes (`size`)."""
        pings, timeout_s = self.ping_quota, self.excess_timeout_s
        return ThrottlePolicy(frames=frames, bytes=size, pings=pings, excess_timeout_s=timeout_s)


@dataclass(frozen=True, kw_only=True)
class AdmissionSettings(ConnectionSettings):
    """What the guard enforces."""

    upgrade_quota: Quota | None = option(
        Quota.parse("10/minute burst 20"),
        QUOTA,
        QUOTAS,
        help="How many WebSocket upgrades one client address may attempt: the burst at once, then at the steady rate. "
        "More are answered 429 with `Retry-After`.",
        example="30/minute burst 60",
        why="It lets the devices of a household reconnect together after an outage, and makes guessing names slow.",
    )
    prefix_quota: Quota | None = option(
        Quota.parse("100/minute burst 200"),
        QUOTA,
        QUOTAS,
        help="How many upgrades a whole /24 (IPv4) or /48 (IPv6) may attempt, beside the quota of each address in it.",
        example="300/minute burst 600",
        why="One customer with a /48, or a rented subnet, must not get a quota for each of its addresses; ten "
        "households behind neighbouring addresses still do.",
    )
    http_quota: Quota | None = option(
        Quota.parse("60/minute burst 120"),
        QUOTA,
        QUOTAS,
        help="How many requests that ask for no upgrade one client address may send, on any path and well-formed or "
        "not; `/healthz` from this machine is exempt. More are answered 429, and count towards the jail when they are "
        "ten times as many: a web page can make its visitors send such requests.",
        example="600/minute",
        why="A page every second is more than monitoring needs, and scanners hit it within seconds.",
    )
    tls_quota: Quota | None = option(
        Quota.parse("120/minute burst 240"),
        QUOTA,
        QUOTAS,
        help="How many connections one client address may open to an `ssl:` endpoint, each of which costs a TLS "
        "handshake before anything else is known of it. More are reset at accept, since no answer could be read "
        "without one. Trusted proxies are exempt; `--allow` a load balancer that passes TLS on, as it speaks for many.",
        example="600/minute burst 1200",
        why="It is well above what the quotas of upgrades and of requests let through together, so honest clients are "
        "told `Retry-After` by those long before; two handshakes a second are less than 0.1 % of a core.",
    )
    tls_prefix_quota: Quota | None = option(
        Quota.parse("1200/minute burst 2400"),
        QUOTA,
        QUOTAS,
        help="How many connections a whole /24 (IPv4) or /48 (IPv6) may open to `ssl:` endpoints, in the same way.",
        example="6000/minute",
        why="Ten full addresses: one customer with a /48 must not get a quota for each of its addresses.",
    )
    allow: CidrSet = option(
        CidrSet(),
        NETWORKS,
        ADMISSION,
        help="A network whose clients are exempt from the quotas of upgrades and requests, and from the jail. Caps on "
        "concurrent connections and the quotas of each connection still hold for them.",
        example=("192.0.2.0/24", "2001:db8::/48"),
        why="Nobody is above the quota until you say who.",
    )
    deny: CidrSet = option(
        CidrSet(),
        NETWORKS,
        ADMISSION,
        help="A network whose clients are refused with 403, unless they are allowed.",
        example="198.51.100.0/24",
        why="Nobody is shut out until you say who.",
    )
    allow_file: tuple[str, ...] = option(
        (),
        FILES,
        ADMISSION,
        help="A file of networks to allow, one a line, `#` for comments. It is read again when it changes; a bad line "
        "is refused with its number while the old list stays in force.",
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
        "/48). Past that, new ones share the quota of their neighbourhood, so a scan of the address space cannot fill "
        "the memory.",
        example="200000",
        why="It is more than an honest relay sees, and its memory is still bounded.",
    )
    refusal: Mapping[str, str] = option(
        MappingProxyType({}),
        refusal_kind(()),
        ADMISSION,
        help="Whether refusals for a reason are answered, or the connection is dropped without a word. In the file it "
        'may be a table: `refusal = { unknown_path = "drop" }`.',
        example=("unknown_path=drop", "rate_limit=drop"),
        why="An answer tells honest clients when to come back. Whoever is jailed (`jailed`) is dropped.",
    )
    max_connections: int = option(
        10_000,
        whole_number(1),
        LIMITS,
        help="How many connections may be open at once, all clients together; more are answered 503. The last tenth "
        "is for addresses that hold fewer than 4. Each needs a file descriptor, so raise the limit of open files "
        "(`ulimit -n`) with it.",
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
    max_connections_per_prefix: int | None = option(
        512,
        CAP,
        LIMITS,
        help="How many connections a whole /24 (IPv4) or /48 (IPv6) may have open at once; more are answered 429.",
        example="2048",
        why="Eight full addresses: a subnet that was rented for the purpose cannot fill the relay either.",
    )
    jail_after: Quota | None = option(
        Quota.parse("60/minute"),
        STRIKES,
        JAIL,
        help="An address that is refused this often within the period is jailed: dropped at accept without an answer, "
        "and behind a proxy once its request head is there. That the quota of attempts is spent does not count, but "
        "ten attempts that do not wait as `Retry-After` says are enough. Where addresses of one /48 of IPv6 are "
        "refused four times as often, all of it is jailed. Trusted proxies, this machine and allowed addresses never "
        "are. With `--trust-x-forwarded-for` and without `--trusted-proxy`, it is whom the header names, whoever wrote "
        "it; what is dropped then is requests that name it, and connections of nobody else.",
        example="20/minute",
        why="Clients that wait as they are told never get there, however many share an address; a retry storm does "
        "within seconds.",
    )
    jail_time_s: float = option(
        600.0,
        seconds(1, 365 * _DAY_S),
        JAIL,
        name="jail-time",
        help="How long, in seconds, the first time in jail lasts. Whoever is jailed again soon gets twice as long.",
        example="60",
        why="Ten minutes end a storm, and an honest client that was caught is back before its owner asks.",
    )
    jail_time_max_s: float = option(
        86_400.0,
        seconds(1, 365 * _DAY_S),
        JAIL,
        name="jail-time-max",
        help="How long, in seconds, a time in jail can get.",
        example="604800",
        why="Addresses change hands; a day is long enough to be useless for whoever attacks.",
    )
    jail_file: str = option(
        "pyryrelay-jail.sqlite",
        OPTIONAL_FILE,
        JAIL,
        help="Where the jail survives a restart, relative to the run directory; an empty value keeps it in memory.",
        restart=True,
        example="/var/lib/pyryrelay/jail.sqlite",
        why="A restart must not set attackers free; losing the file loses nothing but bans.",
    )
    kernel_drop: bool | None = option(
        None,
        or_auto(SWITCH),
        JAIL,
        help="Leave jailed addresses to the kernel, which does not answer their SYN: a flood from them costs the "
        "process nothing. Up to 16 of them a second are still accepted, counted and cut off. With `auto` that happens "
        "wherever it takes no privilege (`tcp:` and `ssl:` endpoints under Linux), unless clients could forge whom it "
        "hits, or are owed an answer by `--refusal jailed=answer`. With `true` also on sockets that were handed down, "
        "which takes CAP_NET_ADMIN; where the process may not, the start says so and goes on. On the command line "
        "neither form is `auto`.",
        restart=True,
        example="true",
        why="Nothing else is as cheap, and who knocks only now and then sees no difference.",
    )
