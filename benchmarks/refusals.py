"""CPU time that a refused upgrade costs the server, in microseconds.

The generator connects, sends the request head in one go, reads to the end of the connection and closes, 32 attempts at
a time, thousands in a round; the server's CPU time is divided by them. Ours refuses: an address whose quota is spent,
known by its TCP address; a client whose quota is spent, known only from the head that a trusted proxy passes on (the
generator plays the proxy); one in jail, named by such a head; and one in jail by its TCP address, which needs network
namespaces (root and iproute2), because loopback never is jailed. That one is left to the kernel, so it knocks and is
not heard; with ``--no-kernel-drop`` it is dropped at accept. Beside it: plain Autobahn whose `onConnect` raises
`ConnectionDeny(429)`, nginx whose `limit_req` answers 429, and a relay given by `--peer` if it refuses at all.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import _network
from _attempts import attempts, connect, knock, phone_head
from _rig import AUTOBAHN, NGINX, OURS, Row, Server, alternate, arguments, nginx, peer, program, publish, relay, rival

CLIENT, SPENT = "198.51.100.7", ("--upgrade-quota", "1/hour")
"""A client of documentation's addresses, and a quota that its first attempt spends."""
PROXY = ("--trust-x-forwarded-for", "--trusted-proxy", "127.0.0.1")
NO_JAIL, JAIL = ("--jail-after", "off"), ("--jail-after", "5/minute")
LIMIT_REQ = """\
    limit_req_zone $binary_remote_addr zone=clients:1m rate=1r/m;
    limit_req_status 429;
    keepalive_timeout 0;
    server { listen 127.0.0.1:$PORT; location / { limit_req zone=clients; proxy_pass http://127.0.0.1:1; } }
"""
SETTLE_S, WARM_UP = 0.05, 200
DIRECT, BEHIND = "address known at accept", "address known from the head"
JAILED, NOT_JAILED = "jailed", "not jailed"
KERNEL_S = 10.0
"""How long the relay may take to tell the kernel whom to drop."""


@dataclass
class Contestant:
    """Somebody who refuses with these statuses, once a few attempts have spent what there was. `refuses`: does so."""

    server: Server
    count: int
    statuses: frozenset[int]
    head: bytes = field(default_factory=lambda: phone_head("nobody"))
    around: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    sources: tuple[str | None, ...] = (None,)

    def __post_init__(self) -> None:
        self.refuses = self._warm_up() > 0.5

    def _warm_up(self) -> float:
        return self._attempt(WARM_UP)

    def _attempt(self, count: int) -> float:
        with self.around():
            found = attempts(self.server, self.head, count, self.sources)
        return sum(found[status] for status in self.statuses) / count

    def measure(self) -> float:
        """Microseconds for each attempt. Raises `RuntimeError` if not all of them are refused."""
        began_s = self.server.cpu_s(SETTLE_S)
        refused = self._attempt(self.count)
        spent_s = self.server.cpu_s(SETTLE_S) - began_s
        if refused < 0.99:
            raise RuntimeError(f"only {refused:.0%} were refused as expected")
        return spent_s / self.count * 1e6


def on_loopback(count: int, rounds: int, url: str | None) -> list[Row]:
    """All that needs no network."""
    forwarded = phone_head("nobody", f"X-Forwarded-For: {CLIENT}\r\n")
    answered, dropped = frozenset({429}), frozenset({0})
    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        ours = [(*NO_JAIL,), (*NO_JAIL, *PROXY), (*JAIL, *PROXY)]
        plain, proxied, jailing = (start(relay(*SPENT, *options, generous=False)) for options in ours)
        found = {
            DIRECT: Contestant(plain, count, answered),
            BEHIND: Contestant(proxied, count, answered, forwarded),
            JAILED: Contestant(jailing, count, dropped, forwarded),
            AUTOBAHN: Contestant(start(rival("autobahn_deny")), count, answered),
        }
        if program("nginx"):
            found[NGINX] = Contestant(start(nginx(LIMIT_REQ)), count, answered)
        if url:
            found["peer"] = Contestant(start(peer(url)), count, frozenset({0, 403, 429, 503}))
        found = {name: one for name, one in found.items() if name != "peer" or one.refuses}
        results = alternate(rounds, {name: contestant.measure for name, contestant in found.items()})
    others = {name: results.get(name, []) for name in (AUTOBAHN, NGINX, "peer") if name in results or name == NGINX}
    missing = "" if NGINX in results else "nginx is not installed, so it is left out"
    target = f"at most 1/7 x {AUTOBAHN}; at most 1.1 x {NGINX}"
    jail = {OURS: results[JAILED], AUTOBAHN: results[AUTOBAHN], NOT_JAILED: results[BEHIND]}
    behind_target = f"at most 1/3 x {AUTOBAHN}"
    # Half of what is aimed at for one who is not jailed: half of what that one really costs is less than the system's.
    jail_target = f"at most 1/6 x {AUTOBAHN}"
    return [
        Row(
            "refused upgrade, plain TCP", "µs", {OURS: results[DIRECT], **others}, target, baseline=NGINX, note=missing
        ),
        Row(
            "refused upgrade, behind a proxy", "µs", {OURS: results[BEHIND], **others}, behind_target, baseline=AUTOBAHN
        ),
        Row("jailed, behind a proxy", "µs", jail, jail_target, baseline=AUTOBAHN),
    ]


class Knocking(Contestant):
    """Somebody whose kernel drops what a jailed address sends: an attempt is a packet that is never answered."""

    def __post_init__(self) -> None:
        super().__post_init__()
        end_s = time.monotonic() + KERNEL_S
        while not self._is_deaf():
            if time.monotonic() > end_s:
                raise RuntimeError("the kernel does not drop what a jailed address sends")

    def _is_deaf(self) -> bool:
        with self.around():
            try:
                connect(self.server, self.sources[0], timeout_s=0.2).close()
            except TimeoutError:
                return True
            except ConnectionError:
                pass
        return False

    def _warm_up(self) -> float:
        return super()._attempt(WARM_UP)

    def _attempt(self, count: int) -> float:
        with self.around():
            knock(self.server, count, self.sources[0])
        return 1.0


def between_machines(count: int, rounds: int) -> list[Row]:
    """The jail by TCP address: in the kernel, and at accept."""
    name, target, other = "jailed, plain TCP", f"at most 1/2 x {NOT_JAILED}", NOT_JAILED
    if not _network.possible():
        note = "network namespaces need root and iproute2, so the jail by TCP address is left out"
        return [Row(name, "µs", {OURS: [], other: []}, target, baseline=other, note=note)]
    with _network.two_machines() as client, contextlib.ExitStack() as stack:

        def contestant(kind: type[Contestant], status: int, source: str, *options: str) -> Contestant:
            server = stack.enter_context(relay(*SPENT, *options, generous=False, host=_network.SERVER_V4))
            around = functools.partial(_network.inside, client)
            return kind(server, count, frozenset({status}), around=around, sources=(source,))

        found = {
            OURS: contestant(Knocking, 0, "10.1.2.1", *JAIL),
            JAILED: contestant(Contestant, 0, "10.1.4.1", *JAIL, "--no-kernel-drop"),
            other: contestant(Contestant, 429, "10.1.3.1", *NO_JAIL),
        }
        results = alternate(rounds, {who: one.measure for who, one in found.items()})
    at_accept = {OURS: results[JAILED], other: results[other]}
    return [
        Row(name, "µs", {OURS: results[OURS], other: results[other]}, target, baseline=other),
        Row(f"{name}, --no-kernel-drop", "µs", at_accept, baseline=other),
    ]


def main() -> int:
    """Measure and tell."""
    options = arguments(__doc__ or "")
    count, rounds = (500, 3) if options.quick else (4000, 5)
    rounds = options.rounds or rounds
    publish([*on_loopback(count, rounds, options.peer), *between_machines(count, rounds)], options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
