"""CPU time of the server per refused upgrade, in microseconds.

The load generator connects, sends the request head at once, reads to the end of the connection and closes. It makes
thousands of attempts per round, 32 at a time; the server's CPU time is divided by their number. Ours refuses

- an address whose quota is spent, known by its TCP address;
- a client whose quota is spent, known from the head that a trusted proxy forwards (the generator acts as the proxy);
- a jailed client, named by such a head;
- a jailed TCP address, which needs network namespaces (root and iproute2), because loopback is never jailed. The kernel
  drops its packets; with ``--no-kernel-drop`` its connections are dropped at accept.

It is compared with plain Autobahn whose `onConnect` raises `ConnectionDeny(429)`, nginx whose `limit_req` answers 429,
and a relay given by `--peer` if it refuses at all.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import _network
from _attempts import attempts, connect, phone_head, send_syns
from _rig import AUTOBAHN, NGINX, OURS, Row, Server, alternate, arguments, nginx, peer, program, publish, relay, rival

CLIENT, SPENT = "198.51.100.7", ("--upgrade-quota", "1/hour")
"""A client address reserved for documentation, and a quota that its first attempt spends."""
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
"""Longest time until the relay has jailed an address in the kernel."""


@dataclass
class Contestant:
    """A server that refuses with these statuses after a few attempts; ``refuses`` tells whether it does."""

    server: Server
    count: int
    statuses: frozenset[int]
    head: bytes = field(default_factory=lambda: phone_head("unknown"))
    inside: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    sources: tuple[str | None, ...] = (None,)

    def __post_init__(self) -> None:
        self.refuses = self._warm_up() > 0.5

    def _warm_up(self) -> float:
        return self._attempt(WARM_UP)

    def _attempt(self, count: int) -> float:
        with self.inside():
            found = attempts(self.server, self.head, count, self.sources)
        return sum(found[status] for status in self.statuses) / count

    def measure(self) -> float:
        """Return the microseconds per attempt. Raises `RuntimeError` if not all attempts are refused."""
        began_s = self.server.cpu_s(SETTLE_S)
        refused = self._attempt(self.count)
        spent_s = self.server.cpu_s(SETTLE_S) - began_s
        if refused < 0.99:
            raise RuntimeError(f"only {refused:.0%} were refused as expected")
        return spent_s / self.count * 1e6


def on_loopback(count: int, rounds: int, url: str | None) -> list[Row]:
    """Measure everything that needs no network."""
    forwarded = phone_head("unknown", f"X-Forwarded-For: {CLIENT}\r\n")
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
    # Half of the target of a client that is not jailed: half of its real cost would be less than the kernel's own cost.
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


class KernelDropping(Contestant):
    """A relay whose kernel drops the packets of a jailed address: an attempt is a SYN that is never answered."""

    def __post_init__(self) -> None:
        super().__post_init__()
        end_s = time.monotonic() + KERNEL_S
        while not self._is_dropped():
            if time.monotonic() > end_s:
                raise RuntimeError("the kernel does not drop what a jailed address sends")

    def _is_dropped(self) -> bool:
        with self.inside():
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
        with self.inside():
            send_syns(self.server, count, self.sources[0])
        return 1.0


def between_machines(count: int, rounds: int) -> list[Row]:
    """Measure the jail of TCP addresses, in the kernel and at accept."""
    name, target, other = "jailed, plain TCP", f"at most 1/2 x {NOT_JAILED}", NOT_JAILED
    if not _network.possible():
        note = "network namespaces need root and iproute2, so the jail by TCP address is left out"
        return [Row(name, "µs", {OURS: [], other: []}, target, baseline=other, note=note)]
    with _network.two_machines() as client, contextlib.ExitStack() as stack:

        def contestant(kind: type[Contestant], status: int, source: str, *options: str) -> Contestant:
            server = stack.enter_context(relay(*SPENT, *options, generous=False, host=_network.SERVER_V4))
            inside = functools.partial(_network.inside, client)
            return kind(server, count, frozenset({status}), inside=inside, sources=(source,))

        found = {
            OURS: contestant(KernelDropping, 0, "10.1.2.1", *JAIL),
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
    """Measure, and print the results."""
    options = arguments(__doc__ or "")
    count, rounds = (500, 3) if options.quick else (4000, 5)
    rounds = options.rounds or rounds
    publish([*on_loopback(count, rounds, options.peer), *between_machines(count, rounds)], options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
